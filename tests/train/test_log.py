"""The lines, bars and sinks of a run's numbers."""

import errno
import json
import os
import struct
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from train._errors import UserError
from train.data.audio.files import write_sound
from train.report.log import Log, glance, time_left
from train.report.sinks import TensorBoard, WeightsAndBiases

VALUES = {"loss": 2.5, "examples_per_s": 640.0, "step_ms": 100.0, "examples": 64}


class Notes:
    """A sink that remembers."""

    def __init__(self):
        self.written, self.closed = [], False

    def write(self, step: int, values: dict[str, float | int]) -> None:
        self.written.append((step, values))

    def sample(self, step: int, file: Path) -> None:
        self.written.append((step, file.name))

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
    assert glance(VALUES | {"skipped": 2.0}).endswith("2 updates skipped, not finite")
    assert glance(VALUES | {"skipped": 2.0, "r1_skipped": 1.0}).endswith("3 updates skipped, not finite")
    assert glance(VALUES | {"skipped": 3.0, "spikes": 2.0}).endswith("3 updates skipped, 2 as spikes")
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

    library = types.SimpleNamespace(
        init=init,
        Image=lambda path: ("image", path),
        Table=lambda columns, data: ("table", columns, data),
        Audio=lambda path: ("sound", path),
    )
    monkeypatch.setitem(sys.modules, "wandb", library)
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
    logged.clear()
    picture, text = drawn(tmp_path)
    sink = WeightsAndBiases(tmp_path, "project", {})
    sink.sample(4, picture)
    sink.sample(4, text)
    sink.sample(4, text.with_suffix(".wav"))
    assert logged == [
        (4, {"samples": ("image", str(picture))}),
        (4, {"texts": ("table", ["text"], [["To be"]])}),
        (4, {"sounds": ("sound", str(text.with_suffix(".wav")))}),
    ]


def drawn(folder):
    """A picture and a text, as a run draws them, beside a sound of 4 samples."""
    picture, text = folder / "step-0000004.png", folder / "step-0000004.txt"
    write_sound(folder / "step-0000004.wav", [np.zeros(4, np.float32)], 8000)
    Image.new("RGB", (4, 2), (255, 0, 0)).save(picture)
    text.write_text("To be")
    return picture, text


def events(folder):
    """The summaries of TensorBoard's files, which are records of a length, its sum, an event and its sum."""
    for path in sorted((folder / "tensorboard").glob("events*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            yield from ((event.step, value) for value in event.summary.value)
            data = data[16 + size :]


def test_tensorboard_has_evaluations_pictures_texts_and_hyperparameters(tmp_path, caplog):
    board = TensorBoard(tmp_path, 0, {"recipe": "gpt", "config": {"steps": 9, "optim": {"clip": "inf", "block": None}}})
    log = Log(tmp_path, 9, 0, [board])
    log.metrics(4, VALUES | {"loss": float("nan"), "val_loss": 1.5})
    drawn(tmp_path)
    log.samples(4, tmp_path / "step-0000004")
    log.numbers(9, {"sample_accuracy": 0.75})
    log.close()
    found = {value.tag: (step, value) for step, value in events(tmp_path)}
    assert (found["val_loss"][0], found["val_loss"][1].simple_value) == (4, 1.5)
    assert (found["sample_accuracy"][0], found["sample_accuracy"][1].simple_value) == (9, 0.75)
    step, picture = found["samples"]
    assert (step, picture.image.width, picture.image.height) == (4, 4, 2)
    sound = found["sounds"][1].audio
    assert (sound.sample_rate, sound.num_channels, sound.length_frames, sound.content_type) == (8000, 1, 4, "audio/wav")
    assert sound.encoded_audio_string == (tmp_path / "step-0000004.wav").read_bytes()
    assert "To be" in found["samples/text_summary"][1].tensor.string_val[0].decode()
    assert '"steps": 9' in found["config/text_summary"][1].tensor.string_val[0].decode()
    hyper = found["_hparams_/session_start_info"][1].metadata.plugin_data.content
    assert b"optim.clip" in hyper
    assert b"steps" in hyper
    assert not caplog.records, "a loss that is not finite is no warning"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_events_that_cannot_be_written_are_an_error_and_never_a_wait(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    board = TensorBoard(tmp_path, 0)
    monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.write", full)
    board.write(1, {"loss": 1.0})
    board._thread.join(10)
    with pytest.raises(UserError, match=r"tensorboard: cannot be written: .* bytes are free there"):
        board.write(2, {f"number {i}": 1.0 for i in range(30)})


def test_weights_and_biases_that_is_not_installed_says_how_to(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--wandb mine: needs the package wandb: pip install wandb"):
        WeightsAndBiases(tmp_path, "mine", {})


REPORT = """
import sys
from pathlib import Path
from train.report.sinks import WeightsAndBiases
folder = Path(sys.argv[1])
sink = WeightsAndBiases(folder, "mine", {"recipe": "classify", "config": {"steps": 9, "optim": {"momentum": 0.125}}})
sink.write(3, {"loss": 1.5})
sink.sample(4, folder / "step-0000004.png")
sink.sample(4, folder / "step-0000004.txt")
sink.sample(4, folder / "step-0000004.wav")
sink.write(9, {"val_accuracy": 0.75})
sink.close()
"""


def test_the_library_of_weights_and_biases_keeps_numbers_pictures_texts_and_hyperparameters(tmp_path):
    """In a process of its own, for the library starts a service; offline, it writes all of it to the folder."""
    pytest.importorskip("wandb")
    drawn(tmp_path)
    line = [sys.executable, "-c", REPORT, str(tmp_path)]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
    (record,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    data = record.read_bytes()
    for name in (b"loss", b"val_accuracy", b"samples", b"texts", b"classify", b"momentum", b"0.125"):
        assert name in data, name
    (picture,) = record.parent.glob("files/media/images/samples*.png")
    with Image.open(picture) as image:
        assert image.size == (4, 2)
    (sound,) = record.parent.glob("files/media/audio/sounds*.wav")
    assert sound.read_bytes() == (tmp_path / "step-0000004.wav").read_bytes()
    (table,) = record.parent.glob("files/media/table/texts*.json")
    assert json.loads(table.read_text())["data"] == [["To be"]]
