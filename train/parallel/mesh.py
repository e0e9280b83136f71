"""The devices of a run as a grid of named axes, and the placement of a batch."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from .._errors import UsageError

AXES = ("data", "fsdp", "expert", "pipeline", "context", "model")
"""`data`: copies of the model; `fsdp`: examples too, and each parameter in as many parts; `expert`: examples too, and
the experts of each layer in as many parts; `pipeline`: examples too, and the blocks of each stack in as many parts;
`context`: each example's tokens in as many parts; `model`: each layer's width in as many parts.
"""

BATCH = AXES[:4]
"""The axes over which a batch is split."""

EXAMPLES = AXES[:5]
"""The axes over which whole examples are split where nothing is differentiated."""


def parse_mesh(text: str, count: int) -> tuple[int, ...]:
    """The sizes of `AXES` from `data=2,fsdp=2,model=2`.

    An axis that is not named has size 1, but `data`, which takes the devices that the others leave.

    Args:
        text: what `--mesh` says; empty: all devices along `data`.
        count: of devices there are.

    Raises:
        UsageError: an axis is unknown, named twice or not a positive number, or the product is not `count`; or
            `expert`, `pipeline` or `context` is named beside `model`.
    """
    sizes: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (word.strip() for word in part.partition("="))
        if name not in AXES:
            raise UsageError(f"--mesh must name axes among {', '.join(AXES)}: got {name!r}; write --mesh data=2,fsdp=4")
        if name in sizes:
            raise UsageError(f"--mesh must name an axis once: got {name} twice in {text!r}")
        if not (number.isascii() and number.isdigit() and int(number) >= 1):
            raise UsageError(f"--mesh {name} must be a whole number of at least 1: got {number!r} in {text!r}")
        sizes[name] = int(number)
    named = math.prod(sizes.values())
    if "data" not in sizes and count % named == 0:
        sizes["data"] = count // named
    shape = tuple(sizes.get(name, 1) for name in AXES)
    if math.prod(shape) != count:
        raise UsageError(
            f"--mesh must have as many places as there are devices, {count}: got {text}, which has {math.prod(shape)}"
        )
    for name in ("expert", "pipeline", "context"):
        if sizes.get(name, 1) > 1 and sizes.get("model", 1) > 1:
            raise UsageError(f"--mesh {name} goes without model: got {text}; give fsdp in place of model")
    return shape


def make_mesh(text: str = "", devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh that `--mesh` asks for, of all devices or of those given. All its axes are `Auto`.

    Raises:
        UsageError: as `parse_mesh`.
    """
    devices = jax.devices() if devices is None else devices
    shape = parse_mesh(text, len(devices))
    return jax.make_mesh(shape, AXES, devices=devices, axis_types=(AxisType.Auto,) * len(AXES))


def parts(mesh: Mesh | AbstractMesh, axes: tuple[str, ...] = BATCH) -> int:
    """Into how many parts a batch is split."""
    return math.prod(mesh.shape[name] for name in axes)


def manual_axes(mesh: Mesh | AbstractMesh, axes: tuple[str, ...] = BATCH) -> tuple[str, ...]:
    """The axes over which the step itself splits its work and sums: all of the batch's, as kernels need it, where
    `model` has one place.

    Where it has more, the compiler splits each device's work over them; its partitioner then fails on manual axes of
    one place, so they are left out.
    """
    return tuple(name for name in axes if mesh.shape["model"] == 1 or mesh.shape[name] > 1)


def mapped_axes(mesh: Mesh | AbstractMesh) -> set[str]:
    """The axes that are manual in the programs of a step: all, where `model` has one place."""
    return set(AXES) if mesh.shape["model"] == 1 else set(manual_axes(mesh))


def check_batch(batch_size: int, mesh: Mesh | AbstractMesh, accumulate: int = 1) -> None:
    """Raises `UsageError` unless every device gets the same number of examples in each of `accumulate`
    micro-batches.
    """
    unit = parts(mesh) * accumulate
    if batch_size % unit:
        near = max(unit, round(batch_size / unit) * unit)
        divisor = f"the number of devices, {parts(mesh)}" + (
            f", times --accumulate, {accumulate}" if accumulate > 1 else ""
        )
        raise UsageError(f"--batch-size must be a multiple of {divisor}: got {batch_size}; try {near}")


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axes: tuple[str, ...] = BATCH) -> NamedSharding:
    """Along the first axis, the batch's."""
    return NamedSharding(mesh, PartitionSpec(axes))


def split_several(mesh: Mesh) -> NamedSharding:
    """Along the second axis, the batch's, of the batches of several steps."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH))


def local_rows(mesh: Mesh, batch_size: int, axes: tuple[str, ...] = BATCH) -> Int[np.ndarray, " rows"]:
    """Rows of a global batch that this process makes: those of its own devices, in order, each once."""
    places = split(mesh, axes).addressable_devices_indices_map((batch_size,)).values()
    bounds = sorted({place[0].indices(batch_size)[:2] for place in places if place is not None})
    return np.concatenate([np.arange(*bound) for bound in bounds])
