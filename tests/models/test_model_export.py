"""Models exported by `jax.export` with a symbolic batch and, where an example is a text, a symbolic length."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from tests.arrays import filled
from tests.full import FULL
from tests.models.model_rows import ROWS
from tests.nn.layer_rows import call

pytestmark = pytest.mark.usefixtures("unchecked")
SHORT = ("GPT", "RNN", "DiT", "VQGAN", "ResNet")
NAMES = [name for name in ROWS if not ROWS[name].whole] if FULL else SHORT
CONTEXT = "t <= 512"  # of BERT and the GPTs, bounds the length


def example(name, batch, length):
    inputs = [jnp.asarray(np.stack(parts)) for parts in zip(*map(ROWS[name].inputs, range(batch)))]
    return [x[:, :length] for x in inputs] if is_text(name) else inputs


def is_text(name):
    return name.startswith(("BERT", "GPT", "RNN", "T5"))


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_model_gives_the_models_numbers_at_two_sizes(name):
    row = ROWS[name]
    arrays, rest = eqx.partition(filled(row.make), eqx.is_array)

    @jax.jit
    def function(arrays, *inputs):
        model = eqx.combine(arrays, rest)
        return jax.vmap(lambda *inputs: call(model, row, inputs), axis_name="batch")(*inputs)

    b, t = export.symbolic_shape("b,t", constraints=[CONTEXT] if name.startswith(("BERT", "GPT")) else [])
    shape = lambda x: (b, t) if is_text(name) else (b, *x.shape[1:])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
    inputs = [jax.ShapeDtypeStruct(shape(x), x.dtype) for x in example(name, 2, 9)]
    program = export.export(function)(abstract, *inputs)
    for batch, length in ((2, 9), (3, 4)):
        inputs = example(name, batch, length)
        np.testing.assert_allclose(
            program.call(arrays, *inputs), function(arrays, *inputs), rtol=1e-5, atol=1e-5, err_msg=str(batch)
        )
