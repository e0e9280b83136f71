"""What a run says: a progress bar or plain lines, metrics.jsonl, TensorBoard events."""

import json
import math
import sys
from pathlib import Path

from train.errors import UserError
from train.files import write_atomically


class Log:
    """The metrics of one run.

    Args:
        folder: of the run; `metrics.jsonl` and `tensorboard/` are written there.
        steps: of the whole run.
        start: the step it resumes from; lines of later steps, which are about to be made again, are dropped.
    """

    def __init__(self, folder: Path, steps: int, start: int):
        from tensorboardX import SummaryWriter

        self.path = folder / "metrics.jsonl"
        self.seconds_before = _keep_until(self.path, start)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start or None)
        self._bar = _bar(steps, start) if sys.stdout.isatty() else None
        self._steps = steps

    def metrics(self, step: int, values: dict[str, float | int]) -> None:
        """One line of metrics.jsonl, one point of each curve, one look for the eyes."""
        self._file.write(json.dumps({"step": step, **{name: _number(value) for name, value in values.items()}}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        rate = values["examples_per_s"]
        left = (self._steps - step) * values["examples"] / max(step, 1) / max(rate, 1e-9)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step, loss=f"{values['loss']:.4f}", rate=f"{rate:.0f}")
        else:
            print(
                f"step {step}/{self._steps}  loss {values['loss']:.4f}  {rate:.0f} examples/s  {left:.0f} s left",
                flush=True,
            )

    def say(self, text: str) -> None:
        """A line for the reader, above the bar where there is one."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def close(self) -> None:
        self._file.close()
        self._board.close()
        if self._bar:
            self._bar.stop()


def _bar(steps: int, start: int):
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[rate]} examples/s"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns)
    bar.add_task("train", total=steps, completed=start, loss="", rate="")
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
            raise UserError(f"{path}: line {number} is not a line of metrics: {error}; remove it, or start the run anew") from None
        kept.append(line)
    write_atomically(path, lambda part: part.write_text("".join(kept), encoding="utf-8"))
    return seconds
