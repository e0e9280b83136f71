"""Skeleton of a layer: its file, export, rows of tests, docs and benchmarks."""

from tests.new.edits import Checkout, class_name, snake

LAYER = '''"""NAME: one line that says what it computes."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check


class NAME(eqx.Module):
    """`x * scale`: replace it by the formula, and name its source (author year, arXiv number, equation).

    Args:
        dim: size of the last axis, kept.
    """

    scale: Float[Array, " dim"]

    def __init__(self, dim: int, *, key: PRNGKeyArray | None = None):
        _check.positive(dim=dim)
        self.scale = jnp.ones(dim)

    def __call__(
        self, x: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*leading dim"]:
        _check.last_axis(x, "dim", len(self.scale))
        return x * self.scale.astype(x.dtype)[(None,) * (x.ndim - 1)]
'''

ROWS = '''"""The table's rows of NAME."""

import jax.numpy as jnp

from eqxgen import nn
from tests.nn.layer_rows import Row, Wrong

LAYERS = {
    "NAME": Row(lambda key: nn.NAME(5, key=key), (7, 5), ((7, 5),)),
}

WRONG = [
    Wrong(lambda: nn.NAME(0), "dim must be an integer of at least 1: got 0"),
    Wrong(lambda: nn.NAME(5)(jnp.ones((7, 4))), r"dim=5 entries: got shape \\(7, 4\\)"),
]
'''

TEST = '''"""NAME against its formula and its published implementation."""

import numpy as np

from eqxgen import nn
from tests.arrays import drawn


def test_MODULE_is_its_formula():
    x = drawn((7, 5))
    np.testing.assert_allclose(nn.NAME(5)(x), x, rtol=1e-6)
'''

RACE = '''"""Rows of NAME."""

from bench.layers.contenders import Race, batched, normal
from eqxgen import nn

RACES: dict[str, Race] = {
    "NAME": Race(lambda: (batched, nn.NAME(384), normal(4, 256, 384))),
}
'''


def layer(checkout: Checkout, name: str) -> str:
    """Writes the skeleton of a layer; gives the arguments of pytest for its tests."""
    module = snake(class_name(name))
    fill = lambda text: text.replace("NAME", name).replace("MODULE", module)
    checkout.create(f"eqxgen/nn/{module}.py", fill(LAYER))
    checkout.create(f"tests/nn/layers_{module}.py", fill(ROWS))
    checkout.create(f"tests/nn/test_layers_{module}.py", fill(TEST))
    checkout.create(f"bench/layers/rows_{module}.py", fill(RACE))
    checkout.add_import("eqxgen/nn/__init__.py", f"eqxgen.nn.{module}", f"{name} as {name}")
    checkout.add_table_row("docs/layers.md", "| layer |", f"| `{name}` | one line that says what it computes |")
    files = ("layers", "layer_inputs", "layer_export", "layer_places", f"layers_{module}")
    named = " ".join(f"tests/nn/test_{file}.py" for file in files)
    return f"{named} -k '{name} or {module} or every_layer_has'"
