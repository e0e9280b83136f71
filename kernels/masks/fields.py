"""Fields of a mask: their pytree, in which plain integers are static, and their checks."""

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


@typing.dataclass_transform(frozen_default=True, eq_default=False)
def pytree(*, arrays: tuple[str, ...] = (), static: tuple[str, ...] = ()):
    """Make a frozen dataclass a pytree. A field in `arrays` that holds a Python int or None stays part of the traced
    program.
    """

    def wrap(cls):
        cls = dataclasses.dataclass(frozen=True, eq=False)(cls)

        def is_static(value) -> bool:
            return value is None or isinstance(value, int)

        def flatten(mask):
            values = [getattr(mask, name) for name in arrays]
            fixed = tuple(value if is_static(value) else _LEAF for value in values)
            return [value for value in values if not is_static(value)], (
                fixed,
                tuple(getattr(mask, name) for name in static),
            )

        def unflatten(aux, children):
            fixed, rest = aux
            children = iter(children)
            mask = object.__new__(cls)
            for name, value in zip(arrays, fixed):
                object.__setattr__(mask, name, next(children) if value is _LEAF else value)
            for name, value in zip(static, rest):
                object.__setattr__(mask, name, value)
            return mask

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)
        return cls

    return wrap


class _Leaf:
    """Marks a field that is an array in a tree's structure."""

    def __repr__(self) -> str:
        return "array"


_LEAF = _Leaf()


def integers(name: str, value: Any) -> Any:
    """An int, or an array of integers; a `TypeError` for anything else."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    value = value if hasattr(value, "dtype") else np.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"masks: {name} must be integers: got {value.dtype}")
    return value


def _known(value) -> np.ndarray | None:
    """The values, if they are known while tracing."""
    return None if isinstance(value, Tracer) else np.asarray(value)


def check_lengths(name: str, lengths, seq: int, axis: str) -> None:
    """Raise a `ValueError` if lengths known while tracing exceed the axis."""
    known = _known(lengths)
    if known is None or not known.size or not isinstance(seq, int):
        return
    if known.min() < 0 or known.max() > seq:
        raise ValueError(
            f"{name} must be between 0 and the number of {axis} positions: got {known.min()} to {known.max()} for "
            f"{seq} positions"
        )
