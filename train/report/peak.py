"""The most that a device can compute, for the share of it that a run makes use of."""

from typing import Any

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
    """The peak of a kind of device, that of the longest name that it begins with; none where it is not known, as of every CPU."""
    names = [name for name in PEAKS if kind == name or kind.startswith((f"{name} ", f"{name}-"))]
    return PEAKS[max(names, key=len)] if names else None


def flops_of(step: Any, *arguments: Any) -> float | None:
    """Operations of one call of a compiled step on one device, as XLA counts them; a kernel that is not XLA's counts for nothing.

    Args:
        step: made by `eqx.filter_jit`. It is compiled here, and once more when it is called, then from the cache of compiled programs.
    """
    cost = step.lower(*arguments).compile().compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return (cost or {}).get("flops")
