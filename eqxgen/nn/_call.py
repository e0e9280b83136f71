"""How a layer that holds others calls them, whatever each of them takes."""

import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import PRNGKeyArray


def run(layer: Callable[..., Any], *inputs: Any, key: PRNGKeyArray | None = None, inference: bool | None = None) -> Any:
    """The layer's result. Of `key` and `inference` it is handed what its signature names, so that a plain function is a
    layer too.
    """
    options = {"key": key, "inference": inference}
    return layer(*inputs, **{name: options[name] for name in _named(layer) & options.keys()})


def _named(layer: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(layer).parameters)
    except ValueError:  # some of C's functions tell nobody what they take
        return set()


def given(**options: Any) -> dict[str, Any]:
    """Those options that are not `None`, for layers that need not know the others."""
    return {name: value for name, value in options.items() if value is not None}
