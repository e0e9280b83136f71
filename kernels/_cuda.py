"""The NVIDIA GPU of this process, if there is one."""

from typing import Any

import jax


def device() -> Any:
    """The first NVIDIA GPU of this process, or None."""
    try:
        return jax.devices("cuda")[0]
    except RuntimeError:
        return None


def capability() -> int | None:
    """Ten times its compute capability, such as 90 for sm_90 (Hopper), or None."""
    found = device()
    return None if found is None else round(10 * float(found.compute_capability))
