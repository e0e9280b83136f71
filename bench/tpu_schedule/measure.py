"""Compilation of a function for a TPU, and the schedule of each of its kernels."""

import re
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.tpu.attention import topology as describe

from .chips import CHIPS
from .count import Row, row
from .dump import folder, programs
from .grid import Grid, grids


def measure(function: Callable[..., Any], *arguments: Any, topology: str = "v5e", every: bool = False) -> list[Row]:
    """The schedule of each kernel of `jax.jit(function)` on one device.

    Args:
        arguments: arrays or `jax.ShapeDtypeStruct`.
        topology: a key of `CHIPS`.
        every: take XLA's own operations too, not the Pallas kernels alone.

    Raises:
        DumpError: libtpu was loaded in this process before the first measurement.
    """
    path = folder()
    chip = CHIPS[topology]
    place = NamedSharding(Mesh(np.array(describe(chip.topology).devices[:1]), "x"), PartitionSpec())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        text = jax.jit(function).lower(*shapes).compile().as_text()
        found = programs(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
    calls = grids(function, *arguments)
    rows = []
    for program in found:
        line = _instruction(text, program.name)
        if 'custom_call_target="tpu_custom_call"' in line:
            rows.append(row(program, chip, _take(calls, program.name, line)))
        elif every and line:
            rows.append(row(program, chip, pallas=False))
    return rows


def _instruction(text: str, name: str) -> str:
    """The line of a compiled program that defines this name."""
    found = re.search(rf"%{re.escape(name)} = .*", text)
    return found[0] if found else ""


def _take(calls: list[Grid], name: str, line: str) -> Grid | None:
    """The first call of this name and these results that no other kernel has taken."""
    base = re.sub(r"(\.\d+)+$", "", name)
    written = re.findall(r"\w+\[([\d,]*)\]", line.split(" = ", 1)[1].split(" custom-call(", 1)[0])
    results = tuple(tuple(int(n) for n in x.split(",") if n) for x in written)
    for i, call in enumerate(calls):
        if call.name in (None, base) and call.results == results:
            return calls.pop(i)
    return None
