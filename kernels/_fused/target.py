"""The program that an op is lowered for, and the reasons why a kernel cannot be part of it."""

import dataclasses
import os
from typing import Any

import jax

PLATFORMS = ("cpu", "tpu", "cuda", "rocm")
DEVICES = {"tpu": "TPUs", "cuda": "NVIDIA GPUs"}


@dataclasses.dataclass(frozen=True)
class Target:
    """A program that is being lowered.

    The platform is the program's and not the process's, so that a program compiled ahead of time for a TPU on a host
    without one has the TPU's kernel.

    Attributes:
        platform: cpu, tpu, cuda, rocm or "" for any other.
        split: XLA partitions the program over several devices.
        partly: it does so inside a `jax.shard_map` that makes only some axes manual, where `custom_partitioning` has no
            effect.
        kind: the device's own name, such as "TPU v5 lite", or "" if the program does not know it.
    """

    platform: str
    split: bool = False
    partly: bool = False
    kind: str = ""

    @property
    def divisible(self) -> bool:
        """True if an op can state its own partitioning; libtpu does not call back into Python for that."""
        return self.split and not self.partly and self.platform != "tpu"

    def inside(self, manual: tuple[str, ...]) -> "Target":
        """This target in a `jax.shard_map` of the mesh of the context over further axes."""
        mesh = jax.sharding.get_abstract_mesh()
        left = any(size > 1 for name, size in mesh.shape.items() if name not in {*mesh.manual_axes, *manual})
        return dataclasses.replace(self, split=left, partly=left)


def of(platform: str, context: Any) -> Target:
    """The target of a lowering rule's `context`."""
    # The axis context holds the mesh and its manual axes inside `shard_map`, the number of devices elsewhere.
    axes = context.module_context.axis_context
    mesh, manual = getattr(axes, "mesh", None), getattr(axes, "manual_axes", frozenset())
    if mesh is None:
        devices = getattr(axes, "device_assignment", None) or ()
        kind = next((device.device_kind for device in devices), "")
        return Target(platform, split=getattr(axes, "num_devices", 1) > 1, kind=kind)
    split = any(size > 1 for name, size in mesh.shape.items() if name not in manual)
    device = getattr(getattr(mesh, "abstract_mesh", mesh), "abstract_device", None)
    return Target(platform, split=split, partly=split and bool(manual), kind=getattr(device, "device_kind", ""))


def refusal(target: Target | None, platform: str, *, divisible: bool = False) -> str | None:
    """The reason why a kernel for `platform` cannot be part of a program, or None.

    Args:
        target: None while tracing, when the program's platform and devices are not known yet.
        divisible: the op states how XLA partitions this kernel (`Op.axes`).
    """
    if target is None:
        return None
    if target.platform != platform and not (platform == "tpu" and interpreted()):
        compiled_for = target.platform or "another platform"
        return f"it runs on {DEVICES[platform]} only, and this program is compiled for {compiled_for}"
    if target.partly:
        return "XLA cannot split a kernel over the axes that jax.shard_map leaves to it: make all of them manual"
    if target.split and not divisible:
        return (
            "XLA cannot split this kernel over devices: call it inside jax.shard_map, or shard only its independent "
            "axes and over explicit mesh axes"
        )
    return None


def interpreted() -> bool:
    """True if EQXGEN_INTERPRET is set: kernels for TPU then run on any platform, in Pallas' interpreter."""
    return bool(os.environ.get("EQXGEN_INTERPRET"))
