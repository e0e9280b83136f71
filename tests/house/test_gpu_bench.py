"""The machinery of the GPU benchmark and of the tuning, on a CPU and in tiny sizes: nothing here measures a GPU."""

import json
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from bench.gpu import __main__ as gpu
from bench.gpu import attention as gpu_attention
from bench.gpu import correct as gpu_correct
from bench.gpu import report as gpu_report
from bench.gpu import rows as gpu_rows
from bench.gpu import steps as gpu_steps
from bench.gpu import torch as gpu_torch
from bench.gpu import train as gpu_train
from bench.gpu import tune_attention
from bench.gpu.book import SHARES, Book
from bench.machine import RESULTS, folder
from bench.ops.norm_shapes import LAYER, Case
from bench.race import Clock, Side, Turn, compare, prepare, race
from kernels.attention import choice
from kernels.attention import triton as attention_triton
from kernels.norm import triton
from tests.full import full

TURN = Turn()


@pytest.fixture
def without_torch(monkeypatch):
    # Importing it takes longer than all the rest.
    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(gpu_torch, "step", missing)
    monkeypatch.setattr(gpu_steps, "SMALL", {"DiT": gpu_steps.SMALL["DiT"]})
    monkeypatch.setattr(gpu_attention, "torch_maker", lambda *_: missing)


def test_a_model_runs_on_the_attention_of_jax_nn():
    batch, sizes, config = gpu_steps.SMALL["DiT"]
    model, loss, examples = gpu_steps.FAMILIES[type(config)][1](batch, sizes, config)
    of = lambda: loss(model, *(x[0] for x in examples), jax.random.key(0))
    with jax.numpy_rank_promotion("allow"):
        ours = of()
        with gpu_steps.plain_ops("xla"):
            theirs = of()
    assert float(theirs) == pytest.approx(float(ours), rel=1e-2)


@full
def test_every_section_writes_rows_and_the_table_names_them(tmp_path, without_torch):
    book = Book(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        gpu_rows.run(book, list(SHARES), 10.0, True)
    sections = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert list(sections) == list(SHARES)
    assert [row["case"] for row in sections["attention"]] == [
        f"{d} D32 T32 {m}" for m in ("full", "causal") for d in ("forward", "backward")
    ]
    for row in sections["attention"]:
        assert {"ours", "jax.nn xla"} <= set(row["ms"])
        assert {"mosaic_gpu", "triton", "torch sdpa", "tokamax"} <= set(row["left out"])
        assert row["times ours"]["jax.nn xla"] > 0
    for section in ("right: attention", "right: norms"):
        assert all(row["right"] == {"xla": True} for row in sections[section])
    assert [row["case"] for row in sections["steps"]] == ["DiT, batch 2"]
    for row in sections["steps"]:
        assert "jax.nn xla attention, plain norms" in row["times ours"]
        assert row["tokens/s"]["ours"] == pytest.approx(1e3 * 2 * 4 / row["ms"]["ours"], rel=1e-2)
        assert 0.5 < sum(row["share of ours"].values()) <= 1.001
    assert book.result["about"]["versions"]["jax"]
    text = gpu.table(book.result)
    assert "- forward: jax.nn xla takes " in text
    assert "## machine" in text
    assert gpu.wrong(book.result) == []


def test_a_step_comes_to_tokens_and_to_a_share_of_the_peak():
    found = gpu_steps.rates({"ours": 20.0, "torch eager": 40.0}, 1000, 10**12, 1e15)
    assert found == {"tokens/s": {"ours": 50e3, "torch eager": 25e3}, "MFU": {"ours": 0.05, "torch eager": 0.025}}
    assert gpu_steps.rates({"ours": 20.0}, 1000, 10**12, None) == {"tokens/s": {"ours": 50e3}}


def test_a_row_that_does_not_fit_the_budget_is_listed_as_left_out(tmp_path):
    book = Book(tmp_path)
    gpu_rows.run(book, ["right: norms", "steps"], 0.0, True)
    out = {"left out": {"the row": "the time budget"}}
    assert book.result["sections"] == {
        "right: norms": [{"case": f"layer {dtype}"} | out for dtype in ("bfloat16", "float32")],
        "steps": [{"case": f"{name}, batch 2"} | out for name in ("DiT", "GPT", "MaskGIT")],
    }


CHILD = """
import sys, time
from pathlib import Path
from bench.gpu.book import Book
book = Book(Path(sys.argv[1]))
for case in ("one", "two", "three"):
    for name in ("", "a", "b"):
        if not book.has("section", case) and name not in book.without():
            book.start("section", case, name)
            if (case, name) == ("two", "a"):
                time.sleep(60)
            if (case, name) == ("three", ""):
                raise SystemExit(3)
    if not book.has("section", case):
        book.put("section", case, {"ms": {name: 1.0 for name in "ab" if name not in book.without()}})
"""


def test_a_contender_that_hangs_is_out_and_a_row_that_crashes_is_skipped(tmp_path):
    book = Book(tmp_path)
    assert gpu.supervise([sys.executable, "-c", CHILD, str(tmp_path)], book, 2.0, patience=3.0) == 3
    assert book.result["stopped"] == [
        {"section": "section", "case": "two", "name": "a", "why": "no answer for 3 seconds"},
        {"section": "section", "case": "three", "name": "", "why": "the process ended with 3"},
    ]
    one, two, three = book.result["sections"]["section"]
    assert (set(one["ms"]), set(two["ms"])) == ({"a", "b"}, {"b"})
    assert three == {"case": "three", "left out": {"the row": "the process ended with 3"}}


def test_a_kernel_that_stopped_the_process_is_not_chosen_either(monkeypatch):
    monkeypatch.setattr(attention_triton, "supports", attention_triton.supports)
    monkeypatch.setattr(triton, "supports", triton.supports)
    gpu_rows.refuse({"triton": "it hung", "torch sdpa": "it hung too"})
    assert attention_triton.supports() == "it hung"
    assert triton.supports() == "it hung"


def test_a_wrong_kernel_is_found_and_fails_the_command():
    case = Case(LAYER, (5, 12), bias=True)

    def call(name):
        off = 1e-4 if name == "triton" else 0.0
        return lambda *x: jax.tree.map(
            lambda y: y * (1 + off), case.forward_and_backward(*x, "reference" if name == "triton" else name)
        )

    row = gpu_correct.judge(call, (case.arguments(), case.cotangent()), TURN, ("xla", "triton"))
    assert row["right"] == {"xla": True, "triton": False}
    assert gpu.wrong({"sections": {"right: norms": [{"case": "layer", **row}]}}) == ["triton at layer"]


def test_an_error_is_a_share_of_the_largest_number_and_infinite_where_only_one_is_finite():
    exact = jnp.array([0.0, -4.0, jnp.inf])
    assert gpu_correct.errors([jnp.array([1.0, -4.0, jnp.inf])], [exact]) == [0.25]
    for odd in ([0.0, -4.0, 1.0], [0.0, jnp.nan, jnp.inf], [0.0, -4.0, jnp.nan]):
        assert gpu_correct.errors([jnp.array(odd)], [exact]) == [float("inf")]


def test_without_a_gpu_each_command_says_so(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "device", lambda: None)
    monkeypatch.setattr(gpu_train, "device", lambda: None)
    for command, arguments in ((gpu.main, []), (tune_attention.main, []), (gpu_train.main, ["data"])):
        with pytest.raises(SystemExit):
            command(arguments)
        assert "no GPU: " in capsys.readouterr().err


def test_contenders_take_turns_and_one_that_fails_leaves_its_reason():
    order, told = [], []

    def refuse():
        raise NotImplementedError("not here\nat all")

    turn = Turn(Clock(60.0), told.append, {"d": "it hung"})
    makers = {
        "a": lambda: Side(lambda: order.append("a")),
        "b": lambda: Side(lambda: order.append("b")),
        "c": refuse,
        "d": refuse,
    }
    sides, reasons = prepare(makers, turn)
    assert reasons == {"c": "NotImplementedError: not here", "d": "it hung"}
    assert told == ["a", "b", "c"]
    order.clear()
    assert set(race(sides, 0.0, turn, rounds=4)) == {"a", "b"}
    assert order == [*"ab", *"abbaabba"]
    assert compare(makers, Turn(Clock(-1.0)), 0.0)["left out"] == dict.fromkeys("abcd", "the time budget")


def test_the_measured_order_puts_the_wrong_last_and_the_refused_before_them():
    assert tune_attention.orders({"xla": 3.0, "cudnn": 2.0, "triton": 1.0}, {"triton"}) == (
        "cudnn",
        "xla",
        "mosaic_gpu",
        "triton",
    )


def test_tuning_writes_a_table_that_can_be_read_and_keeps_other_devices(tmp_path):
    path = tmp_path / "choice.json"
    other = choice.Row("another GPU", "float32", 64, 512, "none", "forward", choice.NAMES)
    choice.write([other], path)
    assert tune_attention.main(["--tiny", "--out", str(path)]) == 0
    rows = choice.read(path.read_text())
    assert other in rows
    measured = [row for row in rows if row != other]
    assert {(row.mask, row.direction) for row in measured} == {
        (m, d) for m in ("bias", "packed") for d in choice.DIRECTIONS
    }
    assert all(row.order[0] == "xla" for row in measured)


def test_every_class_of_the_full_tuning_is_one_of_the_tables():
    found = list(tune_attention.classes(False))
    assert {(x[1], x[3]) for x in found} >= {
        (end, mask) for end in choice.LENGTHS for mask in choice.MASKS if mask not in ("bias", "other")
    }
    assert all(
        choice.length_class(seq) == end and choice.head_dim_class(dim) == dim for _, end, dim, _, (_, seq, _) in found
    )


@pytest.mark.parametrize(("device", "name"), [("NVIDIA H200", "h200"), ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb")])
def test_results_lie_in_the_folder_of_their_device(device, name):
    assert folder(device) == RESULTS / name


def test_as_many_steps_are_trained_as_the_time_has_room_for():
    # A start of 20 s, with the compilation; then 0.05 s a step. A quarter is left for what comes after training.
    lines = [{"step": step, "seconds": 20 + 0.05 * step + slow} for step, slow in ((10, 3), (20, 1), (30, 0), (40, 0))]
    assert gpu_train.fitting(lines, 200.0) == 2600
    assert gpu_train.fitting(lines, 31.0) == 65
    assert gpu_train.fitting(lines, 1.0) == 0


def test_a_run_that_is_not_complete_in_time_is_stopped_as_a_queue_would(tmp_path):
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print('on', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, "--run-dir", str(tmp_path)]
    runner = gpu_train.Runner(tmp_path, tmp_path, time.monotonic() + 2, tiny=True)
    began = time.monotonic()
    with pytest.raises(SystemExit, match="the time is up; the same command resumes it"):
        runner.run(command)
    assert time.monotonic() - began < 30


def test_a_rate_is_measured_by_lines_of_metrics_and_leaves_nothing(tmp_path):
    code = "import json, sys, time, pathlib; folder = pathlib.Path(sys.argv[sys.argv.index('--run-dir') + 1]); folder.mkdir()\n"
    code += "file = open(folder / 'metrics.jsonl', 'w')\n"
    code += "for n in range(1, 9): file.write(json.dumps({'step': 10 * n, 'seconds': 0.1 * n}) + '\\n'); file.flush(); time.sleep(0.01)\n"
    code += "file.write('{\"step\": 9'); file.flush(); time.sleep(60)"
    runner = gpu_train.Runner(tmp_path, tmp_path, time.monotonic() + 60, tiny=True)
    steps = runner.steps([sys.executable, "-c", code, "--run-dir", str(tmp_path / "run")], 100.0)
    assert 7000 < steps <= 7500
    with pytest.raises(SystemExit, match=r"no step fits into the .* seconds that are left for it; give more --minutes"):
        runner.steps([sys.executable, "-c", code, "--run-dir", str(tmp_path / "run")], 0.1)
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_leaves_for_the_results_is_its_summary_curve_lines_and_last_samples(tmp_path):
    run, out = tmp_path / "maskgit-photos", tmp_path / "out"
    (run / "samples").mkdir(parents=True)
    for name in ("summary.json", "metrics.jsonl", "loss.svg", "samples/step-01.png", "samples/step-02.png"):
        (run / name).write_text(name)
    gpu_train.keep(run, out)
    kept = {path.name: path.read_text() for path in out.iterdir()}
    names = {".json": "summary.json", ".jsonl": "metrics.jsonl", ".svg": "loss.svg", ".png": "samples/step-02.png"}
    assert kept == {f"maskgit-photos{suffix}": text for suffix, text in names.items()}


@pytest.fixture
def measured(tmp_path):
    """The folder of a device whose numbers are made up."""
    rows = [
        {
            "case": f"forward D64 T{seq} full",
            "times ours": {"jax.nn cudnn": 1.0 + seq / 1024},
            "TFLOP/s": {"ours": 300.0, "jax.nn cudnn": 200.0},
        }
        for seq in (1024, 2048)
    ]
    norm = {"times ours": {"xla": 1.7}, "of copy": 0.87}
    step = {
        "case": "DiT-B/2, batch 64",
        "tokens/s": {"ours": 1e6},
        "MFU": {"ours": 0.42},
        "times ours": {"torch eager": 1.3},
    }
    sections = {
        "machine": [{"case": "copy", "GB/s": 4300.0}],
        "attention": rows,
        "norms": [{"case": "x", "forward": norm}],
        "steps": [step],
    }
    about = {"device": "NVIDIA X", "date": "2026-01-02T03:04:05", "versions": {"jax": "0.11.2", "triton": "3.6.0"}}
    folder = tmp_path / "bench" / "results" / "x"
    (folder / "runs").mkdir(parents=True)
    (folder / "gpu.json").write_text(json.dumps({"about": about, "sections": sections, "stopped": []}))
    (folder / "runs" / "maskgit-eurosat64.json").write_text(
        json.dumps({"steps": 9000, "seconds": 512.3, "sample_accuracy": 0.9})
    )
    (folder / "runs" / "maskgit-eurosat64.png").write_bytes(b"")
    return folder


def test_the_section_of_the_readme_is_made_from_the_results_alone_and_once(measured, monkeypatch):
    readme = measured.parents[2] / "README.md"
    readme.write_text("# eqxgen\n\n## Tests\n\nthe end\n")
    monkeypatch.setattr(gpu_report, "RESULTS", measured.parent)
    monkeypatch.setattr(gpu_report, "README", readme)
    assert gpu_report.main() == gpu_report.main() == 0
    text = readme.read_text()
    for line in (
        "**NVIDIA X**, 2026-01-02, jax 0.11.2; [all rows](bench/results/x/gpu.md).",
        "The device's own copy: 4,300 GB/s.",
        "- forward: jax.nn cudnn takes 2.45 times ours, geometric mean of 2",
        "- forward: 0.87 to 0.87 of the copy's bandwidth, over 1 shapes",
        "| DiT-B/2, batch 64 | 1,000,000 | 42% | 1.30 |",
        "- maskgit-eurosat64: 9,000 steps in 512 s, sample_accuracy 0.9",
        "![Samples of maskgit-eurosat64](bench/results/x/runs/maskgit-eurosat64.png)",
        "![TFLOP/s of attention by length](bench/results/x/attention.svg)",
    ):
        assert text.count(line) == 1
    assert text.startswith("# eqxgen\n\n<!-- made by")
    assert text.endswith("## Tests\n\nthe end\n")
    assert "forward, full, head_dim 64" in (measured / "attention.svg").read_text()
    (measured / "gpu.json").unlink()
    assert gpu_report.main() == 0
    assert readme.read_text() == "# eqxgen\n\n## Tests\n\nthe end\n"


def test_the_readme_holds_what_the_results_say():
    text = gpu_report.README.read_text()
    assert gpu_report.readme() == text
