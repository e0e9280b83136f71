"""One kernel: a warpgroup that loads through a ring of buffers, and two that compute.

The loader copies the tiles of step n into slot `n % stages` as soon as both computing warpgroups have let go of what
was there. What a step loads comes in groups, each with its own barriers, so that the first product starts before the
second one's operand is there.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp

from ..problem import Setting
from .extras import Prepared
from .reader import Reader
from .tiling import CONSUMERS, ROWS, Shape, Tile, rem


@dataclasses.dataclass(frozen=True)
class Load:
    """A tile that is copied to shared memory: of which operand, its shape, and the first place by tile."""

    operand: int
    block: tuple[int, ...]
    place: Callable[[Tile], tuple]


@dataclasses.dataclass(frozen=True)
class Work:
    """What the kernels of a pass share. With `flip` a warpgroup's rows are keys, else queries."""

    shape: Shape
    setting: Setting
    prepared: Prepared
    operands: Sequence[Any]
    flip: bool
    simulated: Any


@dataclasses.dataclass(frozen=True)
class Walk:
    """Where a block of the grid works: its tile, its number of steps, and the tile of a step with whether it needs the
    mask.
    """

    base: Callable[[Any, Any], Tile]
    count: Callable[[Any, Tile], Any]
    step: Callable[[Any, Tile, Any], tuple[Tile, Any]]


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place in the ring of what one turn loads, seen by a computing warpgroup."""

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
    """One turn of the ring: its tile, whether the mask must be evaluated, and where its operands are."""

    tile: Tile
    flag: Any
    slot: Slot


@dataclasses.dataclass(frozen=True)
class Consumer:
    """What a computing warpgroup has at hand."""

    wg: Any
    tile: Tile
    fixed: Sequence[Any]
    scratch: Sequence[Any]
    operands: Sequence[Any]
    outs: Sequence[Any]
    turn: Any
    reader: Reader
    count: Any
    step: Callable[[Any], Step]
    slot: Callable[[Any], Slot]

    def own(self, ref):
        """This warpgroup's rows of a buffer that both share."""
        return ref.at[pl.ds(self.wg * ROWS, ROWS)]

    def loop(self, step: Callable[[Step, Any], Any], carry: Any) -> Any:
        """The carry after all turns."""
        return jax.lax.fori_loop(0, self.count, lambda n, carry: step(self.step(n), carry), carry)

    def switch(self):
        """Let the other warpgroup have the tensor cores, and come back when it gives them up."""
        plgpu.barrier_arrive(self.turn)
        plgpu.barrier_wait(self.turn)


def store(value, buffer, out):
    """Write a result by way of a buffer that this warpgroup alone uses."""
    buffer[...] = value.astype(buffer.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(buffer, out)


def columns(shapes: Sequence[tuple[int, ...]]) -> int:
    """The columns of one line of swizzled memory, for all matrices of a kernel: a product's factors must agree on
    them.
    """
    return 64 if all(size % 64 == 0 for shape in shapes if len(shape) == 2 for size in shape) else 32


def swizzled(shape: tuple[int, ...], dtype, line: int):
    """A buffer whose rows the tensor cores read without conflicts; numbers of 4 bytes are not for them, and lie as they
    are.
    """
    if jnp.dtype(dtype).itemsize != 2:
        return plgpu.SMEM(shape, dtype)
    tiled, turned = plgpu.TilingTransform((8, line)), plgpu.SwizzleTransform(2 * line)  # pyright: ignore[reportAbstractUsage]
    return plgpu.SMEM(shape, dtype, transforms=(tiled, turned))


def launch(
    work: Work,
    name: str,
    consume: Callable[[Consumer], None],
    walk: Walk,
    *,
    tiles: int,
    table: Any,
    fixed: Sequence[Load],
    groups: Sequence[Sequence[Load]],
    stages: int,
    outs: Sequence[tuple[tuple[int, ...], Any]],
    scratch: Sequence[tuple[tuple[int, ...], Any]] = (),
) -> Any:
    """Run `consume` in two warpgroups of each of `tiles` blocks, and the loader beside them."""
    inputs = [table, *work.operands, *work.prepared.operands]
    first_extra = 1 + len(work.operands)

    def load(refs, item: Load, tile: Tile, buffer, barrier):
        plgpu.copy_gmem_to_smem(refs[1 + item.operand].at[item.place(tile)], buffer, barrier)

    def body(*refs):
        ins, results = refs[: len(inputs)], refs[len(inputs) :]
        block = jax.lax.axis_index("tile")
        wg = jax.lax.axis_index("wg")
        base = walk.base(ins[0], block)

        def scoped(fixed_buffers, buffers, kept, ready, full, empty, turn):
            count = walk.count(ins[0], base)

            @pl.when(wg == CONSUMERS)
            def _():
                plgpu.set_max_registers(24, action="decrease")
                for item, buffer in zip(fixed, fixed_buffers):
                    load(ins, item, base, buffer, ready)

                @pl.loop(0, count)
                def _(n):
                    slot = rem(n, stages)
                    tile, _ = walk.step(ins[0], base, n)
                    for group, items in enumerate(groups):

                        @pl.when(n >= stages)
                        def _(group=group):
                            plgpu.barrier_wait(empty[group].at[slot])

                        for item, buffer in zip(items, buffers[group]):
                            load(ins, item, tile, buffer.at[slot], full[group].at[slot])

                @pl.loop(jnp.maximum(count, stages), count + stages)
                def _(n):
                    for group in range(len(groups)):
                        plgpu.barrier_wait(empty[group].at[rem(n, stages)])

            @pl.when(wg < CONSUMERS)
            def _():
                plgpu.set_max_registers(240, action="increase")
                if fixed:
                    plgpu.barrier_wait(ready)

                def slot(n):
                    return Slot(rem(n, stages), buffers, full, empty)

                def step(n):
                    return Step(*walk.step(ins[0], base, n), slot(n))

                reader = Reader(work.prepared, work.setting, work.shape, work.flip, ins[first_extra:])
                consume(
                    Consumer(
                        wg, base, fixed_buffers, kept, ins[1:first_extra], results, turn, reader, count, step, slot
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
        grid=(tiles,),
        grid_names=("tile",),
        num_threads=CONSUMERS + 1,
        thread_name="wg",
        kernel_name=f"eqxgen_attention_{name}",
        compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=work.simulated,
    )(*inputs)
