"""Layouts of published arrays and ours: named transforms, each with its inverse, to the bit.

`read` takes the published arrays of a row to the parameter, or to a view of its entries with more axes, which are
merged as they are copied; `write` takes it back. Both use nothing but views, joins and splits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from einops import rearrange

Arrays = tuple[Any, ...]


class Transform(NamedTuple):
    """A layout and its inverse.

    Attributes:
        read: from the published arrays to the parameter.
        write: back.
        crop: leading rows beyond the parameter's are left out, as those that pad a vocabulary.
        share: number and count of the equal parts along the first axis of a published array, which several parameters
            share.
        dtype: of the published arrays, where it is another than the parameter's.
    """

    read: Callable[[Arrays], Any]
    write: Callable[[Any], Arrays]
    crop: bool = False
    share: tuple[int, int] = (0, 1)
    dtype: str | None = None


SAME = Transform(lambda arrays: arrays[0], lambda array: (array,))
"""The same layout."""

CROPPED = SAME._replace(crop=True)
"""The same layout, of which the file may have more rows than the model: a vocabulary that is padded."""

COUNT = SAME._replace(dtype="int64")
"""A number of batches, which torch keeps in 64 bits."""


def layout(pattern: str, **sizes: int) -> Transform:
    """`einops.rearrange` from the published layout to ours, such as "inputs outputs -> outputs inputs"."""
    left, right = pattern.split("->")
    return Transform(
        lambda arrays: rearrange(arrays[0], pattern, **sizes),
        lambda array: (rearrange(array, f"{right}->{left}", **sizes),),
    )


TRANSPOSED = layout("inputs outputs -> outputs inputs")
"""A linear map stored as (inputs, outputs)."""

CONV = layout("outputs inputs height width -> height width inputs outputs")
"""The kernel of a convolution in torch's layout."""

CONV_1D = layout("outputs inputs width -> width inputs outputs")
"""The kernel of a convolution over one axis in torch's layout."""

POINTWISE = layout("outputs inputs 1 1 -> outputs inputs")
"""A linear map stored as a convolution with a kernel of one point."""


def qkv(heads: int, kv_heads: int | None = None, *, parts: int = 3) -> Transform:
    """Projections to queries, keys and values, as `SelfAttention.qkv` keeps them: each key head next to the queries
    that share it.

    Args:
        heads: of the queries.
        kv_heads: of the keys and values; by default `heads`.
        parts: 3 for three published arrays, 1 for one with all queries first, then all keys, then all values.
    """
    groups = kv_heads or heads
    shared = heads // groups

    def read(arrays: Arrays) -> Any:
        if parts == 1 and shared == 1:
            return rearrange(arrays[0], "(parts heads d) ... -> heads parts d ...", parts=3, heads=heads)
        if parts == 1:
            width = arrays[0].shape[0] // (heads + 2 * groups)
            arrays = tuple(np.split(arrays[0], [heads * width, (heads + groups) * width]))
        split = [rearrange(a, "(groups n) ... -> groups n ...", groups=groups) for a in arrays]
        return rearrange(np.concatenate(split, axis=1), "groups n ... -> (groups n) ...")

    def write(array: Any) -> Arrays:
        array = rearrange(array, "(groups n d) ... -> groups n d ...", groups=groups, n=shared + 2)
        pieces = array[:, :shared], array[:, shared], array[:, shared + 1]
        q, k, v = (piece.reshape(-1, *array.shape[3:]) for piece in pieces)
        return (q, k, v) if parts == 3 else (_joined(q, k, v),)

    return Transform(read, write)


def interleaved(groups: int | None = None, parts: int = 2) -> Transform:
    """Several maps as one, whose outputs are groups of each in turn: keys and values as `CrossAttention.kv` keeps them.

    Args:
        groups: of each map's outputs, such as heads; by default each output is one.
        parts: number of maps.
    """

    def read(arrays: Arrays) -> Any:
        split = [rearrange(a, "(groups n) ... -> groups n ...", groups=groups or a.shape[0]) for a in arrays]
        return rearrange(np.concatenate(split, axis=1), "groups n ... -> (groups n) ...")

    def write(array: Any) -> Arrays:
        array = rearrange(array, "(groups parts d) ... -> groups parts d ...", parts=parts, **_sizes(array))
        return tuple(array[:, part].reshape(-1, *array.shape[3:]) for part in range(parts))

    def _sizes(array: Any) -> dict[str, int]:
        return {"d": 1} if groups is None else {"groups": groups}

    return Transform(read, write)


GATED = interleaved()
"""The two maps of a gated MLP, value and gate, as `GLU.up` keeps them."""


def last_to(place: int) -> Transform:
    """The last row of a published array before row `place`."""

    def read(arrays: Arrays) -> Any:
        return np.concatenate([arrays[0][:place], arrays[0][-1:], arrays[0][place:-1]])

    def write(array: Any) -> Arrays:
        return (_joined(array[:place], array[place + 1 :], array[place : place + 1]),)

    return Transform(read, write)


def then(first: Transform, second: Transform) -> Transform:
    """One transform after another: `then(TRANSPOSED, qkv(heads, parts=1))` for GPT-2's projections."""
    return Transform(
        lambda arrays: second.read(tuple(first.read((array,)) for array in arrays)),
        lambda array: tuple(first.write(array)[0] for array in second.write(array)),
    )


def constant(value: float) -> Transform:
    """A parameter that no file has, equal to `value` in every published model."""

    def write(array: Any) -> Arrays:
        if not isinstance(array, np.ndarray) or np.all(array == value):
            return ()
        raise ValueError(f"must be {value} everywhere, for which the published model has no parameter")

    return Transform(lambda arrays: np.float32(value), write)


def _joined(*arrays: Any) -> Any:
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    import jax.numpy as jnp

    return jnp.concatenate(arrays)
