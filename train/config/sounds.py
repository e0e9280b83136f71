"""Options of recorded sounds. Imports nothing heavy."""

import dataclasses
from typing import ClassVar

from .._errors import require
from .data import SourceConfig
from .known import SOUNDS
from .options import option

FSDD_LEFT_OUT = ("jackson", "yweweler")
"""Of the two accents that two speakers have, one speaker each, so that training has both accents."""


@dataclasses.dataclass(frozen=True)
class SoundConfig(SourceConfig):
    """Recordings, and the folder that has them.

    Raises:
        ValueError: as `SourceConfig`; or `held_out`, `peak` or `threads` is out of its range, or `speakers` has a name
            twice.
    """

    KNOWN: ClassVar[tuple[str, ...]] = SOUNDS

    name: str = option("fsdd", first=True)
    """fsdd; or a path: a folder of .wav and .flac files, of one subfolder per speaker where there are several, or of
    LJSpeech's form, metadata.csv and wavs/."""

    speakers: tuple[str, ...] = option((), first=True)
    """Held-out speakers: of fsdd, by default jackson and yweweler, or subfolders of a folder. A folder without any
    given holds out --data.held-out of its recordings."""

    held_out: float = 0.05
    """Fraction of a folder's recordings that is held out where no speaker is, always the same ones."""

    peak: float = option(0.95, first=True)
    """Largest sample of each recording after its mean is subtracted and it is scaled; 0: recordings stay as they
    are."""

    mix: bool = option(False, first=True)
    """Average the channels of recordings that have several, in place of an error."""

    resample: bool = option(False, first=True)
    """Resample recordings of another rate than --mel.rate, in place of an error."""

    threads: int = option(8, free=True)
    """Reading threads."""

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.held_out < 1, f"data.held_out must be between 0 and 1: got {self.held_out}")
        require(0 <= self.peak <= 1, f"data.peak must be in [0, 1]: got {self.peak}; 0 leaves recordings as they are")
        require(1 <= self.threads <= 256, f"data.threads must be between 1 and 256: got {self.threads}")
        require(
            len(set(self.speakers)) == len(self.speakers),
            f"data.speakers must be each given once: got {' '.join(self.speakers)}",
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """The held-out speakers."""
        return self.speakers or (FSDD_LEFT_OUT if self.name == "fsdd" else ())
