"""Parameters in parts, put together where they are used: the blocks of a stack one by one inside its scan, all others
at once.

A gradient of a gathered parameter is summed over the devices and split again by the same exchange run backwards, so
that of the blocks no device ever holds more than one whole (Rajbhandari et al. 2020, arXiv:1910.02054, stage 3).
Parameters travel in the type of the computation, and so do their gradients.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PyTree

from eqxgen.nn import Stack

from .rules import map_named, spec_of

Splits = tuple[tuple[str, int], ...]
"""Mesh axes, each with the axis of an array that it splits."""

FORGOTTEN = ("all_gather", "transpose", "reshape", "squeeze", "broadcast_in_dim", "convert_element_type")
"""Operations whose results the backward pass makes again: a parameter put together, turned, or cast."""


PARTS = ("fsdp", "expert", "pipeline")
"""The axes over which a parameter enters a program in parts."""


def part_specs(tree: PyTree, mesh: Mesh) -> PyTree:
    """The tree with, in place of each array, how it is split over `PARTS` alone: so it enters a program that splits the
    batch by itself.
    """

    def spec(path: str, leaf: Any) -> PartitionSpec:
        names = [name if name in PARTS else None for name in spec_of(path, leaf.shape, mesh)]
        last = max((axis for axis, name in enumerate(names) if name), default=-1)
        return PartitionSpec(*names[: last + 1])

    return map_named(spec, tree)


class Gather(eqx.Module):
    """Puts the arrays of a tree together, of which each device of some mesh axes has a part.

    Args:
        axes: for each array of the tree, in the order of its leaves, the mesh axes with the axis that each splits.
    """

    axes: tuple[Splits, ...] = eqx.field(static=True)

    def __call__(self, tree: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(structure, [_whole(x, splits) for x, splits in zip(leaves, self.axes)])


def gathered(model: PyTree, specs: PyTree, names: tuple[str, ...] = PARTS) -> PyTree:
    """The model with whole parameters, but for its stacks, which gather each block when they come to it. Blocks that
    are split over `pipeline` are put together before.

    Args:
        model: with parameters in parts, inside `jax.shard_map`.
        specs: what `part_specs` says of it.
        names: the mesh axes over which they are put together.
    """

    def put(node: Any, spec: Any) -> Any:
        if isinstance(node, Stack):
            axes = [_splits(leaf, names) for leaf in jax.tree.leaves(spec) if isinstance(leaf, PartitionSpec)]
            blocks, inner = (
                tuple(tuple(split for split in splits if (split[1] > 0) == inside) for splits in axes)
                for inside in (False, True)
            )
            arrays, rest = eqx.partition(node, eqx.is_array)
            node = eqx.combine(Gather(blocks)(arrays), rest)
            if not any(inner):
                return node
            # A block is a slice of the stacked arrays without their first axis.
            return node.fetching(Gather(tuple(tuple((name, axis - 1) for name, axis in splits) for splits in inner)))
        return Gather((_splits(spec, everywhere),))(node) if isinstance(spec, PartitionSpec) else node

    everywhere = (*names, "pipeline")  # blocks outside of a stack are no stages
    if not _split(specs, everywhere):
        return model
    return jax.tree.map(put, model, specs, is_leaf=lambda node: isinstance(node, Stack))


def combined(part: PyTree, rest: PyTree) -> PyTree:
    """`eqx.combine` of two parts of a model that `gathered` was given together: a stack gathers the arrays of both."""

    def put(node: Any, other: Any) -> Any:
        if not isinstance(node, Stack):
            return other if node is None else node
        plain = eqx.combine(node.fetching(None), other.fetching(None))
        if node.fetch is None and other.fetch is None:
            return plain
        axes = [found for pair in zip(_axes(node), _axes(other), strict=True) for found in pair if found is not _NONE]
        return plain.fetching(Gather(tuple(axes)))

    return jax.tree.map(put, part, rest, is_leaf=lambda node: node is None or isinstance(node, Stack))


def forgetting(function: Callable[..., Any], specs: PyTree, names: tuple[str, ...] = PARTS) -> Callable[..., Any]:
    """The function, whose backward pass puts parameters together again rather than keep those of the forward pass.

    The results of all computation are kept, so that nothing else is made twice. JAX would keep those inside of inner
    checkpoints too: where a model has a stack, whose blocks and long losses go by themselves, or makes its layers again
    (`remat`), the function is left as it is. Parameters outside of stacks are then kept whole.

    Args:
        specs: what `part_specs` says of the parameters; where none is put together, the function is left as it is.
        names: as in `gathered`.
    """
    if not _split(specs, names) or any(map(_checkpoints, jax.tree.leaves(specs, is_leaf=_checkpoints))):
        return function
    return jax.checkpoint(function, policy=lambda primitive, *_, **__: primitive.name not in FORGOTTEN)


def _split(specs: PyTree, names: tuple[str, ...]) -> bool:
    return any(_splits(leaf, names) for leaf in jax.tree.leaves(specs) if isinstance(leaf, PartitionSpec))


def _checkpoints(node: Any) -> bool:
    """True for a layer with checkpoints of its own."""
    remat = getattr(node, "remat", False) or getattr(getattr(node, "config", None), "remat", False)
    return isinstance(node, Stack) or remat in (True, "full", "dots")


_NONE = object()


def _axes(stack: Stack) -> list[Any]:
    """What `Gather` knows of each place of a stack, `_NONE` where the array is in another part of the model."""
    known = iter(stack.fetch.axes if isinstance(stack.fetch, Gather) else ())
    places = jax.tree.leaves(stack.fetching(None), is_leaf=lambda leaf: leaf is None)
    return [next(known, ()) if eqx.is_array(leaf) else _NONE for leaf in places]


def _splits(spec: PartitionSpec, names: tuple[str, ...]) -> Splits:
    return tuple((name, axis) for axis, name in enumerate(spec) if name in names)


def _whole(x: Array, splits: Splits) -> Array:
    for name, axis in splits:
        x = jax.lax.all_gather(x, name, axis=axis, tiled=True)
    return x
