"""Paths of a tree's leaves, and the patterns that name them: what is frozen, kept in float32, decayed, sharded.

A path is the fields and positions that lead to a leaf, joined by dots: `stack.blocks.mlp.up.weight`, `norms.0.scale`.
"""

import difflib
import functools
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

Which = str | Sequence[str] | Callable[[str, Any], bool]
"""Names of leaves: a pattern, several, or a predicate of (path, leaf)."""


def dotted(path: Iterable[Any]) -> str:
    """A key path of `jax.tree_util` as text: `stack.blocks.mlp.up.weight`."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator=".")


def join(*paths: str) -> str:
    """Paths one after another; empty ones count for nothing."""
    return ".".join(filter(None, paths))


def matches(pattern: str, path: str) -> bool:
    """True where a pattern names a leaf or a subtree that contains it.

    `*`, `?` and `[...]` stand for a part of one name, `**` for any number of whole names: `stack` is everything in it,
    `**.bias` every bias, `stack.blocks.*_norm` every field of that ending and everything below it.
    """
    return _leads(tuple(pattern.split(".")), tuple(path.split(".")))


def names(pattern: str, path: str) -> bool:
    """True where a pattern, as `matches` reads it, names exactly this path."""
    return _leads((*pattern.split("."), ""), (*path.split("."), ""))


@functools.cache
def _leads(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_leads(pattern[1:], path[skipped:]) for skipped in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _leads(pattern[1:], path[1:])


def mask(tree: PyTree, which: Which, *, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """The tree with true in place of the leaves that are named, and false elsewhere.

    Raises:
        ValueError: a pattern names no leaf; the message has the paths that are spelled most like it.
    """
    if not callable(which):
        which = any_of(
            (which,) if isinstance(which, str) else tuple(which), [path for path, _ in leaves(tree, is_leaf=is_leaf)]
        )
    return jax.tree_util.tree_map_with_path(lambda path, leaf: bool(which(dotted(path), leaf)), tree, is_leaf=is_leaf)


def any_of(patterns: Sequence[str], paths: Sequence[str]) -> Callable[[str, Any], bool]:
    """The predicate of (path, leaf) that holds where one of the patterns does; each must name one of the paths.

    Raises:
        ValueError: a pattern names none of them.
    """
    for pattern in patterns:
        if not any(matches(pattern, path) for path in paths):
            near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0) or ["none"]
            raise ValueError(
                f"a path pattern must name something: got {pattern!r}, of which there is nothing; nearest: "
                f"{', '.join(near)}"
            )
    return lambda path, leaf: any(matches(pattern, path) for pattern in patterns)


def leaves(tree: PyTree, *, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[str, Any]]:
    """Every leaf with its path, in the order of `jax.tree.leaves`."""
    return [(dotted(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]]


def named_arrays(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree, or their shapes and types, by path."""
    return dict(leaves(eqx.filter(tree, lambda x: eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct))))
