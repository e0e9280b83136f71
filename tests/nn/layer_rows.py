"""Rows of the table of layers, and the call of a layer."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.arrays import drawn, integers


class Row(NamedTuple):
    """One layer of the table.

    make: builds it from a key.
    out: shape of its result for one example; of the first array, where it gives several.
    shapes: of its inputs, for one example.
    ids: where the inputs are integers, the bound that they stay below.
    draws: whether a call in training draws. Then it must ask for a key, and `inference=True` must not need one.
    stateful: whether it is called as `layer(x, state)` and gives `(y, state)`; the first state is `layer.init_state()`.
    atol: how far a bfloat16 result may be from the float32 one.
    """

    make: Callable[[Any], Any]
    out: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    ids: int = 0
    draws: bool = False
    stateful: bool = False
    atol: float = 0.1

    def inputs(self, seed: int) -> tuple[jax.Array, ...]:
        rng = np.random.default_rng(seed)
        if self.ids:
            return tuple(integers(shape, self.ids, rng) for shape in self.shapes)
        return tuple(drawn(shape, rng) for shape in self.shapes)


class Wrong(NamedTuple):
    """A call that must fail, and the message that it must give as a regular expression."""

    call: Callable[[], Any]
    says: str
    kind: type[Exception] = ValueError


def call(layer: Any, row: Row, inputs: tuple, *, key: Any = None, inference: bool | None = True) -> jax.Array:
    """The layer's first result. `inference` is handed to those that take it."""
    takes = inspect.signature(type(layer).__call__).parameters
    options = {"inference": inference} if "inference" in takes else {}
    found = layer(*inputs, *((layer.init_state(),) if row.stateful else ()), key=key, **options)
    return jax.tree.leaves(found)[0]


def widened(x: jax.Array) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def tables() -> list[Any]:
    """The modules `layers_*` of this folder, each with `LAYERS` and `WRONG`."""
    return [
        importlib.import_module(f"tests.nn.{path.stem}") for path in sorted(Path(__file__).parent.glob("layers_*.py"))
    ]


def table() -> dict[str, Row]:
    """Every layer of the catalogue."""
    return {name: row for module in tables() for name, row in module.LAYERS.items()}


def of_each_class() -> dict[str, Row]:
    """The first row of each class."""
    rows: dict[str, Row] = {}
    for name, row in table().items():
        rows.setdefault(name.split(",")[0].split(" ")[0], row)
    return rows
