"""Reports of a run: the trace's table, the curve, the film, the card, the rates."""

import dataclasses
import gzip
import json
import math
import time
import xml.etree.ElementTree as xml

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxgen.configs import GPTConfig
from train import gpt
from train.engine.dryrun import abstract_update
from train.parallel import make_mesh
from train.report import meter as meters
from train.report.animation import animate
from train.report.card import write_card
from train.report.curve import loss_curve, smoothed, ticks
from train.report.meter import CLOCKED, Meter
from train.report.peak import flops_of, peak_of
from train.report.timeline import Profiler, Row, kinds_of, newest, read_trace, rows_of, table
from train.tasks.facts import TextFacts


def event(name, start, micros, thread=1, **arguments):
    return {
        "ph": "X",
        "pid": 7,
        "tid": thread,
        "name": name,
        "ts": start,
        "dur": micros,
        "args": {"hlo_op": name} | arguments,
    }


def test_time_inside_a_loop_counts_for_what_runs_there_and_threads_add_up(tmp_path):
    events = [
        event("while", 0.0, 100.0),
        event("dot", 10.0, 30.0, source="/home/a/b/model.py:12"),
        event("dot", 50.0, 40.0),
        event("dot", 0.0, 5.0, thread=2),
        {"ph": "X", "pid": 7, "tid": 1, "name": "python", "ts": 0.0, "dur": 500.0},
        {},
    ]
    path = tmp_path / "plugins" / "vm.trace.json.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    rows = rows_of(read_trace(newest(tmp_path)))
    assert [tuple(row) for row in rows] == [("dot", "b/model.py:12", 75.0, 3), ("while", "", 30.0, 1)]
    lines = table(rows, count=1).splitlines()
    assert lines[1].split() == ["71.4%", "0.07", "3", "dot", "b/model.py:12"]
    assert lines[2].split() == ["28.6%", "0.03", "1", "more"]


def test_operations_that_differ_by_a_number_are_of_one_kind():
    rows = [
        Row("fusion.2", "a.py:1", 5.0, 2),
        Row("dot", "", 4.0, 1),
        Row("fusion.11", "", 3.0, 1),
        Row("12", "", 1.0, 1),
    ]
    assert kinds_of(rows) == [
        Row("fusion (all 2)", "", 8.0, 3),
        Row("dot (all 1)", "", 4.0, 1),
        Row("12 (all 1)", "", 1.0, 1),
    ]


def test_a_profile_of_real_steps_names_their_operations(tmp_path):
    step = jax.jit(lambda x: jnp.tanh(x @ x) * 0.1)
    x = jnp.ones((64, 64))
    profiler, found = Profiler((1, 2), tmp_path), []
    for number in range(4):
        profiler.before(number, x)
        x = step(x)
        found.append(profiler.after(number, x))
    assert [text is not None for text in found] == [False, False, True, False]
    assert "share" in found[2]
    assert str(newest(tmp_path).parent) in found[2]
    assert rows_of(read_trace(newest(tmp_path)))


KINDS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L400": None,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v4": 275e12,
    "cpu": None,
}


@pytest.mark.parametrize(("kind", "peak"), KINDS.items())
def test_the_peak_is_of_the_longest_name_that_fits(kind, peak):
    assert peak_of(kind) == peak


STEPS = {
    "one block": ({"depth": 1}, {}),
    "a stack of blocks, each as one": ({"depth": 4}, {}),
    "blocks that are computed again": ({"depth": 4, "remat": True}, {}),
    "micro-batches": ({"depth": 2}, {"accumulate": 3}),
    "a loss in chunks, whose logits are made again": ({"depth": 1, "context": 512}, {}),
}


@pytest.mark.parametrize(("sizes", "settings"), STEPS.values(), ids=STEPS)
def test_operations_of_a_step_are_six_for_each_weight_and_token_and_those_of_attention(sizes, settings):
    """Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1, three times over for the backward
    pass.
    """
    model = GPTConfig(**{"dim": 64, "heads": 4, "context": 32, "mlp": "gelu"} | sizes)
    config = dataclasses.replace(gpt.PRESETS["nano-cpu"], model=model, batch_size=12, **settings)
    vocab, tokens = 65, config.batch_size * model.context
    weights = model.depth * 12 * model.dim**2 + vocab * model.dim
    attention = model.depth * 4 * model.context * model.dim
    found = flops_of(*abstract_update(config, gpt.RECIPE.program(config, TextFacts(vocab, model.context)), make_mesh()))
    assert found == pytest.approx(tokens * 3 * (2 * weights + attention), rel=1e-6)


def test_the_meter_leaves_out_pauses_and_shares_out_the_waiting(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(meters, "peak_of", lambda kind: 1e12)
    meter = Meter(batch_size=32, step=10, flops=1e11)
    clock[0] += 3.0
    meter.pause(1.0)
    values = meter.read(14, waited=0.5)
    assert values["examples_per_s"] == pytest.approx(64)
    assert values["step_ms"] == pytest.approx(500)
    assert values["input_wait"] == pytest.approx(0.25)
    assert values["mfu"] == pytest.approx(0.2)
    clock[0] += 1.0
    assert meter.read(15, waited=0.5)["input_wait"] == 0
    assert set(values) <= set(CLOCKED)


def test_the_meter_sees_what_is_compiled():
    meter = Meter(batch_size=1, step=0)
    jax.jit(lambda x: x * 3.25 + time.perf_counter())(jnp.ones(3))
    assert meter.read(1, 0.0)["compile_s"] > 0
    assert "mfu" not in meter.read(2, 0.0)


def points_of(svg, name):
    line = next(element for element in xml.fromstring(svg).iter() if element.get("class") == name)
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


@pytest.mark.parametrize(
    "losses", [[3.0, 2.0, 1.5], [1000.0, 10.0, 0.1], [0.0, -1.0, -5.0], [2.0], [1.0, math.nan, 0.5], [math.inf]]
)
def test_a_curve_stays_inside_its_frame_and_falls_where_the_loss_does(losses):
    svg = loss_curve([(10 * (i + 1), loss) for i, loss in enumerate(losses)], "a <b> & c")
    drawn = points_of(svg, "raw")
    finite = [loss for loss in losses if math.isfinite(loss)] or [0.0]
    assert len(drawn) == len(finite)
    assert all(0 <= x <= 760 and 0 <= y <= 340 for x, y in drawn)
    assert [y for _, y in drawn] == sorted(y for _, y in drawn)
    assert "a &lt;b&gt; &amp; c" in svg


def test_the_thick_line_is_the_mean_around_each_point():
    losses = np.random.default_rng(0).normal(size=120)
    trend = smoothed([(step, float(loss)) for step, loss in enumerate(losses)])
    assert trend[60] == (60, pytest.approx(losses[57:64].mean()))
    assert trend[0][1] == pytest.approx(losses[:4].mean())


@pytest.mark.parametrize(("low", "high"), [(0.0, 320.0), (0.0, 1.0), (2.31, 2.36), (0.0, 2e6), (-5.0, 5.0)])
def test_ticks_are_few_and_round(low, high):
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    step = found[1] - found[0]
    assert f"{step:e}"[0] in "125"


def test_the_film_has_a_frame_for_each_grid_and_lingers_on_the_last(tmp_path):
    for step, level in (2, 0), (4, 100), (6, 200):
        Image.new("L", (16, 8), level).save(tmp_path / f"step-{step:07d}.png")
    Image.new("L", (9, 9)).save(tmp_path / "step-0000001.png")
    out = animate(tmp_path, tmp_path / "out.webp")
    with Image.open(out) as film:
        assert film.n_frames == 3
        film.seek(2)
        assert film.convert("L").getpixel((0, 0)) == 200
    for path in tmp_path.glob("step-000000[24].png"):
        path.unlink()
    assert animate(tmp_path, tmp_path / "none.webp") is None


def test_a_card_has_the_numbers_the_licence_and_the_command_that_makes_it_again(tmp_path):
    record = {
        "recipe": "maskgit",
        "config": {"batch_size": 64, "data": {"name": "digits"}},
        "facts": {"image_shape": [8, 8, 1]},
    }
    (tmp_path / "config.json").write_text(json.dumps(record))
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "loss": 2.5}\n{"step": 4, "loss": "nan"}\n')
    (tmp_path / "samples").mkdir()
    for step in (2, 4):
        Image.new("L", (16, 8)).save(tmp_path / "samples" / f"step-{step:07d}.png")
    summary = {
        "parameters": 466097,
        "steps": 4,
        "device": "1 x cpu",
        "sample_accuracy": 0.9123,
        "jax_version": "0.10.2",
        "seconds": 3.0,
    }
    write_card(tmp_path, summary, 1442, "MaskGIT", "images of 8 x 8 x 1")
    text = (tmp_path / "README.md").read_text()
    for words in (
        "# MaskGIT on digits",
        "466,097 parameters, trained for 4 steps of 64 examples on 1 x cpu.",
        "| sample_accuracy | 0.9123 |",
        "1,442 training examples of `digits`, images of 8 x 8 x 1.",
        "CC BY 4.0",
        "python -m train.maskgit --config config.json --run-dir again",
        "![samples at the end](samples/step-0000004.png)",
        "![samples along the way](samples.webp)",
        "![loss by step](loss.svg)",
    ):
        assert words in text
    assert (tmp_path / "samples.webp").is_file()
