"""The backward pass: what its kernels share."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from ... import masks
from .. import blocks
from ..problem import Extras, Setting
from . import tiling
from .bias_gradient import bias_gradient
from .extras import Prepared
from .guard import finite
from .key_gradient import key_gradients
from .query_gradient import query_gradient
from .reader import LOG2E
from .ring import Work


def gradients(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, simulated: Any = None
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    shape = tiling.shape_of(q, k, v)
    masked = extras.mask is not None
    delta = jnp.swapaxes(jnp.sum(dout.astype(jnp.float32) * out.astype(jnp.float32), -1), 1, 2) - dlse
    if masked:
        # The logsumexp alone says who saw a number that is not finite: 0 times a delta that is none would spoil the
        # others.
        delta = jnp.where(jnp.isnan(lse), 0.0, delta)
    if _may_see_nothing(extras):
        empty = lse == -jnp.inf
        lse, delta, dout = (
            jnp.where(empty, 0.0, lse),
            jnp.where(empty, 0.0, delta),
            jnp.where(jnp.swapaxes(empty, 1, 2)[..., None], 0, dout),
        )
    operands = [
        tiling.operand(finite(q, masked), shape.dim),
        tiling.operand(finite(k, masked), shape.dim),
        tiling.operand(finite(v, masked), shape.v_dim),
        tiling.operand(dout, shape.v_dim),
        tiling.rows(lse * LOG2E),
        tiling.rows(delta),
    ]
    upright = Work(shape, setting, Prepared(extras, flip=False), operands, False, simulated)
    turned = dataclasses.replace(upright, prepared=Prepared(extras, flip=True), flip=True)
    spread = lambda q_block, kv_block: blocks.spread(extras.mask, shape.q_seq, shape.kv_seq, q_block, kv_block)
    dq = tiling.result(query_gradient(upright, spread), shape.q_seq, q.shape[3])
    dk, dv = key_gradients(turned, spread)
    dk, dv = tiling.result(dk, shape.kv_seq, k.shape[3]), tiling.result(dv, shape.kv_seq, v.shape[3])
    return (dq, dk, dv, bias_gradient(upright, extras.bias, spread)) if with_bias else (dq, dk, dv)


def _may_see_nothing(extras: Extras) -> bool:
    """May there be a query that sees no key?"""
    if isinstance(extras.mask, masks.Causal) and isinstance(extras.mask.offset, int) and extras.mask.offset >= 0:
        return extras.bias is not None
    return extras.mask is not None or extras.bias is not None
