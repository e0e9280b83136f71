"""Flash attention in plain XLA for any platform, with memory linear in the sequence lengths; the default on CPUs.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse
    dbias = ds;  dq = scale ds k;  dk = scale ds^T q

One key head at a time, with the query heads that read it stacked into rows, so that a tile stays in the cache. A row of
blocks computes first its full blocks, without evaluating the mask, then its partial ones; inactive blocks are skipped.
The backward pass makes five products: it iterates over the queries of one block of keys and adds to the gradient of the
queries in place.

On a CPU a product of this size runs on one core, and independent operations in the body of a loop run in parallel. So
key heads with the same schedule share a loop, as many as there are lanes.

Short sequences, of up to 128 tokens, and few of up to 256, are computed in one tile (`short`): the loop would cost more
than the tile.

Source: Rabe and Staats 2021 for chunks in plain JAX; Dao 2023 (FlashAttention-2) for the backward pass.
"""

from .backward import gradients
from .forward import attend

__all__ = ["attend", "gradients"]
