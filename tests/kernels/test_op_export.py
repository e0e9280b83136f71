"""Attention, norms and grouped products exported by `jax.export` with a symbolic batch and length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from bench.ops.attention_shapes import Attention
from bench.ops.norm_shapes import Case
from kernels import grouped_matmul, masks
from tests.arrays import drawn, integers
from tests.full import full
from tests.kernels.attention_cases import call, inputs

pytestmark = pytest.mark.usefixtures("unchecked")

SIZES = {"heads": 4, "kv_heads": 2, "head_dim": 8, "v_head_dim": 6}


def arrays_of(batch, length):
    return inputs(Attention(batch=batch, q_seq=length, kv_seq=length, **SIZES), seed=length)[0]


def symbolic(arrays, *letters):
    """Shapes of the arrays, with symbols for their first axes."""
    symbols = export.symbolic_shape(",".join(letters))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*symbols, *x.shape[len(symbols) :]), x.dtype), arrays)


def value_and_gradient(function):
    def both(arrays):
        loss = lambda arrays: jnp.sum(jnp.sin(function(arrays)))
        return function(arrays), jax.grad(loss)(arrays)

    return jax.jit(both)


def agree(function, example, letters, *others, platforms=None):
    """The program of symbolic sizes gives the function's numbers."""
    program = export.export(function, platforms=platforms)(symbolic(example, *letters))
    for arrays in others:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), program.call(arrays), function(arrays)
        )


@pytest.mark.parametrize("rest", [{"is_causal": True}, {"local_window_size": 3}, {"mask": masks.PrefixLM(2)}], ids=str)
def test_attention_exports_with_a_symbolic_batch_and_length(rest):
    function = value_and_gradient(lambda arrays: call(arrays, rest, None)[0])
    agree(function, arrays_of(2, 5), "bt", arrays_of(2, 5), arrays_of(3, 150))


@full
def test_attention_of_a_fixed_length_in_tiles_exports_with_a_symbolic_batch():
    function = value_and_gradient(lambda arrays: call(arrays, {"is_causal": True}, None)[0])
    for length in (150, 300):
        agree(function, arrays_of(2, length), "b", arrays_of(1, length), arrays_of(3, length))


def test_attention_of_segments_of_symbolic_length_exports_for_every_platform():
    def function(arrays):
        arrays, ids = arrays
        return call(arrays, {"mask": masks.Segments(ids) & masks.Causal()}, None)[0]

    ids = lambda batch, length: jnp.arange(length)[None].repeat(batch, 0) // 4
    every = ("cpu", "cuda", "tpu")
    example = (arrays_of(2, 5), ids(2, 5))
    agree(jax.jit(function), example, "bt", example, (arrays_of(3, 9), ids(3, 9)), platforms=every)


NORMS = [
    Case("layer_norm", (2, 5, 12), bias=True, residual=True),
    Case("rms_norm", (2, 5, 12), scale=False),
    Case("group_norm", (2, 5, 12), scale=False, options=(("groups", 3), ("activation", "silu"))),
]


@pytest.mark.parametrize("case", NORMS, ids=str)
def test_norms_export_with_symbolic_rows(case):
    def function(arrays):
        rows, params = arrays
        return jax.tree.leaves(case.call(rows | params))[0]

    def example(batch, length):
        arrays = jax.tree.map(
            jnp.asarray, Case(case.op, (batch, length, 12), case.scale, case.bias, case.residual).arguments()
        )
        return tuple({n: x for n, x in arrays.items() if (x.ndim > 1) == rows} for rows in (True, False))

    shapes = symbolic(example(2, 5)[0], "b", "t"), example(2, 5)[1]
    program = export.export(value_and_gradient(function), platforms=("cpu", "cuda", "tpu"))(shapes)
    for arrays in (example(2, 5), example(3, 7)):
        got, want = program.call(arrays), value_and_gradient(function)(arrays)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), got, want)


def test_grouped_products_export_with_a_symbolic_batch():
    def function(arrays):
        (x, groups), weight = arrays
        return jax.vmap(grouped_matmul, (0, None, 0))(x, weight, groups)

    rows = lambda batch: (drawn((batch, 7, 5), batch), integers((batch, 7), 4, batch))
    weight = drawn((4, 3, 5))
    program = export.export(jax.jit(function))((symbolic(rows(2), "b"), weight))
    for batch in (1, 3):
        arrays = (rows(batch), weight)
        np.testing.assert_allclose(program.call(arrays), function(arrays), rtol=1e-5, atol=1e-5)
