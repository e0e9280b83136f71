"""The chunks of a sharded sequence: their positions, and their parts of the arrays of a call."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .. import _dropout
from ..attention.problem import ALiBi, Extras
from .placed import placed


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A call on sequences that are sharded over a mesh axis.

    Attributes:
        axis_name: of the mesh, or several as a tuple.
        devices: its size.
        chunks: of a device: 1, or 2 in zig-zag order.
    """

    axis_name: Any
    devices: int
    chunks: int

    def index(self):
        """The number of this device on the axis, int32."""
        return jax.lax.axis_index(self.axis_name).astype(jnp.int32)

    def start(self, device, chunk, length: int):
        """The position of the first token of a device's chunk, whose chunks have `length` tokens."""
        if self.chunks == 1:
            return device * length
        return jnp.where(chunk == 0, device, 2 * self.devices - 1 - device) * length

    def part(self, x, chunk, axis: int) -> Any:
        """A chunk of an array of a device's tokens."""
        if self.chunks == 1:
            return x
        length = x.shape[axis] // self.chunks
        return jax.lax.dynamic_slice_in_dim(x, chunk * length, length, axis)

    def add(self, x, part, chunk, axis: int) -> Any:
        """`x` with a part added to a chunk."""
        return self.put(x, self.part(x, chunk, axis) + part, chunk, axis)

    def put(self, x, part, chunk, axis: int) -> Any:
        """`x` with a part in place of a chunk."""
        if self.chunks == 1:
            return part
        return jax.lax.dynamic_update_slice_in_dim(x, part, chunk * part.shape[axis], axis)

    def cut(self, axes: str, x, source, q_chunk, kv_chunk) -> Any:
        """A chunk's part of an array with these axes: rows of this device's queries, and keys of device `source`.

        Where the array has queries and keys, it has the keys of all devices. An axis of size 1 stays.
        """
        if "q" in axes and x.shape[axes.index("q")] > 1:
            x = self.part(x, q_chunk, axes.index("q"))
        if "k" not in axes or x.shape[axes.index("k")] == 1:
            return x
        axis = axes.index("k")
        if "q" in axes:
            length = x.shape[axis] // self.devices
            x = jax.lax.dynamic_slice_in_dim(x, source * length, length, axis)
        return self.part(x, kv_chunk, axis)

    def extras(self, extras: Extras, sizes: tuple[int, int], source, q_chunk, kv_chunk) -> Extras:
        """The extras of a chunk of this device's queries and one of the keys of device `source`.

        Args:
            sizes: the numbers of queries and keys of a chunk.
        """
        cut = lambda axes, x: self.cut(axes, x, source, q_chunk, kv_chunk)
        i, j = self.start(self.index(), q_chunk, sizes[0]), self.start(source, kv_chunk, sizes[1])
        bias, mask, seeds = extras.bias, extras.mask, extras.seeds
        if isinstance(bias, ALiBi):
            bias = ALiBi(bias.slopes, bias.offset + (i - j))
        elif bias is not None:
            bias = cut("bhqk", bias)
        if mask is not None:
            mask = placed(mask, i, j, sizes, cut)
        if seeds is not None:
            count = self.devices * self.chunks
            seeds = _dropout.of_block(seeds, i // sizes[0] * count + j // sizes[1])
        return Extras(bias, mask, seeds)
