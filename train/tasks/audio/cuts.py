"""Cuts of recordings with what their spectrograms need beside them."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16

from eqxgen.configs import MelConfig

from ...data.audio.clips import Clip, Part


class Cut(NamedTuple):
    """Sizes of a cut.

    Attributes:
        samples: of the cut.
        beside: samples on either side of it, for the frames of the context and their transforms.
    """

    samples: int
    beside: int

    @classmethod
    def of(cls, frames: int, context: int, mel: MelConfig) -> "Cut":
        """A cut of so many frames, with `context` more on either side."""
        return cls(frames * mel.hop, context * mel.hop + mel.margin)

    @property
    def padded(self) -> int:
        """Samples of the cut and of both sides."""
        return self.samples + 2 * self.beside

    def taken(self, wave: Clip, start: int) -> Int16[np.ndarray, " padded"]:
        """The cut of a recording from a sample on; zeros beyond its ends."""
        found = np.zeros(self.padded, np.int16)
        first, last = max(0, start - self.beside), min(len(wave), start + self.samples + self.beside)
        at = first - (start - self.beside)
        found[at : at + last - first] = wave[first:last]
        return found

    def batch(self, part: Part, rows: np.ndarray, starts: np.ndarray) -> dict[str, Any]:
        """`wave`, cuts with both sides, and `length`, the samples of each that are in its recording."""
        waves = [part.waves[row] for row in rows]
        lengths = [min(self.samples, len(wave) - start) for wave, start in zip(waves, starts)]
        cuts = [self.taken(wave, int(start)) for wave, start in zip(waves, starts)]
        return {"wave": np.stack(cuts), "length": np.array(lengths, np.int32)}

    def windows(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Row and first sample of windows that follow one another, from the start of each recording to its end."""
        counts = [-(-len(wave) // self.samples) for wave in part.waves]
        rows = np.repeat(np.arange(len(counts)), counts)
        starts = np.concatenate([np.arange(count) * self.samples for count in counts])
        return rows, starts
