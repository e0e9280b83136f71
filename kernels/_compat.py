"""The few places where jax has no public door."""

from jax._src import dispatch


def needs_devices(primitive) -> None:
    """Have a primitive lowered with the program's devices at hand, which `custom_partitioning` inside its lowering asks for."""
    dispatch.prim_requires_devices_during_lowering.add(primitive)
