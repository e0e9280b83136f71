"""The kernel for the gradient of a bias."""

import dataclasses
import math

import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..._blocks import div, rem
from ..problem import ALiBi
from .launch import Pass, Refs, launch
from .schedule import flags
from .scores import dot, score_gradients
from .tiling import Output, Tile


def bias_gradient(work: Pass):
    """The gradient of the bias in its own shape, or of ALiBi's slopes. Each block sums all tiles that read it."""
    shape, bias = work.shape, work.extras.bias
    alibi = isinstance(bias, ALiBi)
    size = (*bias.slopes.shape, 1, 1) if alibi else bias.shape
    b, h, t, s = (n > 1 for n in size)
    # The examples, heads, blocks of queries and blocks of keys that share one block of the bias.
    shared = (
        shape.batch // size[0],
        shape.heads // size[1],
        1 if t else shape.q_blocks,
        1 if s else shape.kv_blocks,
    )
    own = (size[0], size[1], shape.q_blocks if t else 1, shape.kv_blocks if s else 1)
    table = flags(work.active, work.full)

    def where(ids, entries):
        bi, hi, qi, ki, n = ids
        n, dk = div(n, shared[3]), rem(n, shared[3])
        n, dq = div(n, shared[2]), rem(n, shared[2])
        db, dh = div(n, shared[1]), rem(n, shared[1])
        return Tile(bi if b else db, hi if h else dh, qi + dq, ki + dk)

    def kernel(refs: Refs):
        (dbias,), tile = refs.outs, refs.tile

        @pl.when(refs.ids[4] == 0)
        def _():
            dbias[...] = jnp.zeros_like(dbias)

        def compute(masked):
            for part in range(shape.parts):
                at = dataclasses.replace(tile, part=part)
                q, k, v, dout, *rows = refs.load(at)
                _, _, ds = score_gradients(refs.scores, at, masked, dot(k, q, (1, 1)), dot(v, dout, (1, 1)), *rows)
                ds = (ds * -refs.scores.distance(at) if alibi else ds).T
                dbias[0, 0, :, shape.keys(part)] += ds if t else ds.sum(0, keepdims=True)

        examples, heads, rows, columns = table.shape
        row = ((tile.b if examples > 1 else 0) * heads + (tile.h if heads > 1 else 0)) * rows + tile.q
        flag = refs.entries[row * columns + tile.k]
        pl.when(flag == 1)(lambda: compute(True))
        pl.when(flag == 2)(lambda: compute(False))

    block = (1, 1, shape.q_block if t else 1, shape.kv_block)
    place = lambda tile: (tile.b if b else 0, tile.h if h else 0, tile.q if t else 0, tile.k if s else 0)
    whole = (*own[:2], *(count * side for count, side in zip(own[2:], block[2:])))
    out = Output(whole, jnp.float32, block, place)
    grid = (*own, math.prod(shared))
    dbias = launch(work, "backward_bias", kernel, where, grid=grid, entries=jnp.asarray(table), outs=[out], scratch=[])[
        0
    ]
    dbias = dbias[:, :, : size[2], : size[3]] if s else dbias[:, :, : size[2]].sum(3, keepdims=True)
    return dbias.reshape(size[:2]).astype(bias.slopes.dtype) if alibi else dbias.astype(bias.dtype)
