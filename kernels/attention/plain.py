"""Attention in ordinary JAX, one block of queries at a time: the source of forward-mode and higher derivatives.

Each block is recomputed (`jax.checkpoint`), so that memory is linear in the sequence lengths in every derivative.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .._blocks import known
from . import reference
from .problem import ALiBi, Extras, Setting

BLOCK = 128


def attend(q, k, v, extras: Extras, setting: Setting):
    """The same function as `reference.attend`."""
    seq = q.shape[1]
    if not known(seq) or seq <= BLOCK:
        return reference.attend(q, k, v, extras, setting)
    blocks = -(-seq // BLOCK)
    rows, rebuild = _rows(extras, seq)

    def cut(x, axis):
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, blocks * BLOCK - seq)
        x = jnp.pad(x, pad).reshape(*x.shape[:axis], blocks, BLOCK, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    @jax.checkpoint
    def one(q, rows, index):
        return reference.attend(q, k, v, rebuild(rows), setting, first_query=index * BLOCK, queries=seq)

    parts = cut(q, 1), [cut(x, axis) for x, axis in rows], jnp.arange(blocks, dtype=jnp.int32)
    out, lse = jax.lax.map(lambda part: one(*part), parts)
    join = lambda x, axis: jax.lax.collapse(jnp.moveaxis(x, 0, axis), axis, axis + 2)
    return join(out, 1)[:, :seq], join(lse, 2)[:, :, :seq]


def _rows(extras: Extras, seq: int):
    """The arrays of `extras` with one row per query, each with that axis, and a function from their blocks to the
    extras of a block.
    """
    arrays = extras.mask.arrays() if extras.mask is not None else ()
    axes = extras.mask.axes if extras.mask is not None else ()
    has_rows = [
        not isinstance(x, int) and "q" in names and x.shape[names.index("q")] == seq for x, names in zip(arrays, axes)
    ]
    rows: list[Any] = [(x, names.index("q")) for x, names, has in zip(arrays, axes, has_rows) if has]
    bias_rows = extras.bias is not None and not isinstance(extras.bias, ALiBi) and extras.bias.shape[2] == seq
    if bias_rows:
        rows.append((extras.bias, 2))

    def rebuild(blocks):
        blocks = list(blocks)
        bias = blocks.pop() if bias_rows else extras.bias
        blocks = iter(blocks)
        mask = extras.mask and extras.mask.replace(
            tuple(next(blocks) if has else x for x, has in zip(arrays, has_rows))
        )
        return Extras(bias, mask, extras.seeds)

    return rows, rebuild
