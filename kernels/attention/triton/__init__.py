"""Flash attention in Triton for NVIDIA GPUs from sm_80 on: forward, and a backward pass of two kernels, or three with a
bias gradient.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse
    dbias = ds;  dq = scale ds k;  dk = scale ds^T q

Inactive blocks are skipped, full blocks skip the mask. Any length is supported, and every sum belongs to one program.
Only the kernels and `scores` import triton.

Source: Dao 2023 (FlashAttention-2).
"""

from .backward import gradients
from .forward import attend
from .support import supports

__all__ = ["attend", "gradients", "supports"]
