"""What a mask may be given."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def integers(name: str, value: Any) -> Any:
    """An int, or an array of integers; a `TypeError` for anything else."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    value = value if hasattr(value, "dtype") else np.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"masks: {name} must be integers: got {value.dtype}")
    return value


def _known(value) -> np.ndarray | None:
    """The values, where they are known while tracing."""
    return None if isinstance(value, Tracer) else np.asarray(value)


def check_lengths(name: str, lengths, seq: int, axis: str) -> None:
    """A `ValueError` where lengths that are known now reach outside the axis."""
    known = _known(lengths)
    if known is None or not known.size:
        return
    if known.min() < 0 or known.max() > seq:
        raise ValueError(
            f"{name} must lie between 0 and the number of {axis} positions: got {known.min()} to {known.max()} for "
            f"{seq} positions"
        )
