"""The TPU kernels of attention on the CPU: by Pallas' plain interpreter through the op, or by its simulator of a
TPU.
"""

import contextlib
import dataclasses

import jax
import numpy as np
from jax.experimental.pallas import tpu as pltpu

from kernels import ALiBi
from kernels.attention import mosaic_tpu, primitives
from kernels.attention.mosaic_tpu import blocks, tiling


@contextlib.contextmanager
def interpreted(monkeypatch, *, simulated=False, whole=False):
    """Small tiles, or `whole` sequences as users have them, and `implementation="mosaic_tpu"` on the CPU.

    The simulator keeps memory spaces and copies apart and fills what is not yet written with NaN. It calls back into
    Python, which a primitive cannot lower, so there the kernels are joined by a `jax.custom_vjp` in the primitive's
    stead.
    """
    with monkeypatch.context() as patch:
        patch.setenv("EQXGEN_INTERPRET", "1")
        if not whole:
            patch.setattr(blocks, "LONGEST", 0)
        patch.setattr(tiling, "LANES", 16)
        for table in ("FORWARD", "PAIRED_FORWARD"):
            patch.setattr(blocks, table, {1024: blocks.Blocks(64, 64, 32, 32, 16)})
        for table in ("BACKWARD", "PAIRED_BACKWARD", "UNMASKED_BACKWARD", "WIDE_PAIRED_BACKWARD"):
            patch.setattr(blocks, table, {1024: blocks.Blocks(64, 64, 32, 32, 32)})
        patch.setattr(blocks, "SUM_BYTES", 16 * 2 * (64 * 16 * 8))  # two blocks of queries
        if simulated:
            patch.setattr(primitives, "attend", _attend)
        jax.clear_caches()
        yield
    jax.clear_caches()


def _attend(q, k, v, extras, setting, *, implementation, places=None):
    assert implementation == "mosaic_tpu"
    assert places is None
    mode = pltpu.InterpretParams(uninitialized_memory="nan")
    with_bias = lambda bias: dataclasses.replace(extras, bias=bias)

    @jax.custom_vjp
    def attend(q, k, v, bias):
        return mosaic_tpu.attend(q, k, v, with_bias(bias), setting, interpret=mode)

    def forward(*operands):
        results = attend(*operands)
        return results, (operands, results)

    def backward(saved, cotangents):
        (q, k, v, bias), results = saved
        shared = {"with_bias": bias is not None, "interpret": mode}
        grads = mosaic_tpu.gradients(q, k, v, with_bias(bias), setting, *results, *cotangents, **shared)
        if isinstance(bias, ALiBi):
            return *grads[:3], ALiBi(grads[3], np.zeros(bias.offset.shape, jax.dtypes.float0))
        return grads if bias is not None else (*grads, None)

    attend.defvjp(forward, backward)
    return attend(q, k, v, extras.bias)
