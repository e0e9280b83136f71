"""Grouped products as a fused op: `vmap` folds the examples into one product over the rows of all of them.

`jax.lax.ragged_dot` has no `vmap` over rows that share their matrices; with a copy of the matrices for each example it
would have as many gradients of them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import RaggedDotDimensionNumbers
from jax.sharding import PartitionSpec

from .._fused import Axes, Op, Places, Primitives

PRIMITIVES = Primitives("eqxgen_grouped_matmul", partitioned=True)

_NUMBERS = RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((1,), (2,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[0]
)


@dataclasses.dataclass(frozen=True)
class Grouped(Op):
    """`(x, weight, groups) -> y` of shapes (batch, rows, in), (batch or 1, groups, out, in), (batch, rows)."""

    places: Places | None = None

    @property
    def movable(self) -> int:
        return 2

    def shapes(self, x: Any, weight: Any, *_: Any):
        kept = x.sharding.update(spec=PartitionSpec(*x.sharding.spec[:2], None))
        return [x.update(shape=(*x.shape[:2], weight.shape[2]), sharding=kept, weak_type=False)]

    def forward(self, target: Any, *operands: Array):
        return self.plain(*operands)

    def backward(self, target: Any, primals, saved, cotangents, count):
        return jax.vjp(lambda *moving: self.plain(*moving, *primals[count:])[0], *primals[:count])[1](*cotangents)

    def pullback(self, primals, saved, cotangents, count):
        # `jax.lax.ragged_dot` lacks the derivative of the gradient by the matrices, which is written out here.
        x, weight, groups = primals
        (dy,) = cotangents
        dx = self.plain(dy, jnp.swapaxes(weight, 2, 3), groups)
        if count == 1:
            return dx
        hit = jax.nn.one_hot(groups, weight.shape[1], dtype=x.dtype)
        each = jnp.einsum("bng,bno,bni->bgoi", hit, dy, x).astype(weight.dtype)
        return [*dx, each.sum(0, keepdims=True) if weight.shape[0] == 1 else each]

    def plain(self, x: Array, weight: Array, groups: Array):
        batch, rows, _ = x.shape
        copies, count = weight.shape[:2]
        if copies == count == 1:
            return [jax.lax.dot_general(x, weight[0, 0].astype(x.dtype), (((2,), (1,)), ((), ())))]
        if copies > 1:  # the matrices of each example are groups of their own
            groups = groups + count * jnp.arange(batch, dtype=groups.dtype)[:, None]
        flat = groups.reshape(batch * rows)
        order = jnp.argsort(flat)
        sizes = jnp.zeros(copies * count, jnp.int32).at[flat].add(1)
        matrices = weight.reshape(copies * count, *weight.shape[2:]).astype(x.dtype)
        y = jax.lax.ragged_dot_general(x.reshape(batch * rows, -1)[order], matrices, sizes, _NUMBERS)
        return [jnp.zeros_like(y).at[order].set(y, unique_indices=True).reshape(batch, rows, -1)]

    def exported(self, x: Array, weight: Array, groups: Array):
        # The products with all groups, of which one is kept: other runtimes lack `jax.lax.ragged_dot`.
        products = jnp.einsum(
            "bni,bgoi->bngo", x, jnp.broadcast_to(weight.astype(x.dtype), (len(x), *weight.shape[1:]))
        )
        own = jax.nn.one_hot(groups, weight.shape[1], dtype=products.dtype)
        return [jnp.einsum("bngo,bng->bno", products, own)]

    def linearise(self, operands, outputs, tangents):
        return operands, (), tangents[:2]

    def axes(self, *_: Any) -> Axes:
        return Axes(("b--", "b---", "b-"), ("b--",), {"b": "b"})
