"""Checks that the configs share. Each error names the field, the constraint and the value."""

import functools
import math
import typing
from numbers import Integral, Real
from types import NoneType
from typing import Any


def require(holds: bool, message: str) -> None:
    """Raises `ValueError` with the message unless the condition holds."""
    if not holds:
        raise ValueError(message)


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


@functools.cache
def _types(kind: type) -> dict[str, tuple[type, bool]]:
    """Fields of a config that are single numbers or strings: their type, and whether they may be None."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        choices = typing.get_args(hint) or (hint,)
        own = [choice for choice in choices if choice is not NoneType]
        if len(own) == 1 and own[0] in _WORDS:
            found[name] = own[0], NoneType in choices
    return found


def typed(config: Any, prefix: str = "model.") -> None:
    """Each field that is one number or string is of its type; an integer goes for a number, a bool for none."""
    for name, (kind, optional) in _types(type(config)).items():
        value = getattr(config, name)
        if kind in (int, float):
            fits = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        else:
            fits = isinstance(value, kind)
        require(fits or (optional and value is None), f"{prefix}{name} must be {_WORDS[kind]}: got {value!r}")


def at_least_one(config: Any, *names: str, prefix: str = "model.") -> None:
    """Each field is an integer of at least 1, or None where that is its default."""
    typed(config, prefix)
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= 1, f"{prefix}{name} must be at least 1: got {value}")


def not_negative(config: Any, *names: str, prefix: str = "model.") -> None:
    """Each field is finite and at least 0."""
    typed(config, prefix)
    for name in names:
        value = getattr(config, name)
        require(0 <= value < math.inf, f"{prefix}{name} must be at least 0 and finite: got {value}")


def positive(config: Any, *names: str, prefix: str = "model.") -> None:
    """Each field is finite and above 0."""
    typed(config, prefix)
    for name in names:
        value = getattr(config, name)
        require(math.isfinite(value) and value > 0, f"{prefix}{name} must be positive: got {value}")


def dropout(config: Any, name: str = "dropout") -> None:
    """The dropout rate of that name is in [0, 1), or None."""
    typed(config)
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
