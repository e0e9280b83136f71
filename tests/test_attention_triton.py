"""The Triton kernels of attention without a GPU: in Triton's interpreter, compiled by ptxas, and lowered by jax-triton.

Each runs in a process of its own, which is this file as a script, because Triton decides on import whether it interprets.
"""

import dataclasses
import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent


class Pointer:
    """A NumPy array as the interpreter asks for a tensor."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype
        self.cpu = self.untyped_storage = lambda: self
        self.new_empty = lambda *_, **__: Pointer(array)
        self.data_ptr = lambda: array.ctypes.data
        self.set_ = self.copy_ = self.storage_offset = self.size = self.stride = lambda *_: None


def interpret(launch, *inputs):
    kernel = getattr(importlib.import_module(f"kernels.attention.triton.{launch.module}"), launch.kernel)
    outputs = [np.full(o.shape, np.nan, o.dtype) for o in launch.outputs]
    kernel[(launch.grid,)](*(Pointer(np.array(a)) for a in inputs), *map(Pointer, outputs), **launch.sizes)
    return [jnp.asarray(o) for o in outputs]


def attend(q, k, v, extras, setting, *, implementation):
    """What the primitives do, for concrete arrays alone."""
    from kernels import ALiBi
    from kernels.attention import triton

    assert implementation == "triton"
    with_bias = lambda bias: dataclasses.replace(extras, bias=bias)

    @jax.custom_vjp
    def attend(q, k, v, bias):
        return triton.forward(q, k, v, with_bias(bias), setting)

    def forward(*operands):
        results = attend(*operands)
        return results, (operands, results)

    def backward(saved, cotangents):
        (q, k, v, bias), results = saved
        grads = triton.backward(q, k, v, with_bias(bias), setting, *results, *cotangents, with_bias=bias is not None)
        if isinstance(bias, ALiBi):
            return *grads[:3], ALiBi(grads[3], np.zeros(bias.offset.shape, jax.dtypes.float0))
        return grads if bias is not None else (*grads, None)

    attend.defvjp(forward, backward)
    return attend(q, k, v, extras.bias)


def loops_may_end_at_a_loaded_number():
    """The interpreter holds a scalar as an array of one element, which NumPy 2.5 no longer takes for a number."""
    from triton.runtime import interpreter

    before = interpreter._patch_lang_tensor

    def patch(tensor, scope):
        before(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch


def interpreted(names):
    from attention_cases import inputs, measure
    from attention_oracle import agree

    from bench.shapes import ATTENTION
    from kernels.attention import primitives
    from kernels.attention.triton import launch, tiles

    loops_may_end_at_a_loaded_number()
    launch.call, primitives.attend = interpret, attend
    for table in tiles.TABLES.values():
        for dim in table:
            table[dim] = tiles.Tile(32, 32, 4, 1)
    tiles.FORWARD[32] = tiles.Tile(32, 64, 4, 1)
    for name in names or ATTENTION:
        case = ATTENTION[name]
        arrays, rest = inputs(case)
        print(name, flush=True)
        agree(measure(arrays, rest, "triton"), case, arrays, rest)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    {"interpreted": interpreted}[sys.argv[1]](sys.argv[2:])
