"""The lines, bars and sinks of a run's numbers."""

import json
import sys
import types

import pytest

from train._errors import UserError
from train.report.log import Log, glance, time_left
from train.report.sinks import WeightsAndBiases

VALUES = {"loss": 2.5, "examples_per_s": 640.0, "step_ms": 100.0, "examples": 64}


class Notes:
    """A sink that remembers."""

    def __init__(self):
        self.written, self.closed = [], False

    def write(self, step: int, values: dict[str, float | int]) -> None:
        self.written.append((step, values))

    def close(self) -> None:
        self.closed = True


def test_off_a_terminal_each_line_is_plain(tmp_path, capsys):
    notes = Notes()
    log = Log(tmp_path, 400, 0, [notes])
    log.metrics(10, VALUES)
    log.close()
    assert capsys.readouterr().out == "step 10/400  loss 2.5000  640 examples/s  39 s left\n"
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 10} | VALUES
    assert notes.written == [(10, VALUES)]
    assert notes.closed


def test_on_a_terminal_there_is_one_bar_with_the_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    log = Log(tmp_path, 400, 0, [])
    log.metrics(100, VALUES | {"mfu": 0.4})
    log.say("a word [not markup]")
    log.close()
    output = capsys.readouterr().out
    assert "100/400" in output
    assert "loss 2.5000  640 examples/s  40% MFU" in output
    assert "a word [not markup]" in output


def test_waiting_for_data_is_shown_where_it_matters():
    assert "skipped" not in glance(VALUES | {"skipped": 0.0})
    assert glance(VALUES | {"skipped": 2.0}).endswith("2 updates skipped")
    assert "waiting" not in glance(VALUES | {"input_wait": 0.02})
    assert glance(VALUES | {"input_wait": 0.25}).endswith("25% waiting for data")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(41.2, "41 s"), (365.0, "6:05"), (11_232.0, "3:07:12"), (792_000.0, "9 d 04:00"), (float("inf"), "?")],
)
def test_the_time_left_is_said_in_the_unit_that_suits_it(seconds, text):
    assert time_left(seconds) == text


def test_a_run_of_weights_and_biases_is_resumed_by_its_id(tmp_path, monkeypatch):
    started, logged = [], []

    class Run:
        def log(self, values, step):
            logged.append((step, values))

        def finish(self):
            logged.append("finished")

    def init(**arguments):
        started.append(arguments)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for _ in range(2):
        sink = WeightsAndBiases(tmp_path, "project", {"recipe": "maskgit"})
        sink.write(3, {"loss": 1.0})
        sink.close()
    assert logged == [(3, {"loss": 1.0}), "finished"] * 2
    assert started[0] == started[1]
    assert started[0]["project"] == "project"
    assert started[0]["resume"] == "allow"
    assert started[0]["config"] == {"recipe": "maskgit"}
    assert started[0]["id"] == (tmp_path / "wandb.id").read_text()


def test_weights_and_biases_that_is_not_installed_says_how_to(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--wandb mine: needs the package wandb: pip install wandb"):
        WeightsAndBiases(tmp_path, "mine", {})
