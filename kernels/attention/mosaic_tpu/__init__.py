"""Flash attention for TPU in Pallas: forward, and a backward pass of two kernels, or three with a bias gradient.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse
    dbias = ds;  dq = scale ds k;  dk = scale ds^T q

The grid has only active blocks, so an inactive one costs no copy; full blocks skip the mask. Sequences are padded to a
multiple of the block. The backward kernels hold a tile transposed, (keys, queries), so that the row statistics are
stored along lanes.

Source: Dao 2023 (FlashAttention-2); the schedule in scalar memory follows block-sparse prefetch lists.
"""

from .backward import gradients
from .forward import attend
from .support import supports

__all__ = ["attend", "gradients", "supports"]
