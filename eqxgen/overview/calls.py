"""A model that notes how its layers are called, while it is traced."""

import contextvars
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree


@dataclasses.dataclass
class Call:
    """What is known of the calls of one layer.

    Attributes:
        mark: its number, under which `eqxgen.overview.flops` counts it.
        out: shapes and dtypes of what it gave at last.
    """

    mark: int
    out: PyTree


calls: contextvars.ContextVar[dict[str, Call]] = contextvars.ContextVar("calls")
"""The calls of the model being traced, by the layer's path, in the order in which they began."""


def noting(model: eqx.Module) -> eqx.Module:
    """The same model, whose layers add themselves to `calls`, and all of whose operations lie under marks."""
    return _noting(model, "")


def layers(node: Any, path: str = "", around: str | None = None) -> Iterator[tuple[str, Any, str | None]]:
    """Each module in a module, itself first, in the order of their fields: path, object, and path of the module around
    it.
    """
    yield path, node, around
    for field in dataclasses.fields(node):
        if not field.metadata.get("static", False):
            for place, module in _modules(getattr(node, field.name)):
                yield from layers(module, joined(path, field.name + place), path)


def joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _modules(value: Any) -> Iterator[tuple[str, eqx.Module]]:
    """The modules in a field, and where in it, such as `.0`."""
    for keys, node in jax.tree_util.tree_leaves_with_path(value, is_leaf=lambda node: isinstance(node, eqx.Module)):
        if isinstance(node, eqx.Module):
            yield _text(keys), node


def _text(keys: tuple) -> str:
    return "".join("." + jax.tree_util.keystr((key,), simple=True) for key in keys)


def _noting(node: Any, path: str) -> Any:
    called = callable(node)
    copy = object.__new__(_kind(type(node)) if called else type(node))
    for field in dataclasses.fields(node):
        try:
            value = getattr(node, field.name)
        except AttributeError:  # a field that this layer leaves unset
            continue
        if not field.metadata.get("static", False):
            put = lambda keys, leaf, name=field.name: (
                _noting(leaf, joined(path, name + _text(keys))) if isinstance(leaf, eqx.Module) else leaf
            )
            value = jax.tree_util.tree_map_with_path(put, value, is_leaf=lambda leaf: isinstance(leaf, eqx.Module))
        object.__setattr__(copy, field.name, value)
    if called:
        object.__setattr__(copy, "noted_path", path)
    return copy


@functools.cache
def _kind(kind: Any) -> type:
    """The class with calls noted; one for each, as JAX forgets no class that it was told of."""

    # A subclass and no wrapper, so that `isinstance`, indexing and methods of its own work on, and a class and no
    # object's attribute, so that taking a module apart and putting it together, as scans do, keeps it.
    @functools.wraps(kind.__call__)
    def call(self, *args, **kwargs):
        known = calls.get()
        note = known.setdefault(self.noted_path, Call(len(known) + 1, None))
        with jax.named_scope(f"~{note.mark}~"):
            out = kind.__call__(self, *args, **kwargs)
        shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if eqx.is_array(x) else x
        note.out = jax.tree.map(shape, out)
        return out

    namespace = {
        "__annotations__": {"noted_path": str},
        "noted_path": eqx.field(static=True, default=""),
        "__call__": call,
    }
    return type(kind)(kind.__name__, (kind,), namespace | {"__module__": kind.__module__, "__doc__": kind.__doc__})
