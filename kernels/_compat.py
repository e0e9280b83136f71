"""Uses of private JAX APIs."""

import itertools
import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from jax._src import core, dispatch
from jax._src.interpreters import partial_eval


def needs_devices(primitive) -> None:
    """Pass the program's devices to the lowering of a primitive, as `custom_partitioning` inside it needs."""
    dispatch.prim_requires_devices_during_lowering.add(primitive)


def outside_maps() -> AbstractContextManager[Any]:
    """Code inside may divide arrays over every explicit mesh axis. A primitive that `jax.vmap` maps outside a compiled
    program is lowered within the map, which holds the axes that divide the mapped one.
    """
    return core.remove_explicit_mesh_axis_names(core.get_axis_env().explicit_mesh_axis_names)


def mesh_axes(sharding: Any, mesh: Any, ndim: int) -> tuple[tuple[str, ...], ...]:
    """The mesh axes over which XLA divides each axis of an array, none where it divides by a part of a mesh axis, as it
    does with four heads on eight devices.

    Args:
        sharding: as `custom_partitioning` gives it without decoding, which fails for such parts.
    """
    hlo = None if sharding is None else sharding._to_xla_hlo_sharding(ndim)
    if hlo is None or mesh.empty or not hlo.is_tiled():
        return ((),) * ndim
    tiles, sizes = hlo.tile_assignment_dimensions(), mesh.devices.shape
    # The tile of each device, along each axis of the array, in the shape of the mesh.
    order = np.argsort(np.asarray(hlo.tile_assignment_devices()).reshape(-1))
    places = [x.reshape(sizes) for x in np.unravel_index(order, tiles)]
    own = np.indices(sizes)

    def names(count: int, place: np.ndarray) -> tuple[str, ...]:
        varies = [axis for axis in range(len(sizes)) if (place != place.take([0], axis)).any()]
        if math.prod(sizes[axis] for axis in varies) != count:
            return ()
        for some in itertools.permutations(varies):
            if some and (np.ravel_multi_index([own[x] for x in some], [sizes[x] for x in some]) == place).all():
                return tuple(mesh.axis_names[axis] for axis in some)
        return ()

    return tuple(names(count, place) for count, place in zip(tiles[:ndim], places))


def keep_always(primitive: Any) -> None:
    """Exempt a primitive's equations from dead-code elimination.

    jax-triton does the same for its launches, but up to version 0.4.1 by a rule of two arguments, and jax 0.12 passes
    three.
    """
    partial_eval.dce_rules[primitive] = lambda used, *rest: ([True] * len(rest[-1].invars), rest[-1])
