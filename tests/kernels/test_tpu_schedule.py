"""Schedules of TPU kernels: libtpu's dump, the grid of a call, and both together where libtpu is installed."""

import importlib.util
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bench.tpu.hlo import exchanges, executions
from bench.tpu_schedule.chips import CHIPS
from bench.tpu_schedule.count import row
from bench.tpu_schedule.dump import DumpError, programs
from bench.tpu_schedule.grid import grids
from bench.tpu_schedule.table import markdown, summary
from kernels import dot_product_attention, layer_norm, masks

# A loop of 6 turns, of which a pipeline of two stages uses 4, around the block of a grid step with two of the kernel's
# own: in bundles 20 to 21 zeros are stored, in bundles 27 to 32 matrices multiplied.
HEAD = """= control target key start
LB: loop body
= control target key end

"""
MARKS = {
    0: "{ %1 = vsyncpa [#a], 0 } /* Start region 1 */",
    2: "{ %s9 = smov 0 } /* End region 1 */",
    4: "{ %301 = sbr.rel (%p2) target = $region32 } /* Start region 30\n second_minor_factor: 1 */",
    15: "{ %s4 = sbr.rel (%p3) target = $region36 }",
    20: "{ %v1 = vst [vmem:[#b]] %v0 } /* Start region 35 */",
    22: "{ %s5 = sld [smem:[#c]] } /* Start/End empty region 36 :: Start region 37 */",
    23: "{ %s6 = sbr.rel (%p4) target = $region40 }",
    34: "{ %s7 = sand.u32 1, %s2 } /* Start/End empty region 40 */",
    36: "{ %s8 = sadd.s32 1, %s1 } /* Start/End empty region 32 */",
    37: "{ %p10 = scmp.ge.s32.totalorder %s8, 6 /* loop exit test */ }",
    38: "{ %26 = sbr.rel (!%p10) target = $region3 }",
}
STEPS, BLOCKS = 4, {"zeros": (20, 22), "products": (28, 34)}


def recorded(folder, *, slots=True, bundles=45):
    """The two files of a kernel, whose bundles 28 and 31 fill the matrix units."""
    places = {3: "LB", **dict.fromkeys((22, 34, 36), "PF")}
    lines = [
        f"{hex(i) if i else '0':>6} {places.get(i, '  ')}: {'> ' if 3 <= i < 43 else ''}{MARKS.get(i, '{}')}"
        for i in range(bundles)
    ]
    (folder / "17-kernel.1-72-final_bundles.txt").write_text(HEAD + "\n".join(lines) + "\n")
    (folder / "17-kernel.1-71-schedule-analysis_final_bundles.txt").write_text("Schedule analysis:\n")
    filled = ["0 0 1 0 0 0 0 1 1 0" if 20 <= i < 22 else "0 0 0 0 0 0 0 0 0 1" for i in range(45)]
    filled[28] = filled[31] = "4 0 2 0 0 3 1 0 0 0"
    text = "== CAPACTIY:\nMXU, XLU\n    4     3     4     2     1     3     3     1     1     2\n== UTILIZATION:\n"
    if slots:
        path = folder / "17-kernel.1-70-final_hlo-static-per-bundle-utilization.txt"
        path.write_text(text + "\n".join(filled) + "\n")


def test_loops_and_conditional_blocks_are_read_from_a_recorded_dump(tmp_path):
    recorded(tmp_path)
    (program,) = programs(tmp_path)
    assert (program.name, len(program.slots), program.capacity[0]) == ("kernel.1", 45, 4)
    assert [(x.start, x.stop, x.trips) for x in program.loops] == [(3, 43, 6)]
    assert [(x.start, x.stop) for x in program.blocks] == [(9, 36), BLOCKS["zeros"], BLOCKS["products"]]


def test_a_column_for_the_loads_of_the_matrix_units_is_no_product(tmp_path):
    recorded(tmp_path)
    (before,) = programs(tmp_path)
    (path,) = tmp_path.glob("*static-per-bundle-utilization.txt")
    wide = lambda x: " ".join([x.split()[0], "3", *x.split()[1:]]) if x.split() and x.split()[0].isdigit() else x
    text = "\n".join(map(wide, path.read_text().splitlines()))
    path.write_text(text.replace("MXU, XLU", "MATMUL, MATPUSH, XLU"))
    assert programs(tmp_path) == [before]


def test_blocks_that_are_read_again_are_counted_once_beside(tmp_path):
    spec = pl.BlockSpec((128, 128), lambda i, j: (j, 0))
    call = pl.pallas_call(
        lambda x, out: out.__setitem__(..., x[...]),
        grid=(3, 2),
        in_specs=[spec],
        out_specs=pl.BlockSpec((128, 128), lambda i, j: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((384, 128), jnp.float32),
    )
    (grid,) = grids(call, jax.ShapeDtypeStruct((256, 128), jnp.float32))
    block = 128 * 128 * 4
    assert (grid.bytes, grid.once_bytes, grid.least_bytes) == ((6 + 3) * block, (2 + 3) * block, (2 + 3) * block)


def test_a_finished_program_is_not_compiled_again(tmp_path, monkeypatch):
    from bench.tpu_schedule import __main__ as command

    recorded(tmp_path)
    rows, asked = [row(programs(tmp_path)[0], CHIPS["v5e"])], []
    monkeypatch.setattr(command.importlib.metadata, "version", lambda name: "1")
    monkeypatch.setattr(command, "measure", lambda *shapes, **how: asked.append(shapes) or rows)
    monkeypatch.setattr(command, "_phases", lambda rows: [("forward", rows, 2), ("backward", rows, 5)])
    flags = f"--for v5e --ops attention --cases full --dims 64 --lengths 1024 --by ours --out {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["command", *flags.split()])
    command.main()
    command.main()
    assert len(asked) == 1
    monkeypatch.setattr(command, "_code", lambda op: "code changed")
    command.main()
    assert len(asked) == 2


def grid_of(last=None):
    """The grid of a kernel with a block in its first step, one where a table says so, and one more if `last`(step)."""

    def body(table, x, out):
        step = pl.program_id(0)

        @pl.when(step == 0)
        def _():
            out[...] = jnp.zeros_like(out)

        def multiply():
            out[...] += jnp.dot(x[...], x[...].T)

        pl.when(table[step] == 1)(multiply)
        if last is not None:
            pl.when(last(step))(multiply)

    spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(STEPS,),
        in_specs=[pl.BlockSpec((128, 128), lambda i, table: (table[i], 0))],
        out_specs=pl.BlockSpec((128, 128), lambda i, table: (0, 0)),
    )
    call = pl.pallas_call(body, grid_spec=spec, out_shape=jax.ShapeDtypeStruct((128, 128), jnp.float32), name="kernel")
    table = np.array([1, 1, 0, 1], np.int32)
    (grid,) = grids(lambda x: call(table, x), jax.ShapeDtypeStruct((256, 128), jnp.float32))
    return grid


def test_bundles_are_counted_by_the_visits_of_each_block(tmp_path):
    recorded(tmp_path)
    grid = grid_of()
    assert (grid.name, grid.steps, grid.visits) == ("kernel", STEPS, (1, 3))
    # The operand's block changes twice, the result is written once.
    assert (grid.bytes, grid.least_bytes) == (4 * 128 * 128 * 4, (2 + 1) * 128 * 128 * 4)

    found = row(programs(tmp_path)[0], CHIPS["v5e"], grid)
    zeros, products, rest = found.bodies
    assert [x.visits for x in found.bodies] == [1, 3, STEPS]
    assert (zeros.bundles, products.bundles, rest.bundles) == (2, 6, 37)
    assert (products.span, products.filled["MXU"], products.spills, products.least) == (4, 0.5, 2, 128 / 4)
    # Five bundles are outside of the loop.
    assert (found.total, found.exact) == (2 * 1 + 6 * 3 + (37 - 5) * STEPS + 5, True)
    # A matrix unit takes one row per clock, however early the bundles issue it.
    assert found.compute == pytest.approx((found.total + 3 * (32 - 6)) / CHIPS["v5e"].clock)


@pytest.mark.parametrize(
    ("last", "visits", "exact"),
    [
        (lambda step: step < STEPS, (1, 3, 4), True),  # its products are outside of conditional blocks
        (lambda step: step == STEPS, (1, 3, 0), True),
        (lambda step: step == 2, (1, 3, 1), False),  # three blocks for two of the program
    ],
)
def test_conditions_that_always_or_never_hold_are_left_out_by_the_compiler(tmp_path, last, visits, exact):
    recorded(tmp_path)
    grid = grid_of(last)
    assert (grid.visits, grid.parents) == (visits, (None, None, None))
    found = row(programs(tmp_path)[0], CHIPS["v5e"], grid)
    assert found.exact == exact
    if exact:
        assert [x.visits for x in found.bodies] == [1, 3, STEPS]
        assert found.bodies[-1].least == (128 / 4 if visits[-1] else 0)


def test_visits_are_those_of_the_mask():
    x = jax.ShapeDtypeStruct((1, 1024, 2, 64), jnp.bfloat16)
    sums = {}
    for name, mask in {"full": None, "causal": masks.Causal()}.items():
        (grid,) = grids(lambda q, k, v, mask=mask: dot_product_attention(q, k, v, mask=mask), x, x, x)
        assert grid.name == "eqxgen_attention_forward"
        assert None not in grid.visits
        sums[name] = sum(n * sum(map(math.prod, products)) for n, products in zip(grid.visits, grid.products))
    assert sums["causal"] < sums["full"]


def test_segments_that_are_given_are_known():
    x, ids = jax.ShapeDtypeStruct((1, 1024, 2, 64), jnp.bfloat16), np.repeat(np.arange(4, dtype=np.int32), 256)[None]
    (grid,) = grids(lambda q, k, v, ids: dot_product_attention(q, k, v, mask=masks.Segments(ids)), x, x, x, ids)
    assert None not in grid.visits


def test_a_norm_copies_each_array_once():
    x, scale = jax.ShapeDtypeStruct((4, 256, 512), jnp.bfloat16), jax.ShapeDtypeStruct((512,), jnp.float32)
    (grid,) = grids(lambda x, scale: layer_norm(x, scale), x, scale)
    assert grid.bytes == grid.least_bytes


def test_a_table_has_the_best_blocks_of_a_rival_alone(tmp_path):
    recorded(tmp_path)
    found = summary([row(programs(tmp_path)[0], CHIPS["v5e"])], [], 1.0)
    key = {"chip": "v5e", "op": "attention", "case": "full", "seq": 1024, "head_dim": 64, "phase": "forward"}
    rows = [key | found | {"by": f"splash {n}", "total": n} for n in (512, 256, 1024)]
    text = markdown(rows)
    assert "splash 256" in text
    assert "splash 512" not in text


def test_the_turns_of_loops_multiply_what_a_program_executes():
    loop = lambda name, body, n: (
        f'  %{name} = (s32[]) while(%x), condition=%till, body=%{body}, known={{"known_trip_count":{{"n":"{n}"}}}}'
    )
    text = "\n".join(
        (
            *("%till (t: s32[]) -> pred[] {", "  ROOT %less = pred[] compare(%t, %t), direction=LT", "}"),
            *("%inner (a: s32[]) -> s32[] {", "  ROOT %deep = s32[] add(%a, %a)", "}"),
            *("%outer (b: s32[]) -> s32[] {", loop("rows", "inner", 3), "  %once = s32[] copy(%b)", "}"),
            *("ENTRY %main (c: s32[]) -> s32[] {", loop("blocks", "outer", 4), "  %last = s32[] copy(%c)", "}"),
        )
    )
    text = text.replace("known=", "backend_config=")
    assert executions(text) == {"blocks": 1, "last": 1, "rows": 4, "once": 4, "deep": 12}


@pytest.mark.parametrize(
    ("exchange", "sent"),
    [
        ("f32[8]{0} all-reduce(%x), replica_groups={{0,1,2,3}}", 2 * 3 / 4 * 32),
        ("bf16[8]{0} all-gather(%x), replica_groups=[2,4]<=[8]", 3 / 4 * 16),
        ("bf16[8]{0} all-gather(%x), replica_groups=mesh['data'=2,'fsdp'=4,'model'=1] {'fsdp'}", 3 / 4 * 16),
        ("(f32[8]{0}, f32[2]{0}) all-to-all(%x, %y), replica_groups=mesh['data'=2,'fsdp'=4] {'data','fsdp'}", 35),
        ("f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}", 32),
        ("(f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}", 32),
    ],
)
def test_the_bytes_that_a_device_sends_are_read_from_the_program(exchange, sent):
    (found,) = exchanges(f"ENTRY %main (c: s32[]) -> s32[] {{\n  %one = {exchange}, channel_id=1\n}}")
    assert found.sent == sent


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"slots": False}, "the dump folder must have files"),
        ({"bundles": 44}, "must have as many bundles, got 45 and 44"),
    ],
)
def test_a_dump_without_its_parts_is_refused_in_one_line(tmp_path, files, message):
    recorded(tmp_path, **files)
    with pytest.raises(DumpError, match=message) as caught:
        programs(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu (extra `tpu`) is not installed")
def test_the_command_compiles_a_kernel_and_counts_it_exactly():
    flags = "--for v5e --ops attention --cases causal --dims 128 --lengths 4096 --by ours"
    command = [sys.executable, "-m", "bench.tpu_schedule", *flags.split()]
    # A process of its own: libtpu reads where to write only when it is loaded.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    lines = [x for x in done.stdout.splitlines() if x.startswith("| causal")]
    assert [x.split(" | ")[3] for x in lines] == ["forward", "backward"]
    assert "~" not in done.stdout
