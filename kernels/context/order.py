"""Zig-zag order of a sequence: of 2n chunks, device i of n holds chunks i and 2n - 1 - i.

Under a causal mask every device then has the same number of pairs, where contiguous parts give the last one the most.
"""

from types import ModuleType
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

ORDERS = ("contiguous", "zigzag")
Sequence = TypeVar("Sequence", Array, np.ndarray)


def chunks_of(order: str) -> int:
    """The number of chunks of a device."""
    if order not in ORDERS:
        raise ValueError(f"context_attention: order must be one of {ORDERS}: got {order!r}")
    return 1 + ORDERS.index(order)


def to_zigzag(x: Sequence, devices: int, *, axis: int = 0) -> Sequence:
    """A sequence in zig-zag order, to be sharded over `devices` devices in equal contiguous parts.

    Args:
        x: an array in natural order; the result of a NumPy array is one of NumPy.
        devices: the size of the mesh axis that the sequence will be sharded over.
        axis: of the sequence; its size is a multiple of `2 * devices`.
    """
    lib, split, axis = _split(x, devices, axis, (2, devices))
    first, second = (lib.squeeze(half, axis) for half in lib.split(split, 2, axis))
    return lib.stack([first, lib.flip(second, axis)], axis + 1).reshape(x.shape)


def from_zigzag(x: Sequence, devices: int, *, axis: int = 0) -> Sequence:
    """The natural order of a sequence in zig-zag order: the inverse of `to_zigzag`."""
    lib, split, axis = _split(x, devices, axis, (devices, 2))
    first, second = (lib.squeeze(half, axis + 1) for half in lib.split(split, 2, axis + 1))
    return lib.concatenate([first, lib.flip(second, axis)], axis).reshape(x.shape)


def _split(x: Any, devices: int, axis: int, sizes: tuple[int, int]) -> tuple[ModuleType, Any, int]:
    """The array's library, the array with its sequence split in chunks by two axes, and the first of them."""
    if isinstance(devices, bool) or not isinstance(devices, (int, np.integer)) or devices < 1:
        raise ValueError(f"zigzag: devices must be a positive int: got {devices!r}")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"zigzag: axis must be one of the array's {x.ndim} axes: got {axis}")
    axis %= x.ndim
    length = x.shape[axis]
    if length % (2 * devices):
        raise ValueError(
            f"zigzag: the sequence must divide into 2 * devices = {2 * devices} equal chunks: got length {length}; pad "
            "it and mask the padding by key_value_seq_lengths"
        )
    lib = np if isinstance(x, np.ndarray) else jnp
    split = lib.reshape(x, (*x.shape[:axis], *sizes, length // (2 * devices), *x.shape[axis + 1 :]))
    return lib, split, axis
