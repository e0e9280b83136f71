"""Flash attention for TPU in Pallas: forward, and a backward pass of one kernel, or two with a bias gradient.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse
    dbias = ds;  dq = scale ds k;  dk = scale ds^T q

The grid has only active blocks, so an inactive one costs no copy. A full block has no mask: its parts follow one
another in straight programs, so that a softmax runs beside the next product. A block that needs the mask computes its
active pieces in turn, and there alone are numbers that are not finite kept from the pairs that do not see them. Heads
of whole lanes are read and written as columns of (batch, seq, heads * dim); others are transposed to (batch, heads,
seq, dim). Sequences are padded to a multiple of the block. Exponentials are powers of two. The backward kernels hold a
tile transposed, (keys, queries), so that the row statistics are stored along lanes. A call of up to 512 queries and
keys is one tile a head, of its own size without padding, and a step has several heads (`short`).

Source: Dao 2023 (FlashAttention-2); the schedule in scalar memory follows block-sparse prefetch lists.
"""

from typing import Any

from ..problem import Extras, Setting
from .support import supports

__all__ = ["attend", "gradients", "supports"]


def attend(q, k, v, extras: Extras, setting: Setting, *, interpret: Any = False):
    """(out, logsumexp) as `reference.attend` gives them, by one kernel."""
    from . import forward  # Pallas for TPU is slow to import

    return forward.attend(q, k, v, extras, setting, interpret=interpret)


def gradients(
    q,
    k,
    v,
    extras: Extras,
    setting: Setting,
    out,
    lse,
    dout,
    dlse,
    *,
    with_bias: bool,
    kind: str = "",
    interpret: Any = False,
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias; `kind` as in `Target`."""
    from . import backward

    rows = out, lse, dout, dlse
    return backward.gradients(q, k, v, extras, setting, *rows, with_bias=with_bias, kind=kind, interpret=interpret)
