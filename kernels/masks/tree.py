"""Masks as pytrees whose plain integers are part of the program."""

import dataclasses
import typing

import jax


@typing.dataclass_transform(frozen_default=True, eq_default=False)
def pytree(*, arrays: tuple[str, ...] = (), static: tuple[str, ...] = ()):
    """Make a frozen dataclass a pytree. A field in `arrays` that holds a Python int or None stays part of the
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
    """Stands in a tree's structure where a field is an array."""

    def __repr__(self) -> str:
        return "array"


_LEAF = _Leaf()
