"""Recording of the calls of a model's layers during tracing."""

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
    """The calls of one layer.

    Attributes:
        mark: number of the layer in the counts of `eqxgen.overview.flops`.
        out: shapes and dtypes of its last result.
    """

    mark: int
    out: PyTree


calls: contextvars.ContextVar[dict[str, Call]] = contextvars.ContextVar("calls")
"""The calls of the model being traced, by path of the layer, in the order of their first call."""


def noting(model: eqx.Module) -> eqx.Module:
    """The same model with layers that record their calls in `calls` and mark all their operations."""
    return _noting(model, "")


def layers(node: Any, path: str = "", around: str | None = None) -> Iterator[tuple[str, Any, str | None]]:
    """Each module in a module, itself first, in the order of the fields: path, object, path of the enclosing module."""
    yield path, node, around
    for field in dataclasses.fields(node):
        if not field.metadata.get("static", False):
            for place, module in _modules(getattr(node, field.name)):
                yield from layers(module, joined(path, field.name + place), path)


def joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _modules(value: Any) -> Iterator[tuple[str, eqx.Module]]:
    """The modules in a field, with their path in it, such as `.0`."""
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
        except AttributeError:  # a field without a value
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
    """The subclass that records calls; cached, because JAX registers each new class permanently."""

    # A subclass keeps `isinstance`, indexing and methods, which a wrapper would not; and it survives flattening and
    # unflattening, as in scans, which an attribute of the object would not.
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
