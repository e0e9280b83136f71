"""Implementation of attention and of a norm on several devices, for each kind of mesh axes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eqxgen import ops

from .._errors import UsageError
from ..parallel.mesh import AXES, BATCH, manual_axes, parts
from .operations import Shapes, chosen

HEADS = PartitionSpec(BATCH, None, "model")
ROWS = PartitionSpec(BATCH)


def mesh_choices(shapes: Shapes, mesh: Mesh) -> list[str]:
    """A line for each operation and kind of axes: the chosen implementation, and the reasons against better ones.

    The batch is sharded over `data` and `fsdp`, heads over `model`. Manual axes are those of `jax.shard_map`; where
    `model` has more than one place, the training step leaves it automatic.

    Args:
        mesh: of several devices.

    Raises:
        UsageError: the number of heads is not a multiple of `model`.
    """
    count = mesh.shape["model"]
    if shapes.heads % count:
        raise UsageError(f"--heads must be a multiple of --mesh model: got {shapes.heads} heads and model={count}")
    batch, dtype = shapes.batch * parts(mesh), jnp.dtype(shapes.dtype)
    heads = (batch, shapes.seq, shapes.heads, shapes.head_dim)
    rows = (batch, shapes.seq, shapes.heads * shapes.head_dim)
    attend = lambda q: ops.dot_product_attention(q, q, q, is_causal=shapes.causal)
    named = ", ".join(f"{name}={size}" for name, size in mesh.shape.items() if size > 1)
    lines = []
    for name, op, shape, spec in (
        ("dot_product_attention", attend, heads, HEADS),
        ("layer_norm", ops.layer_norm, rows, ROWS),
    ):
        lines.append(f"{name} of {dtype}{list(shape)} on {named}")
        for kind, (function, types) in _kinds(op, mesh, spec).items():
            placed = jax.make_mesh(tuple(mesh.shape.values()), AXES, types, devices=list(mesh.devices.flat))
            x = jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(placed, spec))
            lines.append(f"  {kind} axes: {chosen(functools.partial(function, placed), x)}")
    return lines


def _kinds(op: Callable[..., Any], mesh: Mesh, spec: PartitionSpec) -> dict[str, tuple[Callable[..., Any], Any]]:
    """For each kind of axes, the operation as a function of mesh and operand, and the types of the axes."""
    explicit, auto = (AxisType.Explicit,) * len(AXES), (AxisType.Auto,) * len(AXES)
    plain = lambda _, x: op(x)

    def mapped(axes: tuple[str, ...], mesh: Mesh, x: Any) -> Any:
        own = PartitionSpec(*(part if set(axes) >= set(part or ()) else None for part in map(_names, spec)))
        return jax.shard_map(op, mesh=mesh, in_specs=own, out_specs=own, axis_names=set(axes))(x)

    kinds = {
        "explicit": (plain, explicit),
        "auto": (plain, auto),
        "manual": (functools.partial(mapped, AXES), auto),
    }
    if mesh.shape["model"] > 1 and (step := manual_axes(mesh)):
        kinds[f"manual {', '.join(step)} and auto model"] = (functools.partial(mapped, step), auto)
    return kinds


def _names(part: Any) -> tuple[str, ...] | None:
    return (part,) if isinstance(part, str) else part
