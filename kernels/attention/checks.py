"""Argument validation: each error names the argument, the constraint and the values."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .. import masks
from .problem import ALiBi

OP = "dot_product_attention"
FLOATS = (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64)


def _fail(text: str):
    raise ValueError(f"{OP}: {text}")


def arrays(query, key, value) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Query, key and value as arrays, of one dtype and of shapes that fit."""
    named = {"query": query, "key": key, "value": value}
    for name, x in named.items():
        if not hasattr(x, "dtype") or not hasattr(x, "ndim"):
            raise TypeError(f"{OP}: {name} must be an array: got {type(x).__name__}")
        if not any(x.dtype == dtype for dtype in FLOATS):
            raise TypeError(f"{OP}: {name} must be float32, bfloat16, float16 or float64: got {x.dtype}")
        if x.ndim < 3:
            _fail(f"{name} must have shape (*batch, seq, heads, head_dim): got {x.shape}")
    q, k, v = (jnp.asarray(x) for x in named.values())
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError(
            f"{OP}: query, key and value must have one dtype: got {q.dtype}, {k.dtype} and {v.dtype}; cast them first"
        )
    for name, x in (("key", k), ("value", v)):
        if x.shape[:-3] != q.shape[:-3]:
            _fail(f"query and {name} must have the same leading axes: got query {q.shape} and {name} {x.shape}")
    if k.shape[-3] != v.shape[-3]:
        _fail(f"key and value must have the same length: got key length {k.shape[-3]} and value length {v.shape[-3]}")
    if k.shape[-2] != v.shape[-2]:
        _fail(
            f"key and value must have the same number of heads: got {k.shape[-2]} key heads and {v.shape[-2]} value "
            "heads"
        )
    if q.shape[-2] == 0 or k.shape[-2] == 0 or q.shape[-2] % k.shape[-2]:
        _fail(
            f"the number of key heads must divide that of query heads: got {q.shape[-2]} query heads and {k.shape[-2]} "
            "key heads"
        )
    if q.shape[-1] != k.shape[-1]:
        _fail(f"query and key must have the same head_dim: got query {q.shape[-1]} and key {k.shape[-1]}")
    if q.shape[-1] == 0 or v.shape[-1] == 0:
        _fail(f"head_dim must be positive: got {q.shape[-1]} for query and key and {v.shape[-1]} for value")
    return q, k, v


def number(name: str, value, low: float, high: float, constraint: str) -> None:
    """A `ValueError` unless a number that is not traced is finite and between `low` and `high`, exclusive."""
    if isinstance(value, Tracer):
        return
    if np.ndim(value) != 0 or not np.issubdtype(np.asarray(value).dtype, np.number):
        raise TypeError(f"{OP}: {name} must be a number: got {value!r}")
    if not math.isfinite(value) or not low < value < high:
        _fail(f"{name} must be {constraint}: got {value}")


def dropout(rate, key) -> float:
    """The dropout rate, if there is a key for it."""
    if isinstance(rate, (Tracer, bool)) or not isinstance(rate, (int, float, np.number)):
        raise TypeError(f"{OP}: dropout_rate must be a Python number: got {rate!r}")
    if not 0.0 <= rate < 1.0:
        _fail(f"dropout_rate must be in [0, 1): got {rate}")
    if rate > 0.0 and key is None:
        _fail(f"dropout_rate={rate} needs a dropout_key: pass a key of jax.random, or dropout_rate=0.0 at inference")
    if key is not None:
        if not hasattr(key, "dtype"):
            raise TypeError(f"{OP}: dropout_key must be a key of jax.random: got {type(key).__name__}")
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if key.shape != () if typed else key.ndim != 1 or key.dtype != jnp.uint32:
            _fail(
                f"dropout_key must be one key of jax.random: got shape {key.shape} of {key.dtype}; use jax.vmap for a "
                "key per example"
            )
    return float(rate)


def _broadcast(name: str, x, batch: tuple[int, ...], sizes: tuple[int, ...], axes: str):
    """`x` with axes (b, *sizes' axes), each of full size or 1."""
    full = (*batch, *sizes)
    shape = np.shape(x)
    names = "(*batch, " + axes + ")" if axes else "(*batch,)"
    if len(shape) > len(full) or any(have not in (1, want) for have, want in zip(shape[::-1], full[::-1])):
        _fail(f"{name} must broadcast to {names} = {full}: got shape {shape}")
    shape = (1,) * (len(full) - len(shape)) + tuple(shape)
    lead, tail = shape[: len(batch)], shape[len(batch) :]
    x = jnp.reshape(x, shape)
    if all(size == 1 for size in lead):
        return x.reshape(1, *tail)
    return jnp.broadcast_to(x, (*batch, *tail)).reshape(math.prod(batch), *tail)


_AXES = {"h": "heads", "q": "q_seq", "k": "kv_seq"}


def bound_mask(mask: masks.Mask, batch: tuple[int, ...], heads: int, q_seq: int, kv_seq: int) -> masks.Mask:
    """The mask with every array in the axes its class names, `b` being the flattened batch."""
    size = {"h": heads, "q": q_seq, "k": kv_seq}
    mask = mask.check(q_seq, kv_seq)
    arrays = []
    for axes, x in zip(mask.axes, mask.arrays()):
        if isinstance(x, int):
            arrays.append(x)
            continue
        x = x if x.dtype == bool else jnp.asarray(x, jnp.int32)
        sizes, names = tuple(size[a] for a in axes[1:]), ", ".join(_AXES[a] for a in axes[1:])
        arrays.append(_broadcast("mask", x, batch, sizes, names))
    return mask.replace(tuple(arrays))


def bound_bias(bias: Any, batch: tuple[int, ...], heads: int, q_seq: int, kv_seq: int):
    """A bias array with axes (b, h, q, k), each full or 1, or an `ALiBi` with slopes (1, heads) and offset (1,)."""
    if bias is None:
        return None
    if isinstance(bias, ALiBi):
        slopes = jnp.asarray(bias.slopes)
        if slopes.shape != (heads,):
            _fail(f"ALiBi's slopes must have shape (heads,) = ({heads},): got {slopes.shape}")
        if not jnp.issubdtype(slopes.dtype, jnp.floating):
            raise TypeError(f"{OP}: ALiBi's slopes must be floating: got {slopes.dtype}")
        offset = jnp.asarray(bias.offset)
        if offset.shape != () or not jnp.issubdtype(offset.dtype, jnp.integer):
            raise TypeError(f"{OP}: ALiBi's offset must be one integer: got shape {offset.shape} of {offset.dtype}")
        return ALiBi(slopes.reshape(1, heads), offset.astype(jnp.int32).reshape(1))
    if not hasattr(bias, "dtype") or not hasattr(bias, "ndim"):
        raise TypeError(f"{OP}: bias must be an array or an ALiBi: got {type(bias).__name__}")
    if not jnp.issubdtype(bias.dtype, jnp.floating):
        hint = "; pass a boolean array as `mask`" if bias.dtype == bool else ""
        raise TypeError(f"{OP}: bias must be floating: got {bias.dtype}{hint}")
    return _broadcast("bias", bias, batch, (heads, q_seq, kv_seq), "heads, q_seq, kv_seq")


def window(size: Any) -> masks.Window | None:
    """The mask of `local_window_size`."""
    if size is None:
        return None
    pair: Any = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
    for side in pair:
        if isinstance(side, bool) or not isinstance(side, (int, np.integer)):
            raise TypeError(f"{OP}: local_window_size must be an int or a pair of ints: got {size!r}")
        if side < 0:
            _fail(f"local_window_size must not be negative: got {size}")
    return masks.Window(*pair)


def lengths(name: str, value, batch: tuple[int, ...], seq: int):
    """Lengths `(*batch,)` as int32; values that are not traced are checked to be from 0 to `seq`."""
    if value is None:
        return None
    value = value if hasattr(value, "dtype") else np.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"{OP}: {name} must be integers: got {value.dtype}")
    if value.shape not in ((), batch) and not (batch == () and value.shape == (1,)):
        _fail(f"{name} must have shape (*batch,) = {batch}: got {value.shape}")
    if not isinstance(value, Tracer) and isinstance(seq, int):
        known = np.asarray(value)
        if known.size and (known.min() < 0 or known.max() > seq):
            _fail(
                f"{name} must be between 0 and the length of its axis: got {known.min()} to {known.max()} for length "
                f"{seq}"
            )
    return jnp.asarray(value, jnp.int32).reshape(batch if value.shape != () else ())
