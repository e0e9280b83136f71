"""Flash attention for Hopper in Pallas Mosaic GPU: forward, and a deterministic backward pass.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse;  dbias = ds;  dq = scale ds k;  dk = scale ds^T q

Every kernel is one loading warpgroup and two that compute (`ring`). Tiles that the mask empties are not visited and
cost no copy; tiles that it fills skip its evaluation. The kernels of the keys hold the tile transposed, (keys,
queries), so that both factors of their sums come from registers.

Source: Shah et al. 2024 (FlashAttention-3) for the division of labour; Dao 2023 (FlashAttention-2) for the backward
pass.
"""

from typing import Any

from ..problem import Extras, Setting
from .support import device_reason, supports
from .tiling import shares_registers

__all__ = ["backward", "device_reason", "forward", "shares_registers", "supports"]


def forward(q, k, v, extras: Extras, setting: Setting, *, simulated: Any = None):
    """`reference.attend` as one kernel. `simulated`: parameters of JAX's GPU simulator, or None to compile."""
    # Pallas' Mosaic GPU takes a while to import.
    from . import attend

    return attend.attend(q, k, v, extras, setting, simulated=simulated)


def backward(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, simulated: Any = None
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    from . import gradients

    return gradients.gradients(q, k, v, extras, setting, out, lse, dout, dlse, with_bias=with_bias, simulated=simulated)
