"""Placement of each array of a run: one rule by parameter path, for weights, their averages and the optimiser's moments
alike.
"""

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from eqxgen.nn import LongSkipStack, MoE, SelfAttention, Stack

from .._errors import UsageError
from ..params.conventions import EXPERTS, WIDTH
from ..params.paths import dotted, matches

Tree = TypeVar("Tree", bound=PyTree)

# Blocks under one scan have a leading axis, the scan's, which `pipeline` alone splits. Blocks in a list have a number
# there.
STACKED = re.compile(r"\bblocks\.(?!\d)")

SMALLEST = 1024
"""Entries below which an array is not worth the exchange of its parts."""


def spec_of(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Partition of an array.

    The axis of the blocks of a stack goes over `pipeline`, that which `EXPERTS` names over `expert`, that of `WIDTH`
    over `model`; the longest of the others that can be shared out evenly, over `fsdp`. What cannot be shared evenly,
    and small arrays, stay whole.

    Args:
        path: as `train.params.paths.named_arrays` gives it, such as `stack.blocks.mlp.up.weight`, with or without a
            prefix.
        shape: of the array.
        mesh: as `train.parallel.make_mesh` makes it.
    """
    axes: list[str | None] = [None] * len(shape)
    plain = path.replace(".projection.", ".")  # the projection within a low-rank update is split as by itself
    for name, table in (("expert", EXPERTS), ("model", WIDTH)):
        width = next((axis for pattern, axis in table if matches(pattern, plain)), None)
        count = mesh.shape[name]
        if width is not None and len(shape) >= -width and count > 1 and shape[width] % count == 0:
            axes[width] = name
    first = 1 if STACKED.search(path) else 0
    if first and mesh.shape["pipeline"] > 1 and shape and shape[0] % mesh.shape["pipeline"] == 0:
        axes[0] = "pipeline"
    free = [axis for axis in range(first, len(shape)) if axes[axis] is None and shape[axis] % mesh.shape["fsdp"] == 0]
    if free and mesh.shape["fsdp"] > 1 and math.prod(shape) >= SMALLEST:
        axes[max(free, key=lambda axis: shape[axis])] = "fsdp"
    return PartitionSpec(*axes)


def check_heads(model: PyTree, mesh: Mesh | AbstractMesh) -> None:
    """Raises `UsageError` unless `model` divides every attention's key heads, of which each device takes whole ones."""
    count = mesh.shape["model"]
    for layer in _nodes(model, SelfAttention):
        if layer.kv_heads % count:
            raise UsageError(
                f"--mesh model must divide the number of heads: got model={count}, and an attention of "
                f"{layer.kv_heads} key heads"
            )


def check_experts(model: PyTree, mesh: Mesh | AbstractMesh) -> None:
    """Raises `UsageError` unless the model has layers of experts, and `expert` divides their number in each."""
    count, layers = mesh.shape["expert"], _nodes(model, MoE)
    for layer in layers:
        if layer.count % count:
            raise UsageError(
                f"--mesh expert must divide the number of experts: got expert={count}, and a layer of {layer.count}"
            )
    if count > 1 and not layers:
        raise UsageError(f"--mesh expert needs a model with experts: got expert={count}, and no layer of them")


def check_stages(model: PyTree, mesh: Mesh | AbstractMesh) -> None:
    """Raises `UsageError` unless the model has stacks of blocks whose results alone it needs, and `pipeline` divides
    their number in each.
    """
    count = mesh.shape["pipeline"]
    if count == 1:
        return
    stacks = _nodes(model, Stack, LongSkipStack)
    if not stacks:
        raise UsageError(f"--mesh pipeline needs a model with a stack of blocks: got pipeline={count}, and none")
    for stack in stacks:
        if isinstance(stack, LongSkipStack) or _nodes(stack, MoE):
            what = "long skips" if isinstance(stack, LongSkipStack) else "experts"
            raise UsageError(f"--mesh pipeline needs blocks that follow one another: got a stack with {what}; use fsdp")
        if stack.depth % count:
            raise UsageError(
                f"--mesh pipeline must divide the number of blocks: got pipeline={count}, and a stack of {stack.depth}"
            )


def _nodes(tree: PyTree, *kinds: type) -> list[Any]:
    """The outermost nodes of some types."""
    found = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kinds))
    return [node for node in found if isinstance(node, kinds)]


def map_named(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """`function(path, array)` over the arrays of a tree, be they arrays or shapes; the rest as it is."""

    def named(path: Any, leaf: Any) -> Any:
        if not (eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)):
            return leaf
        return function(dotted(path), leaf)

    return jax.tree_util.tree_map_with_path(named, tree)


def place(tree: Tree, mesh: Mesh) -> Tree:
    """Every array where the rules put it. Inside a compiled program this is a constraint; a shape is given its
    sharding.
    """

    def put(path: str, leaf: Any) -> Any:
        sharding = NamedSharding(mesh, spec_of(path, leaf.shape, mesh))
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        if isinstance(leaf, Tracer):
            return jax.lax.with_sharding_constraint(leaf, sharding)
        if not sharding.is_fully_addressable and getattr(leaf, "is_fully_addressable", True):
            return _put_by_each(leaf, sharding)
        return jax.device_put(leaf, sharding)

    return map_named(put, tree)


def _put_by_each(leaf: Any, sharding: NamedSharding) -> Any:
    """An array that each process has, over the devices of all. JAX takes numbers, but neither keys nor arrays that were
    put on devices.
    """
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.device_put(np.asarray(leaf), sharding)
    numbers = jax.device_put(np.asarray(jr.key_data(leaf)), sharding)
    return jr.wrap_key_data(numbers, impl=jr.key_impl(leaf))
