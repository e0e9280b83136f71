"""Schedules of TPU kernels, as libtpu compiles them on any host: bundles, filled slots, bytes. No timing.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python -m bench.tpu_schedule --for v5e --dims 128 --lengths 4096

In Python, for any function of arrays:

    from bench.tpu_schedule import measure
    measure(lambda q, k, v: dot_product_attention(q, k, v), *shapes, topology="v5e")

A bundle is one instruction word of the core, issued once per clock unless a wait stalls it. Stalls are not counted.
"""

from .measure import measure

__all__ = ["measure"]
