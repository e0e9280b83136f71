"""Log of a run: a progress bar or plain lines, metrics.jsonl, and further sinks of numbers."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .._errors import UserError
from .._files import write_atomically, writing
from .sinks import Sink, TensorBoard


class Log:
    """The metrics of one run.

    Args:
        folder: of the run; `metrics.jsonl` is written there.
        steps: of the whole run.
        start: the step it resumes from; lines of later steps are dropped, as they will be made again.
        sinks: further receivers of the numbers; TensorBoard by default.
    """

    def __init__(self, folder: Path, steps: int, start: int, sinks: Sequence[Sink] | None = None):
        self.path = folder / "metrics.jsonl"
        self.seconds_before = _keep_until(self.path, start)
        self._file = self.path.open(
            "ab", buffering=0
        )  # a line is written whole, and nothing is left to write at the end
        self._sinks = [TensorBoard(folder, start)] if sinks is None else sinks
        self._bar = _bar(steps, start) if sys.stdout.isatty() else None
        self._steps = steps

    def metrics(self, step: int, values: dict[str, float | int]) -> None:
        """Writes one line of metrics.jsonl, one point of each curve, and one line or bar on the screen."""
        line = json.dumps({"step": step, **{name: _number(value) for name, value in values.items()}}) + "\n"
        with writing(self.path):
            self._file.write(line.encode())
        for sink in self._sinks:
            sink.write(step, values)
        numbers, left = glance(values), time_left((self._steps - step) * values["step_ms"] / 1000)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step, numbers=numbers, left=left)
        else:
            print(f"step {step}/{self._steps}  {numbers}  {left} left", flush=True)

    def samples(self, step: int, path: Path) -> None:
        """Gives the sinks what was drawn at a step: the pictures, texts and sounds of a path without suffix."""
        for file in sorted(path.parent.glob(f"{path.name}.*")):
            for sink in self._sinks:
                sink.sample(step, file)

    def numbers(self, step: int, values: dict[str, float | int]) -> None:
        """Gives the sinks numbers that are in no line of metrics.jsonl, such as those of the last evaluation."""
        for sink in self._sinks:
            sink.write(step, values)

    def say(self, text: str) -> None:
        """A line for the reader, above the bar where there is one."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def close(self) -> None:
        self._file.close()
        for sink in self._sinks:
            sink.close()
        if self._bar:
            self._bar.stop()


class Mute:
    """Log of the other processes of several: the first prints and writes for all."""

    seconds_before = 0.0

    def metrics(self, step: int, values: dict[str, float | int]) -> None:
        """Nothing."""

    def samples(self, step: int, path: Path) -> None:
        """Nothing."""

    def numbers(self, step: int, values: dict[str, float | int]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def glance(values: dict[str, float | int]) -> str:
    """The numbers to watch: loss, rate, use of the device, and updates that were left out."""
    parts = [f"loss {values['loss']:.4f}", f"{values['examples_per_s']:.0f} examples/s"]
    if "mfu" in values:
        parts.append(f"{values['mfu']:.0%} MFU")
    if values.get("input_wait", 0) >= 0.03:
        parts.append(f"{values['input_wait']:.0%} waiting for data")
    if skipped := skipped_of(values):
        spikes = spikes_of(values)
        parts.append(f"{skipped:.0f} updates skipped, {'not finite' if not spikes else f'{spikes:.0f} as spikes'}")
    return "  ".join(parts)


def skipped_of(values: Mapping[str, float | int]) -> float | int:
    """Updates that were left out, of all turns, since a loss or a gradient was not finite, or a spike."""
    return sum(value for name, value in values.items() if name == "skipped" or name.endswith("_skipped"))


def spikes_of(values: Mapping[str, float | int]) -> float | int:
    """Those of the updates left out whose loss or gradient norm was a spike."""
    return sum(value for name, value in values.items() if name == "spikes" or name.endswith("_spikes"))


def time_left(seconds: float) -> str:
    """`41 s`, `6:05`, `3:07:12`, `9 d 04:00`."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def _bar(steps: int, start: int):
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"), TextColumn("{task.fields[left]}")
    )
    bar.add_task("train", total=steps, completed=start, numbers="compiling", left="")
    bar.start()
    return bar


def _number(value: float | int) -> float | int | str:
    # JSON has no NaN or infinity; a line that a strict reader refuses would lose the very step that matters.
    return value if isinstance(value, int) or math.isfinite(value) else str(value)


def _keep_until(path: Path, step: int) -> float:
    """Drops the lines after a step, and a torn last one; gives the seconds that the run had taken by then."""
    if not path.exists():
        return 0.0
    kept, seconds = [], 0.0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        try:
            values = json.loads(line)
            if values["step"] > step:
                break
            seconds = float(values.get("seconds", seconds))
        except (ValueError, KeyError, TypeError) as error:
            if not line.endswith("\n"):
                break  # a kill tore the last line
            raise UserError(
                f"{path}: line {number} is not a line of metrics: {error}; remove it, or start the run anew"
            ) from None
        kept.append(line)
    write_atomically(path, lambda part: part.write_text("".join(kept), encoding="utf-8"))
    return seconds
