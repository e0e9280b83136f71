"""The attention op: argument checks, masks joined, and the call of its primitive."""

import functools
import math
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Shaped

from .. import _dropout, masks
from .._explicit import on_auto_axes, places_of, spec_like
from .._fused import Places
from . import backends, checks, primitives
from .problem import ALiBi, Extras, Setting, accumulator

# `checks` checks the shapes, so that the message names the constraint.
Input = Shaped[Array | np.ndarray, "..."]


@overload
def dot_product_attention(
    query: Input,
    key: Input,
    value: Input,
    bias: Input | ALiBi | None = ...,
    mask: Input | masks.Mask | None = ...,
    *,
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
def dot_product_attention(
    query: Input,
    key: Input,
    value: Input,
    bias: Input | ALiBi | None = ...,
    mask: Input | masks.Mask | None = ...,
    *,
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


def dot_product_attention(
    query: Input,
    key: Input,
    value: Input,
    bias: Input | ALiBi | None = None,
    mask: Input | masks.Mask | None = None,
    *,
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
    """Dot-product attention: `softmax(cap(scale * q k^T) + bias) v` over the keys that the mask allows.

    Names, defaults and layout are those of `jax.nn.dot_product_attention`, so that a user changes one import. Memory is
    linear in the sequence lengths on every backend but `reference`, unless a length is a symbol of `jax.export`.
    Softmax statistics and sums are float32; the result has the query's dtype.

    Args:
        query: (*batch, q_seq, heads, head_dim), float32, bfloat16, float16 or float64, with any number of leading axes
            or none.
        key: (*batch, kv_seq, kv_heads, head_dim). `kv_heads` divides `heads`; query head n reads key head n // (heads
            // kv_heads).
        value: (*batch, kv_seq, kv_heads, v_head_dim). `v_head_dim` may differ from `head_dim`.
        bias: added to the logits after the soft cap: an array that broadcasts to (*batch, heads, q_seq, kv_seq), or an
            `ALiBi`.
        mask: True where a query may see a key: a boolean array that broadcasts to (*batch, heads, q_seq, kv_seq), or
            masks of `kernels.masks` joined with `&` and `|`, which cost no memory and skip blocks.
        scale: factor of the logits; `1 / sqrt(head_dim)` by default.
        is_causal: the same as `masks.Causal()`: query i sees keys 0 to i, also if the lengths differ.
        query_seq_lengths: (*batch,) integers. Rows at or beyond the length are 0.
        key_value_seq_lengths: (*batch,) integers. Keys at or beyond the length are not seen.
        local_window_size: `(left, right)`, or one int for both: query i sees keys i - left to i + right.
        return_residual: also return the logsumexp of each row's logits, (*batch, q_seq, heads) in float32, which is
            differentiable.
        implementation: None chooses the best that can run and logs it once. A named one runs or raises.
        logits_soft_cap: the cap c of `c * tanh(logits / c)`.
        dropout_rate: the fraction of attention weights set to 0; the others are scaled by 1 / (1 - rate).
        dropout_key: a key of `jax.random`. The same key drops the same weights, whatever the implementation.

    Returns:
        (*batch, q_seq, heads, v_head_dim), and the logsumexp with `return_residual=True`. A row that sees no key is
        exactly 0, has zero gradient and a logsumexp of -inf (`jax.nn` returns the mean of the values there). A masked
        key that is NaN, infinite or huge has no effect on the output or a derivative of any order; a query or key with
        a number that is not finite makes NaN of the rows that see it.

    Raises:
        ValueError: a constraint on shapes, lengths, rates or windows is violated; the message has both values. An
            unknown implementation.
        TypeError: integer or mixed dtypes, a mask that is not boolean.
        NotImplementedError: the named implementation cannot run this call; the message has the reason.

    Source: Vaswani et al. 2017; Dao 2023 (FlashAttention-2) for the backward pass; Gemma 2 for the soft cap.
    """
    q, k, v = checks.arrays(query, key, value)
    batch = q.shape[:-3]
    q, setting = setting_of(q, scale, logits_soft_cap, checks.dropout(dropout_rate, dropout_key))
    lengths = (
        checks.lengths("query_seq_lengths", query_seq_lengths, batch, q.shape[-3]),
        checks.lengths("key_value_seq_lengths", key_value_seq_lengths, batch, k.shape[-3]),
    )
    joined = joined_mask(mask, is_causal, local_window_size, lengths)
    rows = spec_like(q, k, v, axes=len(batch))[:-1]
    places = places_of((q, k, v), (*rows[: len(batch)], None, rows[-1], None), whole=(-3, -1), lead=len(batch))
    out, lse = on_auto_axes(
        functools.partial(_attend, setting=setting, implementation=implementation, places=places),
        (q, k, v, bias, joined, dropout_key),
        (PartitionSpec(*rows, None), PartitionSpec(*rows)),
    )
    return (out, lse) if return_residual else out


def _attend(q, k, v, bias, mask, dropout_key, *, setting: Setting, implementation: str | None, places: Places | None):
    """(out, logsumexp) of the call, with the leading axes folded into one batch axis for the primitive."""
    *batch, q_seq, heads, _ = q.shape
    batch, kv_seq = tuple(batch), k.shape[-3]
    extras = Extras(
        checks.bound_bias(bias, batch, heads, q_seq, kv_seq),
        checks.bound_mask(mask, batch, heads, q_seq, kv_seq) if mask is not None else None,
        _seeds(dropout_key, math.prod(batch), heads, places) if setting.dropout_rate > 0.0 else None,
    )
    q, k, v = (x.reshape(math.prod(batch), *x.shape[-3:]) for x in (q, k, v))
    backends.check(implementation, q, k, v, extras, setting)
    if 0 in (*batch, q_seq, kv_seq):
        out = jnp.zeros((*batch, q_seq, heads, v.shape[-1]), q.dtype)
        return out, jnp.full((*batch, q_seq, heads), -jnp.inf, accumulator(q.dtype))
    out, lse = primitives.attend(q, k, v, extras, setting, implementation=implementation, places=places)
    return out.reshape(*batch, q_seq, heads, -1), jnp.swapaxes(lse, 1, 2).reshape(*batch, q_seq, heads)


def _seeds(dropout_key, batch: int, heads: int, places: Places | None):
    """The seeds of dropout; with places, drawn on each device rather than in parts that devices exchange."""
    seeds = _dropout.seeds(dropout_key, batch, heads)
    return seeds if places is None else jax.lax.with_sharding_constraint(seeds, PartitionSpec())


def joined_mask(mask, is_causal: bool, local_window_size, lengths: tuple[Any, Any]) -> masks.Mask | None:
    """One mask of all arguments that restrict the pairs."""
    parts = [
        masks.as_mask(mask) if mask is not None else None,
        masks.Causal() if is_causal else None,
        checks.window(local_window_size),
        masks.Lengths(*lengths) if lengths != (None, None) else None,
    ]
    parts = [part for part in parts if part is not None]
    return functools.reduce(lambda a, b: a & b, parts) if parts else None


def setting_of(q, scale, soft_cap, dropout_rate) -> tuple[jax.Array, Setting]:
    """The static numbers of the call, and the query times a scale that is traced."""
    if scale is None:
        scale = q.shape[-1] ** -0.5
    checks.number("scale", scale, 0.0, float("inf"), "finite and positive")
    if isinstance(scale, Tracer):
        q, scale = (q * scale.astype(accumulator(q.dtype))).astype(q.dtype), 1.0
    if soft_cap is not None:
        if isinstance(soft_cap, Tracer):
            raise TypeError(f"{checks.OP}: logits_soft_cap must be a Python number: got {soft_cap!r}")
        checks.number("logits_soft_cap", soft_cap, 0.0, float("inf"), "finite and positive")
        soft_cap = float(soft_cap)
    return q, Setting(float(scale), soft_cap, dropout_rate)
