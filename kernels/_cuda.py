"""The NVIDIA GPU that a program is for, where there is one to ask."""

from typing import Any

import jax


def device() -> Any:
    """The first NVIDIA GPU of this process, or None."""
    try:
        return jax.devices("cuda")[0]
    except RuntimeError:
        return None


def capability() -> int | None:
    """Ten times its compute capability, or None: 90 is Hopper's, sm_90."""
    found = device()
    return None if found is None else round(10 * float(found.compute_capability))
