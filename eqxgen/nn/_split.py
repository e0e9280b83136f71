"""Layers on a part of a sequence, or with a part of the experts or of the blocks, inside `jax.shard_map`."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from eqxgen import ops
from eqxgen.nn import _check

ORDERS = ("contiguous", "zigzag")


class Split(NamedTuple):
    """Mesh axes over which layers are split, and the order of the tokens; see `split_over`."""

    sequence: str | None = None
    experts: str | None = None
    blocks: str | None = None
    order: str = "contiguous"
    method: str | None = None


# JAX's caches have the value in their keys: a function that was traced under one split is traced again under another.
_current = jax.make_user_context(Split())


@contextlib.contextmanager
def split_over(
    *,
    sequence: str | None = None,
    experts: str | None = None,
    blocks: str | None = None,
    order: str = "contiguous",
    method: str | None = None,
) -> Iterator[None]:
    """Layers that are traced within it are split over manual mesh axes, as in `--mesh context=4`, `--mesh expert=4` and
    `--mesh pipeline=4`.

    Of a split sequence each device gives its layers its own tokens. `SelfAttention`, `LatentAttention` and
    `ParallelAttention` attend to those of all devices (`eqxgen.ops.context_attention`), `RoPE` and the positions of a
    `GPT` are those of the whole sequence, `Dropout` drops what one device would drop, and `MoE` counts and limits the
    tokens of the whole sequence. Layers without exchange between tokens need no change; no other layer with one can be
    used. A mask or a bias is given as `context_attention` takes it.

    Of split experts each device has its part of every `MoE`'s along their leading axis; see `MoE`'s `axis`, which this
    is for all layers of a model.

    Of split blocks each device has its part of every `Stack`'s along their leading axis, and examples of its own, which
    go through all devices, one after another. Call the model under `jax.vmap` over a device's examples, so that they
    are cut in micro-batches and no device waits for all of them. A stack of `MoE` blocks and a `LongSkipStack` cannot
    be used, nor can caches.

    Args:
        sequence: mesh axis of the tokens; None: each device has whole sequences.
        experts: mesh axis of the experts; None: each device has all.
        blocks: mesh axis of the blocks of a stack; None: each device has all.
        order: of the tokens, "contiguous" or "zigzag", see `context_attention`.
        method: of the attention's exchange, "ring" or "all_to_all"; by default the one that sends less.

    Raises:
        ValueError: the order is unknown.
    """
    _check.one_of("order", order, ORDERS)
    with _current(Split(sequence, experts, blocks, order, method)):
        yield


def experts_axis() -> str | None:
    """The mesh axis of the experts, or None."""
    return _current.value.experts


def blocks_axis() -> str | None:
    """The mesh axis of the blocks of a stack, or None."""
    return _current.value.blocks


def own_blocks(x: Shaped[Array, "depth *shape"] | None, axis: str) -> Shaped[Array, "blocks *shape"] | None:
    """This device's part of an array with an entry for each block of a stack that is split over `axis`."""
    if x is None:
        return None
    size = len(x) // jax.lax.axis_size(axis)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * size, size)


def devices() -> int:
    """Number of devices that share a sequence."""
    axis = _current.value.sequence
    return 1 if axis is None else jax.lax.axis_size(axis)


def own_tokens(x: Shaped[Array, "..."], axis: int = 0) -> Shaped[Array, "..."]:
    """This device's tokens of an array of all; of a sequence that is not split, the array."""
    starts = _starts(x.shape[axis] // devices())
    if starts is None:
        return x
    size = x.shape[axis] // (devices() * len(starts))
    parts = [jax.lax.dynamic_slice_in_dim(x, start, size, axis) for start in starts]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)


def own_places(seq: int) -> Int[Array, " seq"]:
    """Positions in the whole sequence of the `seq` tokens of this device."""
    starts = _starts(seq)
    if starts is None:
        return jnp.arange(seq, dtype=jnp.int32)
    steps = jnp.arange(seq // len(starts), dtype=jnp.int32)
    return jnp.concatenate([start + steps for start in starts])


def own_rows(shape: tuple[int, ...]) -> Int[Array, " rows"] | None:
    """Numbers of the rows of an array `(seq, ..., dim)` of this device's tokens among those of the whole sequence; None
    where they are 0, 1, ...
    """
    if len(shape) < 2 or _current.value.sequence is None:
        return None
    inner = math.prod(shape[1:-1])
    return (own_places(shape[0])[:, None] * inner + jnp.arange(inner, dtype=jnp.int32)[None]).reshape(-1)


def over_tokens(total: Any) -> Any:
    """Sums over this device's tokens as sums over those of the whole sequence."""
    axis = _current.value.sequence
    return total if axis is None else jax.lax.psum(total, axis)


def counted_before(counts: Int[Array, "rows kinds"]) -> Int[Array, "rows kinds"]:
    """Numbers to add to the cumulative sum of counts over this device's tokens, for that over the whole sequence.

    Args:
        counts: in the order of the tokens; each token may have several rows.
    """
    axis = _current.value.sequence
    if axis is None:
        return jnp.zeros_like(counts)
    chunks = 1 + ORDERS.index(_current.value.order)
    ends = jnp.sum(counts.reshape(chunks, -1, counts.shape[1]), 1)
    every = jax.lax.all_gather(ends, axis, axis=0, tiled=True)
    every = every if chunks == 1 else ops.from_zigzag(every, devices())
    before = own_tokens(jnp.cumsum(every, axis=0) - every)
    here = jnp.cumsum(ends, axis=0) - ends
    return jnp.repeat(before - here, counts.shape[0] // chunks, 0)


def attention(query: Array, key: Array, value: Array, bias: Any = None, mask: Any = None, **options: Any) -> Array:
    """`dot_product_attention`, or of a sequence that is split `context_attention`."""
    split = _current.value
    if split.sequence is None:
        return ops.dot_product_attention(query, key, value, bias, mask, **options)
    return ops.context_attention(
        query, key, value, bias, mask, axis_name=split.sequence, order=split.order, method=split.method, **options
    )


def _starts(seq: int) -> tuple[Any, ...] | None:
    """Positions of the first tokens of this device's chunks, of `seq` tokens together; None of a whole sequence.

    Raises:
        ValueError: the chunks do not divide the tokens.
    """
    split = _current.value
    if split.sequence is None:
        return None
    index, count = jax.lax.axis_index(split.sequence).astype(jnp.int32), devices()
    if split.order == "contiguous":
        return (index * seq,)
    if seq % 2:
        raise ValueError(
            f"order='zigzag' needs an even number of tokens on each device: got {seq}; use order='contiguous'"
        )
    return index * (seq // 2), (2 * count - 1 - index) * (seq // 2)
