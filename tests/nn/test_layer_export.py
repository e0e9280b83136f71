"""Layers exported by `jax.export` with a symbolic batch and, where an example is a sequence, a symbolic length."""

import traceback

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax import export

from tests.nn.layer_rows import call, of_each_class

LAYERS = of_each_class()
BOUNDED = ("LearnedPositions", "Convolution1D")  # a table of positions or a kernel bounds the length
BOUNDS = ["t >= 4", "t <= 7"]
# The shape is that of `like`; the number of rows is computed from it; as many tokens are drawn without repetition; the
# mask is a table over the grid.
FIXED = ("EMA", "Unpatch", "TokenDrop", "NeighborhoodAttention")


def sequences(name: str) -> list[bool]:
    """For each input, true if its first axis is a length."""
    return [name not in FIXED and len(shape) == 2 for shape in LAYERS[name].shapes]


def function_of(name: str):
    """The layer over a batch, as a function of its arrays and inputs; and its arrays."""
    row = LAYERS[name]
    arrays, rest = eqx.partition(row.make(jr.key(0)), eqx.is_array)
    key, inference = (jr.key(3), None) if row.draws else (None, True)

    def over_batch(arrays, *inputs):
        layer = eqx.combine(arrays, rest)
        return jax.vmap(lambda *inputs: call(layer, row, inputs, key=key, inference=inference))(*inputs)

    return jax.jit(over_batch), arrays


def exported(name: str, bounds: list[str] | None = None) -> export.Exported:
    function, arrays = function_of(name)
    b, t, s = export.symbolic_shape("b,t,s", constraints=bounds or (BOUNDS if name in BOUNDED else []))
    inputs = []
    for i, (shape, symbolic) in enumerate(zip(LAYERS[name].shapes, sequences(name))):
        shape = (b, (t, s, s)[i], *shape[1:]) if symbolic else (b, *shape)
        inputs.append(jax.ShapeDtypeStruct(shape, jnp.int32 if LAYERS[name].ids else jnp.float32))
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
    return export.export(function)(abstract, *inputs)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_exports_with_a_symbolic_batch_and_length(name, unchecked):
    try:
        exported(name)
    except jax.errors.InconclusiveDimensionOperation as error:
        if not any("/kernels/attention/" in frame.filename for frame in traceback.extract_tb(error.__traceback__)):
            raise
        # The attention op compares lengths: bounds decide, and show that the layer around it compares none.
        exported(name, [*BOUNDS, "s <= 3"] if sum(sequences(name)) > 1 else BOUNDS)


@pytest.mark.parametrize("name", ["Embedding", "RoPE", "LinearAttention", "GRU", "Convolution1D", "LayerNorm"])
def test_an_exported_layer_gives_the_layers_numbers_at_other_sizes(name, unchecked):
    function, arrays = function_of(name)
    program = exported(name)
    examples = [LAYERS[name].inputs(i) for i in range(3)]
    inputs = [jnp.stack(parts) for parts in zip(*examples)]
    inputs = [x[:, :4] if symbolic else x for x, symbolic in zip(inputs, sequences(name))]
    np.testing.assert_allclose(program.call(arrays, *inputs), function(arrays, *inputs), rtol=1e-5, atol=1e-5)
