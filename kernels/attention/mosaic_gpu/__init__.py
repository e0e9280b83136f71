"""Flash attention for Hopper in Pallas Mosaic GPU: forward, and a deterministic backward pass.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse
    dbias = ds;  dq = scale ds k;  dk = scale ds^T q

Every kernel has one loading warpgroup and two that compute (`launch`). An inactive block is skipped and costs no copy;
a full one skips the mask. The kernels of the keys hold a tile transposed, (keys, queries), so that the first factors
of their sums come from registers.

Source: Shah et al. 2024 (FlashAttention-3) for the warp specialisation; Dao 2023 (FlashAttention-2) for the backward
pass.
"""

from typing import Any

from ..problem import Extras, Setting
from .support import device_reason, supports
from .tiling import shares_registers

__all__ = ["attend", "device_reason", "gradients", "shares_registers", "supports"]


def attend(q, k, v, extras: Extras, setting: Setting, *, simulated: Any = None):
    """(out, logsumexp) as `reference.attend` gives them.

    `simulated` holds the parameters of JAX's GPU simulator; None compiles.
    """
    # Pallas' Mosaic GPU is slow to import.
    from . import forward

    return forward.attend(q, k, v, extras, setting, simulated=simulated)


def gradients(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, simulated: Any = None
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    from . import backward

    return backward.gradients(q, k, v, extras, setting, out, lse, dout, dlse, with_bias=with_bias, simulated=simulated)
