"""The training loop: what a run writes, how it resumes, how it stops."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.full import full
from tests.train.small_runs import crashed_and_resumed, metrics, same, tiny, weights, words
from train import maskgit, sample
from train._errors import UserError
from train.config.base import to_dict
from train.engine import loop
from train.report import meter
from train.report.log import Log

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert maskgit.main(tiny(folder)) == 0
    return folder


def test_a_run_folder_holds_what_is_promised(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "config.json",
        "metrics.jsonl",
        "samples",
        "checkpoints",
        "tensorboard",
        "summary.json",
        "model.safetensors",
    } <= names
    assert list((finished / "samples").glob("*.png"))
    assert list((finished / "tensorboard").glob("events*"))
    assert json.loads((finished / "config.json").read_text())["config"] == to_dict(tiny(finished))


def test_every_line_of_metrics_has_every_number(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert [line["examples"] for line in lines] == [16, 32, 48]
    for line in lines:
        assert {"loss", "accuracy", "learning_rate", "grad_norm", "examples_per_s"} <= line.keys()


@full
def test_where_the_devices_peak_is_known_each_line_has_the_share_of_it_that_the_model_makes_use_of(
    tmp_path, monkeypatch, finished
):
    for module in (loop, meter):
        monkeypatch.setattr(module, "peak_of", lambda kind: 1e12)
    assert maskgit.main(tiny(tmp_path / "run")) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # 8 examples of 65 tokens; two blocks, the head and the table, each weight three times two operations, and
    # attention.
    weights = 2 * (4 * 16 * 16 + 2 * 16 * 32) + 16 * 16 + 16 * 17
    operations = 3 * 8 * 65 * (2 * weights + 2 * 4 * 65 * 16)
    for line in lines:
        assert line["mfu"] * line["step_ms"] * 1e9 == pytest.approx(operations, rel=0.05)
    assert metrics(tmp_path / "run") == metrics(finished)


def test_the_summary_has_every_number(finished):
    summary = json.loads((finished / "summary.json").read_text())
    wanted = "steps seconds parameters skipped evaluation_seconds judge_seconds eval_loss sample_accuracy sample_frechet examples_per_s jax_version device classifier_accuracy"
    assert set(wanted.split()) <= summary.keys()
    assert summary["steps"] == 6
    assert 0 <= summary["sample_accuracy"] <= 1
    assert summary["sample_frechet"] > 0
    assert summary["classifier_accuracy"] > 0.95


def test_the_same_command_on_a_complete_run_says_so_and_changes_nothing(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert maskgit.main(tiny(finished)) == 0
    assert "is complete: 6 steps" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(finished, tmp_path, monkeypatch):
    folder = tmp_path / "resumed"
    config = tiny(folder)
    crashed_and_resumed(maskgit, config, 4, monkeypatch)
    assert same(weights(folder), weights(finished))
    assert metrics(folder) == metrics(finished)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (folder, finished)]
    for name in ("eval_loss", "sample_accuracy"):
        assert summaries[0][name] == summaries[1][name]
    assert summaries[0]["sample_frechet"] == pytest.approx(
        summaries[1]["sample_frechet"], rel=1e-5
    )  # threads sum in any order in LAPACK


@full
def test_another_seed_gives_another_run(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluators.classifier.judge_of", lambda *_: pytest.fail("not reached"))
    monkeypatch.setattr(Log, "say", _stop_at_evaluation)
    with pytest.raises(KeyboardInterrupt):
        maskgit.main(tiny(tmp_path / "other", seed=1))
    assert not same(weights(tmp_path / "other"), weights(finished))


def _stop_at_evaluation(self, text):
    if text.startswith("evaluating"):
        raise KeyboardInterrupt


TINY_FLAGS = [
    "--batch-size",
    "8",
    "--model.dim",
    "16",
    "--model.heads",
    "2",
    "--model.depth",
    "1",
    "--model.hidden-dim",
    "32",
    "--decode.steps",
    "2",
    "--log-every",
    "1",
]


def _until(step, *flags):
    """A process of its own that trains, once it has said that it made some step."""
    command = [sys.executable, "-m", "train.maskgit", *TINY_FLAGS, *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return process
    raise AssertionError(f"{command} ended before step {step}")


@pytest.fixture(scope="module", params=["SIGTERM", pytest.param("SIGINT", marks=full)])
def stopped(request, tmp_path_factory):
    """A run that was killed outright after step 9, begun again, and stopped by a signal after step 14: the signal, the
    folder, the last process and what it printed.
    """
    folder = tmp_path_factory.mktemp("stopped") / "run"
    flags = ["--run-dir", str(folder), "--steps", "100000", "--checkpoint-every", "2"]
    with _until(9, *flags) as process:
        process.kill()
        process.communicate()
    with _until(14, *flags) as process:
        process.send_signal(getattr(signal, request.param))
        output, _ = process.communicate(timeout=60)
    return request.param, folder, process, output


def test_a_signal_saves_the_step_and_says_where(stopped):
    name, folder, process, output = stopped
    assert process.returncode == {"SIGTERM": 143, "SIGINT": 130}[name], output
    assert f"{name}: saved step" in output
    assert "checkpoints; the same command resumes it" in output
    saved = int(output.split("saved step ")[1].split()[0])
    assert saved >= 14
    assert (folder / "checkpoints" / str(saved)).is_dir()
    assert [line["step"] for line in metrics(folder)] == list(range(1, saved + 1))


def test_a_run_killed_outright_resumes_from_its_last_checkpoint(stopped):
    _, folder, _, _ = stopped
    assert [line["step"] for line in metrics(folder)][:14] == list(range(1, 15))


@pytest.mark.parametrize(("limit", "steps"), [pytest.param(3, 6, marks=full), (4, 7)])
def test_updates_that_are_not_finite_are_left_out_until_their_limit(tmp_path, finished, capsys, limit, steps):
    def spoilt(config, folder):
        task = maskgit.RECIPE.task(config, folder)
        wrong = lambda part: {"ids": np.full((len(part.example), 64), 10**6, np.int32)} if 3 <= part.step < 6 else {}
        return dataclasses.replace(task, batch=lambda part: task.batch(part) | wrong(part))

    recipe = dataclasses.replace(maskgit.RECIPE, task=spoilt)
    config = tiny(tmp_path / "run", max_skips=limit, steps=steps, log_every=1, evals=("none",))
    if limit == 3:
        with pytest.raises(
            UserError,
            match=r"in 3 steps in a row.*at step 6, .*is not finite.*; the last checkpoint before it is of step 3",
        ):
            recipe.main(config)
        assert "warm-up: all of the 6 steps, of the preset's 50" in capsys.readouterr().out
        return
    assert recipe.main(config) == 0
    said = capsys.readouterr().out
    assert re.search(r"step 5/7 .*  2 updates skipped, not finite", said)
    assert "3 of 7 updates were skipped, as their gradients were not finite" in said
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["skipped"] == 3
    for phase in (
        "loading the data ...",
        "compiling the step ...",
        "compiled in",
        "saving step 3: ",
        "drawing samples",
    ):
        assert phase in said
    lines = metrics(tmp_path / "run")
    assert [line["skipped"] for line in lines] == [0, 0, 0, 1, 2, 3, 3]
    assert [line["loss"] for line in lines[3:6]] == ["nan"] * 3
    assert np.isfinite(lines[6]["loss"])
    assert lines[6]["learning_rate"] > lines[5]["learning_rate"] == lines[4]["learning_rate"]
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "run").values())


def test_samples_of_a_run_depend_on_the_seed_alone(finished, tmp_path):
    def draw(name, **options):
        path = tmp_path / name
        assert sample.main(words(run=finished, out=path, **options)) == 0
        return path.read_bytes()

    assert draw("a.png", n=4, steps=2) == draw("b.png", n=4, steps=2)
    assert draw("c.png", n=4, steps=2, seed=1) != draw("a.png", n=4, steps=2)


def test_bfloat16_computes_and_float32_keeps_the_weights(tmp_path, monkeypatch, finished):
    monkeypatch.setattr(Log, "say", _stop_at_evaluation)
    with pytest.raises(KeyboardInterrupt):
        maskgit.main(tiny(tmp_path / "half", precision="bfloat16"))
    half, full = weights(tmp_path / "half"), weights(finished)
    assert {str(array.dtype) for array in half.values()} == {"float32"}
    assert not same(half, full)
    losses = [line["loss"] for line in metrics(tmp_path / "half")]
    assert losses == pytest.approx([line["loss"] for line in metrics(finished)], rel=0.02)
