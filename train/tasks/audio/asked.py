"""Flags of `train.sample` for sound. Imports nothing heavy."""

import dataclasses
import math

from ..._errors import require
from ..sampling import Sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundSample(Sample):
    """Waveforms that the model draws for the spectrograms of recordings, and a picture of both spectrograms."""

    wavs: str | None = None
    """Folder of .wav and .flac files, or one file; by default held-out recordings."""
    n: int | None = None
    """Number of held-out recordings; 4 by default, or all where there are fewer."""
    out: str = "sounds/"
    """Folder of the waveforms, a .wav each, with a slash at its end. The spectrograms of the first eight, each above
    that of its recording, are in a file of its name with the ending .png."""
    temperature: float = 1.0
    """Divides the logits, and multiplies the scales of a mixture of logistics."""
    mix: bool = False
    """Average the channels of files that have several, in place of an error."""
    resample: bool = False
    """Resample files of another rate than the run's, in place of an error."""

    def __post_init__(self):
        super().__post_init__()
        require(self.out.endswith("/") and self.out.strip("/.") != "", f"out must be FOLDER/: got {self.out!r}")
        require(self.n is None or self.n >= 1, f"n must be at least 1: got {self.n}")
        require(0 < self.temperature < math.inf, f"temperature must be positive and finite: got {self.temperature}")
        for name in ("mix", "resample"):
            require(not getattr(self, name) or self.wavs is not None, f"{name} goes with wavs, which was not given")

    @property
    def picture(self) -> str:
        """File of the spectrograms."""
        return self.out.rstrip("/") + ".png"
