"""Calls of layers whose signatures differ."""

import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import PRNGKeyArray


def run(layer: Callable[..., Any], *inputs: Any, key: PRNGKeyArray | None = None, inference: bool | None = None) -> Any:
    """The layer's result. It gets those of `key` and `inference` that its signature names, so that a plain function is
    a layer too.
    """
    options = {"key": key, "inference": inference}
    return layer(*inputs, **{name: options[name] for name in _named(layer) & options.keys()})


def _named(layer: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(layer).parameters)
    except ValueError:  # some C builtins have no signature
        return set()


def given(**options: Any) -> dict[str, Any]:
    """The options that are not `None`, for layers that do not take the others."""
    return {name: value for name, value in options.items() if value is not None}
