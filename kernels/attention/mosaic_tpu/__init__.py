"""Flash attention for TPU in Pallas: forward, and a backward pass of two kernels, or three where the bias has a
gradient.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse;  dbias = ds;  dq = scale ds k;  dk = scale ds^T q

Blocks that the mask empties are not visited and cost no copy; blocks that it fills skip its evaluation. Sequences are
padded inside to a multiple of the block. The backward kernels hold the tile transposed, (keys, queries), so that the
row statistics lie along lanes.

Source: Dao 2023 (FlashAttention-2); the list of visits per row follows the idea of block-sparse prefetch lists.
"""

import jax.numpy as jnp

from ..problem import Extras, Setting
from . import tiling
from .backward import backward
from .forward import forward
from .pattern import too_fine
from .tiling import shape_of

__all__ = ["backward", "forward", "supports"]


def supports(q, k, v, extras: Extras, setting: Setting) -> str | None:
    """Why this call cannot run as a TPU kernel, or None."""
    if q.dtype not in (jnp.float32, jnp.bfloat16):
        return f"the kernel computes float32 and bfloat16: got {q.dtype}"
    if max(q.shape[-1], v.shape[-1]) > 512:
        return f"head_dim above 512 does not fit the fast memory: got {max(q.shape[-1], v.shape[-1])}"
    if mask := too_fine(extras.mask, shape_of(q, k, v, tiling.FORWARD_BLOCK)):
        return f"a pattern of blocks of {mask.block} does not fit the scalar memory at {k.shape[1]} keys"
    return None
