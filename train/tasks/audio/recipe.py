"""The recipe of sound: cuts of recordings, waveforms and pictures, evaluation. Imports nothing heavy."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.configs import MelConfig

from ..._errors import require
from ...config.base import TrainConfig
from ...config.evals import BITS, RESYNTHESIS
from ...config.options import option
from ...config.sounds import SoundConfig
from ...engine.recipes import Finished, Recipe
from ..facts import AudioFacts
from .asked import SoundSample
from .sparse import SparseConfig

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ...data import Part
    from ...data.audio.clips import Sounds
    from ...engine.recipe import Program
    from ...engine.task import Task
    from ...evaluators.examples import Examples
    from ...evaluators.stream import Stream
    from .cuts import Cut

SHOWN = 3
"""Held-out recordings that are resynthesised along the way."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundTrainConfig(TrainConfig):
    """Flags of a recipe of sound. A recipe's own `Config` adds its model, which has a `context`."""

    EVALS = (BITS, RESYNTHESIS)

    data: SoundConfig = option(factory=SoundConfig, first=("name", "root", "speakers", "peak", "mix", "resample"))
    """The recordings."""
    mel: MelConfig = option(factory=MelConfig, first=("rate", "hop", "mels"))
    """The spectrogram that the model is given."""
    frames: int = option(8, first=True)
    """Frames of a cut that is trained on."""
    eval_frames: int = 40
    """Frames of the windows that held-out recordings are cut into, each of which starts from a state of zeros."""
    eval_windows: int = 400
    """Held-out windows that bits are measured on, evenly spread; 0: all."""
    eval_sounds: int = 32
    """Held-out windows that are resynthesised for the distance of spectrograms."""
    sparse: SparseConfig = option(factory=SparseConfig, first=("sparsity",))
    """Zeros in the recurrent layer."""
    model: Any = None
    """The net."""

    def __post_init__(self):
        super().__post_init__()
        require(self.eval_windows >= 0, f"eval_windows must be at least 0: got {self.eval_windows}")
        for name in ("frames", "eval_frames", "eval_sounds"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")


def sound_recipe(
    name: str,
    title: str,
    config: type[SoundTrainConfig],
    presets: Mapping[str, Any],
    model: Callable[[Any, AudioFacts], Any],
    program: Callable[[Any, AudioFacts], "Program"],
) -> Recipe:
    """A recipe of this kind.

    Args:
        model: (config, facts) -> initialiser of a `WaveGRU`, or of a model with its methods.
        program: (config, facts) -> the model and its loss, of batches of `wave`, cuts in 16 bits with the samples
            beside them, and `length`, the samples of each that count.
    """

    def task(config: Any, folder: Path) -> "Task":
        from ...data.audio.sources import load_sounds
        from ...engine.task import Task
        from ...evaluators.sounds import bits, resynthesis
        from .cuts import Cut
        from .pruning import pruned

        sounds = load_sounds(config.data, config.mel.rate)
        facts, cut = facts_of(config), Cut.of(config.frames, config.model.context, config.mel)
        windows = held_out_windows(sounds, config)

        def show(model: Any, frozen: Any, stream: "Stream", path: Path) -> None:
            _show(model, config, spread(windows, SHOWN), stream, path)

        return Task(
            facts,
            program(config, facts),
            sounds.train.waves,
            lambda part: cuts(sounds, config, cut, part),
            show,
            (bits(windows, config.mel), resynthesis(spread(windows, config.eval_sounds), config.mel)),
            released=pruned,
            tokens=cut.samples,
            fingerprint=sounds.fingerprint,
        )

    return Recipe(
        name=name,
        title=title,
        config=config,
        presets=presets,
        facts=AudioFacts,
        on_paper=facts_of,
        model=model,
        program=program,
        task=task,
        sample=SoundSample,
        draw=_draw,
    )


def facts_of(config: SoundTrainConfig) -> AudioFacts:
    """Facts of the sounds, which the flags tell."""
    return AudioFacts(config.mel.rate, config.mel.hop, config.mel.mels)


def cuts(sounds: "Sounds", config: Any, cut: "Cut", part: "Part") -> dict[str, Any]:
    """`wave` and `length` of some places of a batch, from a sample that is drawn for each place.

    It is a function of the seed, the step and the place alone.
    """
    import numpy as np

    from ...data import uniforms

    draws = uniforms(config.seed, part.step, part.index, 1)[:, 0]
    room = [max(1, len(sounds.train.waves[row]) - cut.samples + 1) for row in part.example]
    return cut.batch(sounds.train, part.example, (draws * np.array(room)).astype(np.int64))


def held_out_windows(sounds: "Sounds", config: Any) -> "Examples":
    """`wave` and `length` of windows that follow one another through each held-out recording."""
    from ...evaluators.examples import Examples
    from .cuts import Cut

    cut = Cut.of(config.eval_frames, config.model.context, config.mel)
    rows, starts = cut.windows(sounds.test)
    examples = Examples(len(rows), lambda numbers: cut.batch(sounds.test, rows[numbers], starts[numbers]), 64)
    return spread(examples, config.eval_windows) if config.eval_windows else examples


def spread(examples: "Examples", count: int) -> "Examples":
    """So many of the examples, evenly spread over them."""
    import numpy as np

    count = min(count, examples.size)
    places = (np.arange(count) * examples.size) // count
    return examples._replace(size=count, read=lambda numbers: examples.read(places[numbers]), batch=min(count, 64))


def _show(model: Any, config: Any, windows: "Examples", stream: "Stream", path: Path) -> None:
    """Writes the recordings, each followed by its resynthesis, and spectrograms of both; of several processes the first
    writes.
    """
    import jax.random as jr
    import numpy as np

    from ...data import save_picture
    from ...data.audio.files import write_sound
    from ...evaluators.sounds import Resynthesis, spectrogram
    from ...parallel.processes import is_first
    from .pictures import sheet

    tree = model, jr.key(config.seed)
    waves = stream.gather(Resynthesis(config.mel), tree, windows)
    if not is_first():
        return
    found, rows, parts = windows.read(np.arange(windows.size)), [], []
    beside = (found["wave"].shape[1] - waves.shape[1]) // 2
    for padded, wave, length in zip(found["wave"], waves, found["length"]):
        original = padded[beside : beside + int(length)] / np.float32(32768)
        pair = original, np.nan_to_num(wave[: int(length)])
        whole = [np.pad(x, (config.mel.margin, config.mel.margin + -len(x) % config.mel.hop)) for x in pair]
        rows.append([np.asarray(spectrogram(x, config.mel)) for x in whole])
        parts += [x for sound in pair for x in (sound, np.zeros(config.mel.rate // 4, np.float32))]
    save_picture(path.with_suffix(".png"), sheet(rows), scale=1)
    write_sound(path.with_suffix(".wav"), parts, config.mel.rate)


def _draw(run: Finished, asked: SoundSample) -> int:
    from .folder import draw

    return draw(run, asked)
