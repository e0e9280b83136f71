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
        if _is_kernel(text, program.name):
            rows.append(row(program, chip, _take(calls, program)))
        elif every and f"%{program.name} = " in text:
            rows.append(row(program, chip, pallas=False))
    return rows


def _take(calls: list[Grid], program: Program) -> Grid | None:
    """The first call of this name that no other kernel has taken."""
    name = re.sub(r"(\.\d+)+$", "", program.name)
    index = next((i for i, x in enumerate(calls) if x.name == name), None)
    return None if index is None else calls.pop(index)


def _is_kernel(text: str, name: str) -> bool:
    return any('custom_call_target="tpu_custom_call"' in x for x in re.findall(rf"%{re.escape(name)} = .*", text))
