"""Flash attention in plain XLA for any platform, with memory linear in the sequence lengths; on the CPU it is the
product.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse;  dbias = ds;  dq = scale ds k;  dk = scale ds^T q

One key head at a time, with the query heads that read it stacked into rows, so that a tile stays in the cache. A row of
blocks visits first the blocks that the mask fills, without evaluating it, then those it cuts; empty ones are never
visited. The backward pass makes five products: it walks the queries of one block of keys and adds to the gradient of
the queries in place.

On a CPU a product of this size runs on one core, and independent operations in the body of a loop run side by side. So
key heads that visit the same blocks walk them together, as many as there are lanes.

Short sequences, of up to 128 tokens, and few of up to 256, are taken whole: the loop around a tile of them would cost
more than the tile.

Source: Rabe and Staats 2021 for chunks in plain JAX; Dao 2023 (FlashAttention-2) for the backward pass.
"""

from .backward import backward
from .forward import attend

__all__ = ["attend", "backward"]
