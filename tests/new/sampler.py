"""Skeleton of a sampler of tokens: a function of a model that a protocol describes, and its test."""

from tests.new.edits import Checkout, module_name

SAMPLER = '''"""One line that says how it draws (author year, arXiv number, algorithm)."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.protocols import MaskedModel


def NAME(
    model: MaskedModel, condition: Int[Array, "..."], *, temperature: float | Float[Array, ""] = 1.0, key: PRNGKeyArray
) -> Int[Array, " tokens"]:
    """Draws all tokens of one example at once, each from its own distribution: replace it by the algorithm.

    Args:
        condition: see `MaskedModel.check_condition`.
        temperature: divides the logits; above 0.
        key: of all draws.

    Raises:
        ValueError: the temperature is known and not above 0.
    """
    if isinstance(temperature, float) and not temperature > 0:
        raise ValueError(f"temperature must be above 0: got {temperature}")
    masked = jnp.full(model.tokens, model.mask_id, jnp.int32)
    logits = model(masked, condition, inference=True)
    return jr.categorical(key, (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)
'''

TEST = '''"""NAME: what it draws from a model whose distribution is known."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.decoding.NAME import NAME
from eqxgen.protocols import MaskedModel


class Known:
    """A model of three tokens whose logits do not depend on its input."""

    tokens, codes, mask_id, null_label = 3, 4, 4, 2
    logits = jnp.log(jnp.asarray([0.5, 0.25, 0.125, 0.125]))

    def check_condition(self, condition):
        return jnp.asarray(condition)

    def __call__(self, ids, label, *, key=None, inference=None):
        return jnp.broadcast_to(self.logits, (3, 4))


def test_NAME_draws_each_code_as_often_as_the_model_says():
    model = Known()
    assert isinstance(model, MaskedModel)
    ids = jax.vmap(lambda key: NAME(model, jnp.asarray(0), key=key))(jr.split(jr.key(0), 4000))
    shares = np.bincount(np.asarray(ids).ravel(), minlength=4) / ids.size
    np.testing.assert_allclose(shares, np.exp(model.logits), atol=0.02)


def test_NAME_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        NAME(Known(), jnp.asarray(0), temperature=0.0, key=jr.key(0))
'''


def sampler(checkout: Checkout, name: str) -> str:
    """Writes the skeleton of a sampler; gives the arguments of pytest for its tests."""
    module = module_name(name)
    fill = lambda text: text.replace("NAME", module)
    checkout.create(f"eqxgen/decoding/{module}.py", fill(SAMPLER))
    checkout.create(f"tests/decoding/test_{module}.py", fill(TEST))
    row = f"| `{module}.{module}` | one line that says how it draws | `MaskedModel` |"
    checkout.add_table_row("docs/models.md", "| sampler of", row)
    return f"tests/decoding/test_{module}.py"
