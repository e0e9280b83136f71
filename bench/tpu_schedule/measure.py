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
from .dump import Program, folder, programs
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
    program, found = compiled(function, *arguments, topology=topology)
    return rows_of(program.as_text(), found, function, *arguments, topology=topology, every=every)


def compiled(
    function: Callable[..., Any], *arguments: Any, topology: str, donated: tuple[int, ...] = ()
) -> tuple[Any, list[Program]]:
    """The compiled program of a function on one device, and the schedules of its kernels."""
    path, device = folder(), _device(topology)
    place = NamedSharding(Mesh(np.array([device]), "x"), PartitionSpec())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        program = jax.jit(function, donate_argnums=donated).lower(*shapes).compile()
        return program, programs(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def rows_of(
    text: str, found: list[Program], function: Callable[..., Any], *arguments: Any, topology: str, every: bool
) -> list[Row]:
    """The rows of a compiled program's text and schedules."""
    chip, calls = CHIPS[topology], grids(function, *arguments, kind=_device(topology).device_kind)
    rows = []
    for program in found:
        line = _instruction(text, program.name)
        if 'custom_call_target="tpu_custom_call"' in line:
            rows.append(row(program, chip, _take(calls, program.name, line)))
        elif every and line:
            rows.append(row(program, chip, pallas=False))
    return rows


def _device(topology: str) -> Any:
    return describe(CHIPS[topology].topology).devices[0]


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
