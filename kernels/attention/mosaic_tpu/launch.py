"""`pallas_call` for one kernel of a pass."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from ..problem import Extras, Setting
from .scores import ScoreOperands, Scores
from .tiling import Layout, Operand, Output, Tile, Tiled


@dataclasses.dataclass(frozen=True)
class Pass:
    """The arguments that the kernels of a pass share; `active` and `full` as from `schedule.bounds_of`."""

    shape: Tiled
    layout: Layout
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
    layout: Layout
    entries: Any
    scores: Scores
    operands: Sequence[Any]
    outs: Sequence[Any]
    scratch: Sequence[Any]

    def load(self, tile: Tile) -> list[Any]:
        """Query, key, value, dout and the statistics of the rows of a tile or piece."""
        shape, (*wide, numbers) = self.scores.shape, self.operands
        dims = shape.dim, shape.dim, shape.v_dim, shape.v_dim
        q, k, v, dout = (self.layout.head(ref, 0, dim) for ref, dim in zip(wide, dims))
        keys, rows = shape.keys(tile.part), slice(None) if tile.rows is None else tile.rows
        return [q[rows], k[keys], v[keys], dout[rows], numbers[0:1, rows], numbers[1:2, rows]]


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
    # Blocks of columns are cut by copies from main memory, which cost no instructions. In vector memory, where XLA
    # keeps small arrays, only a contiguous block costs none.
    main = work.layout.beside and not work.interpret
    like = jax.typeof(work.operands[0].array)

    def placed(x: Operand):
        return pltpu.with_memory_space_constraint(x.array, pltpu.HBM) if main and x.wide else x.array

    def result(x: Output):
        if not (main and x.wide):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=like.manual_axis_type)
        spec = like.sharding.update(spec=PartitionSpec(*(None,) * len(x.shape)))
        return pltpu.HBM.from_type(like.update(shape=x.shape, dtype=x.dtype, sharding=spec, weak_type=False))

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
        kernel(Refs(ids, where(ids, table), work.layout, table, scores, ins, results, kept))

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
        out_shape=[result(x) for x in outs],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",) * (len(grid) - sums) + ("arbitrary",) * sums, vmem_limit_bytes=64 * 2**20
        ),
        interpret=work.interpret,
    )(*scalars, *(placed(x) for x in operands))
