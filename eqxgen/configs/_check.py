"""Checks that the configs share. Each error names the field, the constraint and the value."""

import math
from typing import Any


def require(holds: bool, message: str) -> None:
    """Raises `ValueError` with the message unless the condition holds."""
    if not holds:
        raise ValueError(message)


def at_least_one(config: Any, *names: str, prefix: str = "model.") -> None:
    """Each field is an integer of at least 1, or None where that is its default."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= 1, f"{prefix}{name} must be at least 1: got {value}")


def not_negative(config: Any, *names: str, prefix: str = "model.") -> None:
    """Each field is finite and at least 0."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value < math.inf, f"{prefix}{name} must be at least 0 and finite: got {value}")


def positive(config: Any, *names: str, prefix: str = "model.") -> None:
    """Each field is finite and above 0."""
    for name in names:
        value = getattr(config, name)
        require(math.isfinite(value) and value > 0, f"{prefix}{name} must be positive: got {value}")


def dropout(config: Any, name: str = "dropout") -> None:
    """The dropout rate of that name is in [0, 1), or None."""
    rate = getattr(config, name)
    require(rate is None or 0 <= rate < 1, f"model.{name} must be in [0, 1): got {rate}")


def heads_divide_dim(config: Any) -> None:
    """The heads share the width evenly."""
    require(
        config.dim % config.heads == 0,
        f"model.heads must divide model.dim: got model.dim={config.dim}, model.heads={config.heads}",
    )


def one_of(config: Any, name: str, known: tuple[str, ...], prefix: str = "model.") -> None:
    """The field is one of the known names."""
    value = getattr(config, name)
    require(value in known, f"{prefix}{name} must be one of {', '.join(known)}: got {value!r}")
