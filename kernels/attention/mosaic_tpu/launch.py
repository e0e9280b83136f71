"""`pallas_call` for one kernel of a pass."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..problem import Extras, Setting
from .scores import ScoreOperands, Scores
from .tiling import Operand, Output, Tile, Tiled


@dataclasses.dataclass(frozen=True)
class Pass:
    """The arguments that the kernels of a pass share; `active` and `full` as from `schedule.bounds_of`."""

    shape: Tiled
    setting: Setting
    extras: Extras
    prepared: ScoreOperands
    operands: Sequence[Operand]
    active: Any
    full: Any
    flip: bool
    interpret: Any


@dataclasses.dataclass(frozen=True)
class Refs:
    """The references of a kernel at one point of its grid."""

    ids: Sequence[Any]
    tile: Tile
    entries: Any
    scores: Scores
    operands: Sequence[Any]
    outs: Sequence[Any]
    scratch: Sequence[Any]

    def load(self, part) -> list[Any]:
        """Query, key and value of one part of the tile, and the other operands."""
        q, k, v, *rest = self.operands
        keys = self.scores.shape.keys(part)
        return [q[0, 0], k[0, 0, keys], v[0, 0, keys], *(ref[0, 0] for ref in rest)]


def launch(
    work: Pass,
    name: str,
    kernel: Callable[[Refs], None],
    where: Callable[[Sequence[Any], Any], Tile],
    *,
    grid: tuple[int, ...],
    entries: Any,
    outs: Sequence[Output],
    scratch: Sequence[Any],
    sums: int = 1,
) -> Any:
    """Run `kernel(refs)` over the grid, whose last `sums` axes are those it sums along.

    `where(ids, entries)` is the tile of a grid point; `entries`, flat integers, is stored in scalar memory.
    """
    scalars = [entries.reshape(-1), *work.prepared.scalars]
    operands = [*work.operands, *work.prepared.operands]
    varying = jax.typeof(work.operands[0].array).manual_axis_type

    def spec(block, place, **how):
        if block is None:
            return pl.BlockSpec(**how)
        return pl.BlockSpec(block, lambda *ids: tuple(place(where(ids[: len(grid)], ids[len(grid)]))), **how)

    def body(*refs):
        cuts = [1, len(work.prepared.scalars), len(work.operands), len(work.prepared.operands), len(outs), len(scratch)]
        refs = iter(refs)
        (table,), numbers, ins, extras, results, kept = ([next(refs) for _ in range(cut)] for cut in cuts)
        ids = [pl.program_id(axis) for axis in range(len(grid))]
        scores = Scores(work.prepared, work.setting, work.shape, work.flip, numbers, extras)
        kernel(Refs(ids, where(ids, table), table, scores, ins, results, kept))

    return pl.pallas_call(
        body,
        name=f"eqxgen_attention_{name}",
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=grid,
            in_specs=[spec(x.block, x.place, memory_space=x.memory) for x in operands],
            out_specs=[spec(x.block, x.place, **({"pipeline_mode": pl.Buffered(1)} if x.once else {})) for x in outs],
            scratch_shapes=list(scratch),
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=varying) for x in outs],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",) * (len(grid) - sums) + ("arbitrary",) * sums, vmem_limit_bytes=64 * 2**20
        ),
        interpret=work.interpret,
    )(*scalars, *(x.array for x in operands))
