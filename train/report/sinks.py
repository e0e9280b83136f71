"""Sinks of numbers, pictures, texts and sounds beside the files of a run: TensorBoard; Weights & Biases on demand."""

import importlib
import json
import logging
import secrets
import wave
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .._errors import UserError
from .._files import unwritten, writing
from ..config.base import flat

PICTURES = (".png", ".webp", ".jpg")


@runtime_checkable
class Sink(Protocol):
    """Receiver of the numbers of a step, and of the pictures, texts and sounds drawn then."""

    def write(self, step: int, values: dict[str, float | int]) -> None: ...

    def sample(self, step: int, file: Path) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Events in `tensorboard/`; those after the step that a run resumes from are hidden.

    Args:
        folder: of the run.
        start: the step it resumes from.
        record: config.json of the run, whose config is shown as hyperparameters and as text.

    Raises:
        UserError: the events cannot be written.
    """

    def __init__(self, folder: Path, start: int, record: dict[str, Any] | None = None):
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        # A number that is not finite is a fact of the run, which its line says, and no warning.
        logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)
        self._folder = folder / "tensorboard"
        # No bound of the queue: a full one would wait for ever for a thread that ended at a failed write.
        self._writer = SummaryWriter(str(self._folder), purge_step=start or None, max_queue=0)
        self._events: Any = self._writer.file_writer
        self._thread = self._events.event_writer._worker
        self._events.event_writer._event_queue.cancel_join_thread()
        if not record or start:
            return
        config = record.get("config", {})
        plain = {name: value if _is_plain(value) else str(value) for name, value in flat(config).items()}
        for part in hparams(plain, {"loss": None}):
            self._events.add_summary(part)
        self._writer.add_text("config", f"```\n{json.dumps(config, indent=2)}\n```")

    def write(self, step: int, values: dict[str, float | int]) -> None:
        self._check()
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def sample(self, step: int, file: Path) -> None:
        self._check()
        if file.suffix in PICTURES:
            import numpy as np
            from PIL import Image

            with Image.open(file) as picture:
                self._writer.add_image("samples", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        elif file.suffix == ".txt":
            self._writer.add_text("samples", f"```\n{file.read_text(encoding='utf-8')}\n```", step)
        elif file.suffix == ".wav":
            self._events.add_summary(_sound(file), step)

    def close(self) -> None:
        self._check()
        with writing(self._folder):
            self._writer.close()

    def _check(self) -> None:
        if not self._thread.is_alive():
            raise UserError(unwritten(self._folder, "its thread ended at an error"))


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
        self._wandb = wandb
        self._run = wandb.init(
            project=project, name=folder.name, id=identity, resume="allow", dir=str(folder), config=record
        )

    def write(self, step: int, values: dict[str, float | int]) -> None:
        self._run.log(values, step=step)

    def sample(self, step: int, file: Path) -> None:
        if file.suffix in PICTURES:
            self._run.log({"samples": self._wandb.Image(str(file))}, step=step)
        elif file.suffix == ".txt":
            table = self._wandb.Table(columns=["text"], data=[[file.read_text(encoding="utf-8")]])
            self._run.log({"texts": table}, step=step)
        elif file.suffix == ".wav":
            self._run.log({"sounds": self._wandb.Audio(str(file))}, step=step)

    def close(self) -> None:
        self._run.finish()


def _sound(file: Path) -> Any:
    """TensorBoard's record of a wav file, as it is: `add_audio` would need soundfile to encode it once more."""
    import tensorboardX.proto.summary_pb2 as module

    Summary: Any = vars(module)["Summary"]  # made when it is imported
    with wave.open(str(file)) as sound:
        audio = Summary.Audio(
            sample_rate=sound.getframerate(),
            num_channels=sound.getnchannels(),
            length_frames=sound.getnframes(),
            encoded_audio_string=file.read_bytes(),
            content_type="audio/wav",
        )
    return Summary(value=[Summary.Value(tag="sounds", audio=audio)])


def _is_plain(value: Any) -> bool:
    """True if TensorBoard takes a value as a hyperparameter."""
    return isinstance(value, bool | int | float | str)
