"""The calls that the kernels compute."""

import jax.numpy as jnp

from ..problem import Extras, Setting, shape_of
from . import blocks, tiling
from .pattern import too_fine

WIDEST = 512


def supports(q, k, v, extras: Extras, setting: Setting) -> str | None:
    """The reason why the kernels cannot run on this call, or None."""
    if q.dtype not in (jnp.float32, jnp.bfloat16):
        return f"the kernel computes float32 and bfloat16: got {q.dtype}"
    dim = max(q.shape[-1], v.shape[-1])
    if dim > WIDEST:
        return f"head_dim above {WIDEST} does not fit the fast memory: got {dim}"
    sizes = tiling.tiled(shape_of(q, k, v), blocks.forward(tiling.widest(q, v), narrow=extras.narrow))
    if mask := too_fine(extras.mask, sizes):
        return f"a pattern of blocks of {mask.block} does not fit the scalar memory at {sizes.kv_seq} keys"
    return None
