"""The op for a sequence that is sharded over a mesh axis: argument checks, and the choice between ring and exchange."""

import functools
import math
from typing import Any, Literal, overload

import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from .. import _dropout, masks
from .._explicit import on_auto_axes, spec_like
from ..attention import checks as attention_checks
from ..attention.api import Input, joined_mask, setting_of
from ..attention.problem import ALiBi, Extras, Setting, accumulator
from . import checks, heads, ring
from .geometry import Geometry


@overload
def context_attention(
    query: Input,
    key: Input,
    value: Input,
    bias: Input | ALiBi | None = ...,
    mask: Input | masks.Mask | None = ...,
    *,
    axis_name: Any,
    method: str | None = ...,
    order: str = ...,
    scale: Any = ...,
    is_causal: bool = ...,
    query_seq_lengths: Any = ...,
    key_value_seq_lengths: Any = ...,
    local_window_size: Any = ...,
    return_residual: Literal[False] = ...,
    implementation: str | None = ...,
    logits_soft_cap: Any = ...,
    dropout_rate: Any = ...,
    dropout_key: Any = ...,
) -> Array: ...


@overload
def context_attention(
    query: Input,
    key: Input,
    value: Input,
    bias: Input | ALiBi | None = ...,
    mask: Input | masks.Mask | None = ...,
    *,
    axis_name: Any,
    method: str | None = ...,
    order: str = ...,
    scale: Any = ...,
    is_causal: bool = ...,
    query_seq_lengths: Any = ...,
    key_value_seq_lengths: Any = ...,
    local_window_size: Any = ...,
    return_residual: Literal[True],
    implementation: str | None = ...,
    logits_soft_cap: Any = ...,
    dropout_rate: Any = ...,
    dropout_key: Any = ...,
) -> tuple[Array, Array]: ...


def context_attention(
    query: Input,
    key: Input,
    value: Input,
    bias: Input | ALiBi | None = None,
    mask: Input | masks.Mask | None = None,
    *,
    axis_name: Any,
    method: str | None = None,
    order: str = "contiguous",
    scale: Any = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: Any = None,
    return_residual: bool = False,
    implementation: str | None = None,
    logits_soft_cap: Any = None,
    dropout_rate: Any = 0.0,
    dropout_key: Any = None,
) -> (
    Float[Array, "*batch q_seq heads v_head_dim"]
    | tuple[Float[Array, "*batch q_seq heads v_head_dim"], Float[Array, "*batch q_seq heads"]]
):
    """`dot_product_attention` inside `jax.shard_map`, for a sequence that is sharded over a manual mesh axis.

    Every device passes its part of the queries, keys and values and gets its part of the result, with the derivatives,
    the masks and the guarantees of `dot_product_attention`. Positions in masks and lengths are those of the whole
    sequence.

    Args:
        query: (*batch, q_seq, heads, head_dim), this device's part: q_seq is the whole length over the number of
            devices.
        key: (*batch, kv_seq, kv_heads, head_dim), this device's part.
        value: (*batch, kv_seq, kv_heads, v_head_dim).
        bias: an array that broadcasts to (*batch, heads, q_seq, devices * kv_seq), with this device's rows and the
            keys of all, in the order in which the devices hold them; or an `ALiBi`.
        mask: a boolean array of the bias's shape, or masks of `kernels.masks`: `Segments` has the ids of this device's
            queries and keys, `BlockSparse` the pattern of the whole sequences.
        axis_name: the mesh axis, or several as a tuple.
        method: "ring" sends keys and values around, and stores no others than its own for the backward pass;
            "all_to_all" exchanges tokens for heads, whose number the devices must divide. None takes the one that
            sends fewer bytes in both passes: with n devices and Q, K, V, O, L bytes of a device's query, key, value,
            output and logsumexp, r = lcm(kv_heads, n) / kv_heads, and dK, dV those of gradients in float32,
            (2 n - 1) (K + V) + (n - 1) (dK + dV) against 2 (n - 1) / n (Q + r (K + V) + O + L) and what the latter
            sends of a bias or a dense mask.
        order: "contiguous", or "zigzag" where the sequence was put in the order of `to_zigzag`, which gives all devices
            of a ring the same work under a causal mask.
        query_seq_lengths, key_value_seq_lengths: (*batch,) integers, of the whole sequences.
        dropout_key: the same on all devices of the axis. By "all_to_all" the weights are dropped that one device would
            drop; by "ring" others, a function of the number of devices too.
        scale, is_causal, local_window_size, return_residual, implementation, logits_soft_cap, dropout_rate: as in
            `dot_product_attention`.

    Returns:
        (*batch, q_seq, heads, v_head_dim), and with `return_residual=True` the logsumexp (*batch, q_seq, heads).

    Raises:
        ValueError: outside `jax.shard_map` over that axis, an unknown method or order, heads that the devices do not
            divide (method="all_to_all"), an odd part (order="zigzag"), and the errors of `dot_product_attention`.
        TypeError, NotImplementedError: as in `dot_product_attention`.
    """
    q, k, v = attention_checks.arrays(query, key, value)
    batch = q.shape[:-3]
    geometry = checks.geometry(axis_name, order, q.shape[-3], k.shape[-3])
    q, setting = setting_of(q, scale, logits_soft_cap, attention_checks.dropout(dropout_rate, dropout_key))
    lengths = (
        attention_checks.lengths("query_seq_lengths", query_seq_lengths, batch, geometry.devices * q.shape[-3]),
        attention_checks.lengths("key_value_seq_lengths", key_value_seq_lengths, batch, geometry.devices * k.shape[-3]),
    )
    joined = joined_mask(mask, is_causal, local_window_size, lengths)
    rows = spec_like(q, k, v, axes=len(batch))[:-1]
    out, lse = on_auto_axes(
        functools.partial(_attend, setting=setting, geometry=geometry, method=method, implementation=implementation),
        (q, k, v, bias, joined, dropout_key),
        (PartitionSpec(*rows, None), PartitionSpec(*rows)),
    )
    return (out, lse) if return_residual else out


def _attend(
    q, k, v, bias, mask, dropout_key, *, setting: Setting, geometry: Geometry, method: str | None, implementation
):
    """(out, logsumexp) of the call, with the leading axes folded into one batch axis."""
    *lead, q_seq, count, _ = q.shape
    batch, kv_seq = tuple(lead), k.shape[-3]
    bias, mask = checks.bound(bias, mask, batch, count, q_seq, kv_seq, geometry.devices)
    seeds = _dropout.seeds(dropout_key, math.prod(batch), count) if setting.dropout_rate > 0.0 else None
    extras = Extras(bias, mask, seeds)
    q, k, v = (x.reshape(math.prod(batch), *x.shape[-3:]) for x in (q, k, v))
    chosen = checks.method(method, q, k, v, extras, geometry.devices)
    if 0 in (*batch, q_seq, kv_seq):
        out = jnp.zeros((*batch, q_seq, count, v.shape[-1]), q.dtype)
        return out, jnp.full((*batch, q_seq, count), -jnp.inf, accumulator(q.dtype))
    attend = {"ring": ring.attend, "all_to_all": heads.attend}[chosen]
    out, lse = attend(q, k, v, extras, setting, geometry, implementation)
    return out.reshape(*batch, q_seq, count, -1), jnp.swapaxes(lse, 1, 2).reshape(*batch, q_seq, count)
