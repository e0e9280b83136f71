"""Sinks of metrics beside the run's own file: TensorBoard, and Weights & Biases on demand."""

import importlib
import secrets
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .._errors import UserError


@runtime_checkable
class Sink(Protocol):
    """Receiver of the numbers of a step."""

    def write(self, step: int, values: dict[str, float | int]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Events in `tensorboard/`; those after the step that a run resumes from are hidden."""

    def __init__(self, folder: Path, start: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start or None)

    def write(self, step: int, values: dict[str, float | int]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of a project of Weights & Biases, resumed by the name that `wandb.id` keeps. WANDB_MODE=offline writes to
    the folder alone.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, folder: Path, project: str, record: dict[str, Any]):
        try:
            wandb = importlib.import_module("wandb")
        except ImportError:
            raise UserError(f"--wandb {project}: needs the package wandb: pip install wandb") from None
        name = folder / "wandb.id"
        if not name.exists():
            name.write_text(secrets.token_hex(6), encoding="utf-8")
        identity = name.read_text(encoding="utf-8").strip()
        self._run = wandb.init(
            project=project, name=folder.name, id=identity, resume="allow", dir=str(folder), config=record
        )

    def write(self, step: int, values: dict[str, float | int]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()
