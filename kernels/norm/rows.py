"""What lets a kernel over rows run under `vmap` and under `jit` with sharded arrays, where a kernel by itself is gathered or refused.

A kernel here takes arrays of x's shape, `(*leading, dim)`, and rows of parameters, of shape `(*examples, 1, ..., 1, dim)` of the same rank:
one row for each example, where the examples are the leading axes on which the parameters have x's size. It returns arrays of x's shape, and
float32 sums over each example's rows, of the parameters' shape.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

Arrays = tuple[Array, ...]
Kernel = Callable[[Arrays, Arrays], tuple[Arrays, Arrays]]


def row_op(kernel: Kernel, rows: Arrays, params: Arrays) -> tuple[Arrays, Arrays]:
    """`kernel(rows, params)`, with a rule for vmap and one for the partitioner."""

    @jax.custom_batching.custom_vmap
    def call(rows, params):
        # Inside shard_map the arrays are one device's own, and there is nothing to partition.
        if jax.sharding.get_abstract_mesh().manual_axes:
            return kernel(rows, params)
        return _partitioned(kernel, rows, params)

    @call.def_vmap
    def _(axis_size, batched, rows, params):
        def front(a, is_batched):
            return a if is_batched else jnp.broadcast_to(a[None], (axis_size, *a.shape))

        out = row_op(kernel, *jax.tree.map(front, (rows, params), tuple(batched)))
        return out, jax.tree.map(lambda _: True, out)

    return call(rows, params)


def examples(x_shape: tuple[int, ...], row_shape: tuple[int, ...]) -> tuple[int, int] | None:
    """`(examples, rows of each)` when rows of `row_shape` parameterise an x of `x_shape` as above, otherwise `None`."""
    leading = len(x_shape) - 1
    split = next((i for i in range(leading) if row_shape[i] != x_shape[i]), leading)
    if any(size != 1 for size in row_shape[split:leading]):
        return None
    return math.prod(x_shape[:split]), math.prod(x_shape[split:leading])


def _partitioned(kernel: Kernel, rows: Arrays, params: Arrays) -> tuple[Arrays, Arrays]:
    shape, row_shape = rows[0].shape, params[0].shape
    out = jax.eval_shape(kernel, rows, params)
    shared = tuple(i for i in range(len(shape) - 1) if row_shape[i] != shape[i])
    call = custom_partitioning(lambda *flat: kernel(flat[: len(rows)], flat[len(rows) :]))

    def partition(mesh, args, _):
        spec = tuple(args[0].sharding.spec)[: len(shape) - 1]
        spec += (None,) * (len(shape) - len(spec))
        of_rows = NamedSharding(mesh, PartitionSpec(*spec))
        of_params = NamedSharding(mesh, PartitionSpec(*(None if i in shared else s for i, s in enumerate(spec))))
        axes = [name for i in shared for name in _names(spec[i])]

        def local(*flat):
            arrays, sums = kernel(flat[: len(rows)], flat[len(rows) :])
            return arrays, jax.tree.map(functools.partial(jax.lax.psum, axis_name=tuple(axes)), sums) if axes else sums

        placed = tuple([of_rows] * len(out[0])), tuple([of_params] * len(out[1]))
        return mesh, local, placed, (*[of_rows] * len(rows), *[of_params] * len(params))

    letters = [f"a{i}" for i in range(len(shape) - 1)]
    row, param = " ".join([*letters, "d"]), " ".join([*(f"p{i}" if i in shared else a for i, a in enumerate(letters)), "d"])
    sides = [", ".join([row] * n + [param] * m) for n, m in ((len(rows), len(params)), (len(out[0]), len(out[1])))]
    call.def_partition(partition, sharding_rule=" -> ".join(sides), need_replication_factors=("d",))
    return call(*rows, *params)


def _names(entry) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)
