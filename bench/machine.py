"""The machine at hand: its accelerator, its folder of results, its set of shapes. Importing it imports no jax."""

import datetime
import os
import pathlib
import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "jax-triton", "triton", "torch", "tokamax", "transformers", "nvidia-cudnn-cu13")


def folder(device: str) -> pathlib.Path:
    """bench/results/h200 for an NVIDIA H200, bench/results/tpu-v5e for a TPU v5e."""
    return RESULTS / re.sub(r"[^a-z0-9]+", "-", device.lower().replace("nvidia", "")).strip("-")


def device() -> str:
    """The kind of jax's first device, "cpu" without an accelerator."""
    import jax

    return jax.devices()[0].device_kind


def chosen(cpu: Sequence[Any], accelerator: Sequence[Any], few: int) -> Sequence[Any]:
    """The shapes for jax's first device: the first few, all of them with EQXGEN_FULL."""
    import jax

    shapes = cpu if jax.default_backend() == "cpu" else accelerator
    return shapes if full() else shapes[:few]


def full() -> bool:
    return bool(os.environ.get("EQXGEN_FULL"))


def versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The versions of these packages, as far as they are installed."""
    return {name: found for name in names if (found := _version(name))}


def about() -> dict[str, Any]:
    """Conditions of a measurement."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": versions(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
