"""The bytes that a device sends for one forward and one backward pass, by which the method is chosen."""

import math
from typing import Any

import jax.numpy as jnp

from ..attention.problem import ALiBi, Extras, accumulator
from .heads import repeats

METHODS = ("ring", "all_to_all")


def sent(q, k, v, extras: Extras, devices: int) -> dict[str, float]:
    """Bytes that a device sends by each method; arrays are those of one device.

    ring: keys and values in each pass, `n - 1` times, with their gradients in the accumulator's dtype as often, and the
        last turn of those in the dtype of keys and values: `(2 n - 1) (K + V) + (n - 1) (dK + dV)`
    all_to_all: query, key, value, output and logsumexp to the heads and their gradients back, and the rows of a bias or
        a dense mask:
        `2 (n - 1) / n (Q + r (K + V) + O + L) + rows`, with key heads repeated `r` times so that `n` divides them
    """
    item, wide = q.dtype.itemsize, jnp.dtype(accumulator(q.dtype)).itemsize
    keys, rows = k.size + v.size, math.prod(q.shape[:3])
    out = rows * v.shape[3]
    both = 2 * (devices - 1) / devices
    ring = (2 * devices - 1) * keys * item + (devices - 1) * keys * wide
    heads = both * ((q.size + repeats(k.shape[2], devices) * keys + out) * item + rows * wide)
    return {"ring": float(ring), "all_to_all": heads + _rows(extras, q.shape[1], devices)}


def _rows(extras: Extras, q_seq: int, devices: int) -> float:
    """Bytes of a bias, with its gradient, and of dense masks, which the heads need for all queries."""
    arrays: list[tuple[str, Any, int]] = []
    if extras.bias is not None and not isinstance(extras.bias, ALiBi):
        arrays.append(("bhqk", extras.bias, 2))
    if extras.mask is not None:
        arrays += [(axes, x, 1) for axes, x in zip(extras.mask.axes, extras.mask.arrays()) if not isinstance(x, int)]
    total = 0.0
    for axes, x, passes in arrays:
        if "q" in axes and "k" in axes and x.shape[axes.index("q")] == q_seq:
            share = devices if x.shape[axes.index("h")] > 1 else 1
            total += passes * (devices - 1) / share * x.size * x.dtype.itemsize
    return total
