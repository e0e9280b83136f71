"""Models as trees: faults that training would not show, a function on every module, the mode of a model.

What JAX and Equinox have is theirs: `jax.tree.map` on the arrays, `eqx.nn.inference_mode` for a model in another mode,
`eqx.tree_at` for parts that are replaced, `eqx.nn.Shared` for weights that are tied.
"""

import dataclasses
import functools
import itertools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

Tree = TypeVar("Tree")


def check_tree(tree: PyTree) -> None:
    """Raises where a tree would be trained as another one than it looks.

    - An array or a module with arrays at two paths: a tree has no references, each path becomes a copy of its own with
      the first update. `eqx.nn.Shared` ties them.
    - An array in a static field, in a function's closure or in the attributes of an object that is no pytree: it is no
      leaf, thus a constant of the compiled program, neither trained nor saved.

    Nothing is computed, and arrays that are traced are seen too. The call belongs where the tree is made, since the
    results of a compiled function are all arrays of their own.

    Raises:
        ValueError: names the paths, a line for each fault.
    """
    if faults := tree_faults(tree):
        raise ValueError("\n".join(faults))


def tree_faults(tree: PyTree) -> list[str]:
    """The faults of `check_tree`, a line each."""
    faults: list[str] = []
    first: dict[int, tuple[str, Any]] = {}
    _walk(tree, "", first, faults)
    return faults


def apply(tree: Tree, function: Callable[[Any], Any]) -> Tree:
    """The tree with each module replaced by `function(module)`: modules inside another before that one, itself last.

    A block of a `Stack` is one module, with the arrays of all its layers. Static fields are not entered.

    >>> quiet = apply(model, lambda m: dataclasses.replace(m, rate=0.0) if isinstance(m, eqxgen.nn.Dropout) else m)

    Raises:
        TypeError: the function gives something else than a module.
    """

    def each(node: Any, path: str) -> Any:
        children, structure = _children(node)
        if not children:
            return node if not isinstance(node, eqx.Module) else changed(node, path)
        node = jax.tree.unflatten(structure, [each(child, _joined(path, name)) for name, child in children])
        return changed(node, path) if isinstance(node, eqx.Module) else node

    def changed(module: eqx.Module, path: str) -> Any:
        new = function(module)
        if not isinstance(new, eqx.Module):
            raise TypeError(f"apply: the function must give a module: got {new!r} for {path or 'the tree itself'}")
        return new

    return each(tree, "")


def training(tree: PyTree) -> bool:
    """True for a model in training mode, false after `eqx.nn.inference_mode(model)`.

    Raises:
        ValueError: some modules are in one mode and some in the other, or no module has a mode.
    """
    modes = dict(_modes(tree, ""))
    if not modes:
        raise ValueError("training: a module with the field `inference` must be in the tree: got none")
    found = {flag: path for path, flag in reversed(modes.items())}
    if len(found) > 1:
        raise ValueError(
            f"training: all modules must be in one mode: got {found[False] or 'the tree itself'} in training and "
            f"{found[True] or 'the tree itself'} in inference; eqx.nn.inference_mode(tree, value) sets them all"
        )
    return not next(iter(found))


def _modes(node: Any, path: str) -> Iterator[tuple[str, bool]]:
    if isinstance(node, eqx.Module) and isinstance(flag := getattr(node, "inference", None), bool):
        yield path, flag
    for name, child in _children(node)[0]:
        yield from _modes(child, _joined(path, name))


def _walk(node: Any, path: str, first: dict[int, tuple[str, Any]], faults: list[str]) -> None:
    """Notes the first path of each node with arrays, and the faults below it. The nodes are kept with their paths, so
    that no other gets the identity of one that a tree makes when it is flattened.
    """
    children, _ = _children(node)
    holds = _is_array(node) or (bool(children) and any(map(_is_array, jax.tree.leaves(node))))
    if holds and (before := first.setdefault(id(node), (path, node))[0]) != path:
        what = "an array" if _is_array(node) else f"a {type(node).__name__}"
        faults.append(
            f"{before or 'the tree itself'} and {path} are one object, {what}: each becomes a copy of its own; tie "
            "them by eqx.nn.Shared, or make two"
        )
        return
    if isinstance(node, eqx.Module):
        for field in dataclasses.fields(node):
            if field.metadata.get("static", False):
                name = _joined(path, field.name)
                _hidden(getattr(node, field.name, None), name, f"the static field {name}", True, set(), faults)
    if children:
        for name, child in children:
            _walk(child, _joined(path, name), first, faults)
    elif not _is_array(node):
        _hidden(node, path, f"the leaf {path or 'the tree itself'}", False, set(), faults)


def _hidden(value: Any, path: str, where: str, numpy: bool, seen: set[int], faults: list[str]) -> None:
    """Adds a fault for each array that a static value or a leaf that is no array holds.

    NumPy's arrays in closures are constants on purpose; in a static field they cannot be hashed.
    """
    if value is None or isinstance(value, str | bytes | int | float | complex | type | types.ModuleType):
        return
    if isinstance(value, jax.Array) or (numpy and _is_array(value)):
        faults.append(
            f"{path} is an array in {where}: neither trained nor saved; make it a field of its own that is not static"
        )
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    for name, part in _parts(value):
        _hidden(part, _joined(path, name), where, numpy and not callable(value), seen, faults)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a static value or an object holds, with names."""
    if isinstance(value, Mapping):
        yield from ((str(name), part) for name, part in value.items())
    elif isinstance(value, tuple | list | set | frozenset):
        yield from ((str(number), part) for number, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from _parts((value.func, *value.args))
        yield from _parts(value.keywords)
    elif isinstance(value, types.MethodType):
        yield "__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or ()):
            try:
                yield name, cell.cell_contents
            except ValueError:  # not yet filled
                continue
        for number, default in enumerate(value.__defaults__ or ()):
            yield f"default{number}", default
        yield from (value.__kwdefaults__ or {}).items()
    elif dataclasses.is_dataclass(value) or type(value).__module__.partition(".")[0] not in ("jax", "jaxlib", "numpy"):
        yield from vars(value).items() if hasattr(value, "__dict__") else ()
        slots = itertools.chain(*(getattr(kind, "__slots__", ()) for kind in type(value).__mro__))
        yield from ((name, getattr(value, name)) for name in slots if hasattr(value, name))
    elif callable(inner := getattr(value, "__wrapped__", None)):  # a compiled function
        yield "__wrapped__", inner


def _children(node: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The parts of a node one level down, with their names; none of a leaf."""
    if node is None:
        return [], None
    found, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda inner: inner is not node)
    if len(found) == 1 and found[0][1] is node:
        return [], structure
    return [(jax.tree_util.keystr(keys, simple=True, separator="."), child) for keys, child in found], structure


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array) or (isinstance(x, np.ndarray) and x.dtype != object)


def _joined(path: str, name: str) -> str:
    return ".".join(filter(None, (path, name)))
