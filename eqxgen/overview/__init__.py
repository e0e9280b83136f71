"""Summary of a model without running it: a table of its layers, and a picture."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from eqxgen.nn import Stack
from eqxgen.overview.calls import Call, calls, joined, layers, noting
from eqxgen.overview.flops import by_mark
from eqxgen.overview.picture import Box, draw


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        path: the fields that lead to it, "" for the model itself.
        name: its class; for the block of a stack also its number: "24 × TransformerBlock".
        out: shapes and dtypes of its result; "-" if it was not called.
        parameters: entries of its floating-point arrays; a shared array counts at its first path.
        flops: its operations, see `eqxgen.overview.flops.by_mark`; `None` if it was not called.
        order: its number in the order of calls, from 1; `None` if it was not called.
        around: path of the enclosing layer; `None` for the model itself.
    """

    path: str
    name: str
    out: str
    parameters: int
    flops: int | None
    order: int | None
    around: str | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a model, itself first. `str(summary)` is a table, `svg()` a picture; `save(path)` writes either.

    Attributes:
        rows: the layers in the order of their fields.
        parameters: of the whole model; shared ones count once.
        flops: of one call.
        bytes: of all arrays.
    """

    rows: tuple[Row, ...]
    parameters: int
    flops: int
    bytes: int

    def __str__(self) -> str:
        head = ("layer", "class", "output", "parameters", "FLOPs")
        number = lambda x: "-" if x is None else f"{x:,}"
        body = [
            (row.path or "(model)", row.name, row.out, number(row.parameters), number(row.flops)) for row in self.rows
        ]
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(5)]
        line = lambda cells: "  ".join(
            f"{x:{'<' if i < 3 else '>'}{width}}" for i, (x, width) in enumerate(zip(cells, widths))
        ).rstrip()
        rule = "-" * (sum(widths) + 8)
        total = (
            f"{self.parameters:,} parameters, {_size(self.bytes)}; "
            f"{self.flops:,} FLOPs of products and convolutions in one call"
        )
        return "\n".join([line(head), rule, *map(line, body), rule, total])

    def svg(self) -> str:
        """A standalone drawing: a box for each layer, around the boxes of the layers that it calls, from top to bottom
        in the order of the calls.
        """
        whole = self.rows[0]
        return draw(self._box(whole), f"{self.parameters:,} parameters, {_count(self.flops)}FLOPs in one call")

    def _inside(self, row: Row) -> list[Row]:
        """The direct sublayers that were called or contain called layers, in the order of the calls."""
        return sorted(
            (other for other in self.rows if other.around == row.path and other.flops is not None), key=self._began
        )

    def _began(self, row: Row) -> int:
        return row.order or min(map(self._began, self._inside(row)))

    def _box(self, row: Row) -> Box:
        name = row.path if row.around is None else row.path.removeprefix(joined(row.around, ""))
        sizes = ", ".join(
            f"{_count(x)}{what}" for x, what in ((row.parameters, "parameters"), (row.flops, "FLOPs")) if x
        )
        notes = (row.out, sizes) if sizes else (row.out,)
        return Box(f"{name}: {row.name}" if name else row.name, notes, tuple(map(self._box, self._inside(row))))

    def save(self, path: str | Path) -> None:
        """Write the picture to a name in `.svg`, or the table to one in `.txt`."""
        path = Path(path)
        if path.suffix not in (".svg", ".txt"):
            raise ValueError(f"path must end in .svg for the picture or .txt for the table: got {path.name!r}")
        path.write_text(self.svg() if path.suffix == ".svg" else f"{self}\n", encoding="utf-8")


def summary(model: Callable[..., Any], *inputs: PyTree, **kwargs: PyTree) -> Summary:
    """The layers of `model(*inputs, **kwargs)`, with shapes, parameters and FLOPs. The call is
    traced, not computed.

    Args:
        model: an `eqx.Module`; its arrays may be shapes, as of `eqx.filter_eval_shape`.
        inputs, kwargs: arguments of the call, such as a key or `inference=True`; arrays, or shapes
            (`jax.ShapeDtypeStruct`).

    Raises:
        ValueError: the model is not a callable module.
    """
    if not isinstance(model, eqx.Module) or not callable(model):
        raise ValueError(f"model must be an eqx.Module with a __call__: got {type(model).__name__}")
    noted: dict[str, Call] = {}
    token = calls.set(noted)
    try:
        flops = _traced(noting(model), inputs, kwargs)
    finally:
        calls.reset(token)
    weights = _weights(model)
    depths = {joined(path, "blocks"): layer.depth for path, layer, _ in layers(model) if isinstance(layer, Stack)}
    rows = []
    for path, layer, around in layers(model):
        note, below = noted.get(path), joined(path, "")
        marks = [call.mark for other, call in noted.items() if other == path or other.startswith(below)]
        rows.append(
            Row(
                path=path,
                name=(f"{depths[path]} × " if path in depths else "") + type(layer).__name__,
                out=_shapes(note.out) if note else "-",
                parameters=sum(size for leaf, size in weights if leaf.startswith(below)),
                flops=sum(flops[mark] for mark in marks) if marks else None,
                order=note.mark if note else None,
                around=around,
            )
        )
    arrays = {id(leaf): leaf for leaf in jax.tree.leaves(model) if _is_array(leaf)}.values()
    return Summary(
        tuple(rows), rows[0].parameters, flops.total(), sum(leaf.size * leaf.dtype.itemsize for leaf in arrays)
    )


def _traced(model: Any, inputs: tuple, kwargs: dict):
    arrays, rest = eqx.partition((model, inputs, kwargs), _is_array)

    def call(arrays):
        model, inputs, kwargs = eqx.combine(arrays, rest)
        return eqx.filter(model(*inputs, **kwargs), eqx.is_array)

    return by_mark(jax.make_jaxpr(call)(arrays).jaxpr)


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, (np.ndarray, jax.ShapeDtypeStruct))


def _weights(model: eqx.Module) -> list[tuple[str, int]]:
    """Path and size of each floating-point array; a shared array has its first path only."""
    found: dict[int, tuple[str, int]] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(model):
        if _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact):
            found.setdefault(id(leaf), (jax.tree_util.keystr(keys, simple=True, separator="."), leaf.size))
    return list(found.values())


def _shapes(out: PyTree) -> str:
    found = [leaf for leaf in jax.tree.leaves(out) if _is_array(leaf)]
    return ", ".join(f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]" for leaf in found) or "-"


def _count(number: int) -> str:
    """A number such as "12.3 k", with a space after it."""
    for unit, size in ("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3):
        if number >= size:
            return f"{number / size:.1f} {unit} "
    return f"{number} "


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
