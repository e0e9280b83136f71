"""One warp-specialised kernel: a warpgroup that loads through a ring of buffers, and two that compute.

The loader copies the tiles of step n into stage `n % stages` after both computing warpgroups have released it. The
operands of a step come in groups, each with its own barriers, so that the first product starts before the second one's
operand arrives.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp

from ..._blocks import rem
from ..problem import Setting, Shape
from .schedule import Scheduler
from .scores import ScoreOperands, Scores
from .tiling import CONSUMERS, ROWS, Tile


@dataclasses.dataclass(frozen=True)
class Load:
    """A block that is copied to shared memory: the operand, the block's shape, and its start by tile."""

    operand: int
    block: tuple[int, ...]
    place: Callable[[Tile], tuple]


@dataclasses.dataclass(frozen=True)
class Pass:
    """The arguments that the kernels of a pass share. With `flip` a warpgroup's rows are keys, else queries."""

    shape: Shape
    setting: Setting
    prepared: ScoreOperands
    operands: Sequence[Any]
    flip: bool
    simulated: Any


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the ring, for a computing warpgroup."""

    number: Any
    buffers: Any
    full: Any
    empty: Any

    def wait(self, group: int) -> list[Any]:
        plgpu.barrier_wait(self.full[group].at[self.number])
        return [buffer.at[self.number] for buffer in self.buffers[group]]

    def release(self, group: int) -> None:
        plgpu.barrier_arrive(self.empty[group].at[self.number])


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the schedule: its tile, 1 if the tile needs the mask, and the stage of its operands."""

    tile: Tile
    flag: Any
    stage: Stage


@dataclasses.dataclass(frozen=True)
class Consumer:
    """The references and functions of a computing warpgroup; `wg` is its number."""

    wg: Any
    tile: Tile
    fixed: Sequence[Any]
    scratch: Sequence[Any]
    operands: Sequence[Any]
    outs: Sequence[Any]
    turn: Any
    scores: Scores
    count: Any
    step: Callable[[Any], Step]
    stage: Callable[[Any], Stage]

    def own(self, ref):
        """This warpgroup's rows of a buffer that both share."""
        return ref.at[pl.ds(self.wg * ROWS, ROWS)]

    def loop(self, step: Callable[[Step, Any], Any], carry: Any) -> Any:
        """The carry after all steps."""
        return jax.lax.fori_loop(0, self.count, lambda n, carry: step(self.step(n), carry), carry)

    def switch(self):
        """Give the tensor cores to the other warpgroup, and wait until it gives them back."""
        plgpu.barrier_arrive(self.turn)
        plgpu.barrier_wait(self.turn)


def store(value, buffer, out):
    """Write a result through a buffer of this warpgroup."""
    buffer[...] = value.astype(buffer.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(buffer, out)


def columns(shapes: Sequence[tuple[int, ...]]) -> int:
    """The columns of one line of swizzled memory, the same for all matrices of a kernel, as products require."""
    return 64 if all(size % 64 == 0 for shape in shapes if len(shape) == 2 for size in shape) else 32


def swizzled(shape: tuple[int, ...], dtype, line: int):
    """A buffer whose rows the tensor cores read without bank conflicts; 4-byte numbers are stored unswizzled."""
    if jnp.dtype(dtype).itemsize != 2:
        return plgpu.SMEM(shape, dtype)
    tiled, turned = plgpu.TilingTransform((8, line)), plgpu.SwizzleTransform(2 * line)  # pyright: ignore[reportAbstractUsage]
    return plgpu.SMEM(shape, dtype, transforms=(tiled, turned))


def launch(
    work: Pass,
    name: str,
    consume: Callable[[Consumer], None],
    scheduler: Scheduler,
    *,
    fixed: Sequence[Load],
    groups: Sequence[Sequence[Load]],
    stages: int,
    outs: Sequence[tuple[tuple[int, ...], Any]],
    scratch: Sequence[tuple[tuple[int, ...], Any]] = (),
) -> Any:
    """Run `consume` in two warpgroups of each thread block, and the loader in a third.

    `fixed` is loaded once, `groups` in each step.
    """
    inputs = [scheduler.table, *work.operands, *work.prepared.operands]
    first_extra = 1 + len(work.operands)

    def load(refs, item: Load, tile: Tile, buffer, barrier):
        plgpu.copy_gmem_to_smem(refs[1 + item.operand].at[item.place(tile)], buffer, barrier)

    def body(*refs):
        ins, results = refs[: len(inputs)], refs[len(inputs) :]
        block = jax.lax.axis_index("tile")
        wg = jax.lax.axis_index("wg")
        base = scheduler.base(block)

        def scoped(fixed_buffers, buffers, kept, ready, full, empty, turn):
            count = scheduler.count(ins[0], base)

            @pl.when(wg == CONSUMERS)
            def _():
                plgpu.set_max_registers(24, action="decrease")
                for item, buffer in zip(fixed, fixed_buffers):
                    load(ins, item, base, buffer, ready)

                @pl.loop(0, count)
                def _(n):
                    at = rem(n, stages)
                    tile, _ = scheduler.step(ins[0], base, n)
                    for group, items in enumerate(groups):

                        @pl.when(n >= stages)
                        def _(group=group):
                            plgpu.barrier_wait(empty[group].at[at])

                        for item, buffer in zip(items, buffers[group]):
                            load(ins, item, tile, buffer.at[at], full[group].at[at])

                @pl.loop(jnp.maximum(count, stages), count + stages)
                def _(n):
                    for group in range(len(groups)):
                        plgpu.barrier_wait(empty[group].at[rem(n, stages)])

            @pl.when(wg < CONSUMERS)
            def _():
                plgpu.set_max_registers(240, action="increase")
                if fixed:
                    plgpu.barrier_wait(ready)

                def stage(n):
                    return Stage(rem(n, stages), buffers, full, empty)

                def step(n):
                    return Step(*scheduler.step(ins[0], base, n), stage(n))

                scores = Scores(work.prepared, work.setting, work.shape, work.flip, ins[first_extra:])
                consume(
                    Consumer(
                        wg, base, fixed_buffers, kept, ins[1:first_extra], results, turn, scores, count, step, stage
                    )
                )
                plgpu.wait_smem_to_gmem(0)

        loads = [*fixed, *(item for items in groups for item in items)]
        line = columns([item.block for item in loads if work.operands[item.operand].dtype.itemsize == 2])
        buffer = lambda item, *lead: swizzled((*lead, *item.block), work.operands[item.operand].dtype, line)
        pl.run_scoped(
            scoped,
            [buffer(item) for item in fixed],
            [[buffer(item, stages) for item in items] for items in groups],
            [swizzled(shape, dtype, line) for shape, dtype in scratch],
            plgpu.Barrier(num_arrivals=max(1, len(fixed))),
            [plgpu.Barrier(num_arrivals=len(items), num_barriers=stages) for items in groups],
            [plgpu.Barrier(num_arrivals=CONSUMERS, num_barriers=stages) for _ in groups],
            plgpu.Barrier(num_arrivals=CONSUMERS),
            collective_axes="wg",
        )

    varying = jax.typeof(work.operands[0]).manual_axis_type
    return plgpu.kernel(
        body,
        out_type=[jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=varying) for shape, dtype in outs],
        grid=(scheduler.tiles,),
        grid_names=("tile",),
        num_threads=CONSUMERS + 1,
        thread_name="wg",
        kernel_name=f"eqxgen_attention_{name}",
        compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=work.simulated,
    )(*inputs)
