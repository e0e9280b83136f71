"""Peak operations per second of devices, for model FLOPs utilisation."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from eqxgen.overview.flops import flops

PEAKS: dict[str, float] = {
    # Google's pages of each TPU, per chip; of v2 and v3 a device is half a chip.
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    # NVIDIA's data sheets, tensor cores without sparsity.
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}
"""Dense bfloat16 operations per second by the beginning of a device's kind."""


def peak_of(kind: str) -> float | None:
    """The peak of a kind of device, that of the longest name that it begins with; none where it is not known, as of
    every CPU.
    """
    names = [name for name in PEAKS if kind == name or kind.startswith((f"{name} ", f"{name}-"))]
    return PEAKS[max(names, key=len)] if names else None


def flops_of(update: Callable, *arguments: Any) -> int:
    """The model's operations in one call of an update, over all devices, whatever kernels it is compiled to; see
    `eqxgen.overview.flops`.

    XLA's own count does not serve: it counts the body of a loop once, as of a stack of blocks, and a custom kernel as
    0.

    Args:
        update: it is only traced.
        arguments: arrays, or their shapes.
    """
    return flops(eqx.filter_make_jaxpr(update)(*arguments)[0].jaxpr)
