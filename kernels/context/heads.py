"""Attention by two exchanges: each device gets all tokens of some heads, and gives the results of its tokens back.

Source: Jacobs et al. 2023, "DeepSpeed Ulysses".
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..attention import backends, primitives
from ..attention.problem import ALiBi, Extras, Setting
from .geometry import Geometry
from .order import from_zigzag, to_zigzag


def attend(q, k, v, extras: Extras, setting: Setting, geometry: Geometry, implementation: str | None):
    """(out, logsumexp) of this device's queries, as `reference.attend` gives them for whole sequences."""
    heads, count, name = q.shape[2], geometry.devices, geometry.axis_name
    k, v = (jnp.repeat(x, repeats(k.shape[2], count), 2) for x in (k, v))
    q_seq, kv_seq = q.shape[1], k.shape[1]
    natural = lambda x, axis: from_zigzag(x, count, axis=axis) if geometry.chunks == 2 else x
    stored = lambda x, axis: to_zigzag(x, count, axis=axis) if geometry.chunks == 2 else x

    def exchange(x, split: int, joined: int):
        return jax.lax.all_to_all(x, name, split, joined, tiled=True)

    def own_heads(x, axis: int):
        size = heads // count
        return jax.lax.dynamic_slice_in_dim(x, geometry.index() * size, size, axis)

    def whole(axes: str, x) -> Any:
        """An array for all tokens and this device's heads."""
        if isinstance(x, int):
            return x
        by_head = "h" in axes and x.shape[axes.index("h")] > 1
        rows = axes.index("q") if "q" in axes else None
        if rows is not None and x.shape[rows] == q_seq:
            x = exchange(x, axes.index("h"), rows) if by_head else jax.lax.all_gather(x, name, axis=rows, tiled=True)
            x = natural(x, rows)
        elif by_head:
            x = own_heads(x, axes.index("h"))
        if "k" in axes and (axis := axes.index("k")) is not None:
            if rows is None:
                x = jax.lax.all_gather(x, name, axis=axis, tiled=True)
            if x.shape[axis] == count * kv_seq:
                x = natural(x, axis)
        return x

    bias, mask, seeds = extras.bias, extras.mask, extras.seeds
    if isinstance(bias, ALiBi):
        bias = ALiBi(own_heads(bias.slopes, 1), bias.offset)
    elif bias is not None:
        bias = whole("bhqk", bias)
    if mask is not None:
        mask = mask.replace(tuple(whole(axes, x) for axes, x in zip(mask.axes, mask.arrays())))
    extras = Extras(bias, mask, None if seeds is None else own_heads(seeds, 1))
    q, k, v = (natural(exchange(x, 2, 1), 1) for x in (q, k, v))
    backends.check(implementation, q, k, v, extras, setting)
    out, lse = primitives.attend(q, k, v, extras, setting, implementation=implementation)
    return exchange(stored(out, 1), 1, 2), exchange(stored(lse, 2), 2, 1)


def repeats(kv_heads: int, devices: int) -> int:
    """How often each key head is repeated, so that the devices divide them."""
    return math.lcm(kv_heads, devices) // kv_heads
