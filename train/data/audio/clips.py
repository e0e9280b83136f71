"""Recordings of one channel and one rate, and the checks that every source of them shares."""

import dataclasses
import functools
import os

import numpy as np
from jaxtyping import Float32, Int16

from ..._errors import DataError, Unfit
from ..files.lazy import fingerprint_of
from .files import Sound, to_int16

CLIPPED = 8
"""Samples in a row at the largest value of a file from which it counts as clipped."""
FULL = 0.999
"""Share of the range of a file from which a sample is at its end."""
Clip = Int16[np.ndarray, " _samples"]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Recordings with their names and speakers."""

    names: tuple[str, ...]
    speakers: tuple[str, ...]
    waves: tuple[Clip, ...]

    def __len__(self) -> int:
        return len(self.waves)

    def seconds(self, rate: int) -> float:
        """Length of all recordings together."""
        return sum(map(len, self.waves)) / rate


@dataclasses.dataclass(frozen=True, eq=False)
class Sounds:
    """Training and held-out recordings.

    Attributes:
        name: of the set.
        rate: samples a second.
        train, test: the two parts.

    Raises:
        DataError: a part is empty.
    """

    name: str
    rate: int
    train: Part
    test: Part

    def __post_init__(self):
        for words, part in (("training", self.train), ("held-out", self.test)):
            if not len(part):
                raise DataError(self.name, f"a {words} recording", "none", "add recordings, or hold out others")

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every recording."""
        return fingerprint_of(*self.train.waves, *self.test.waves)


def checked(
    where: str | os.PathLike,
    sound: Sound,
    rate: int,
    *,
    mix: bool,
    resample: bool,
    peak: float,
    flags: str = "--data.",
    skip: str = "take the file out, or pass --data.skip-broken",
) -> Clip:
    """One channel at one rate, centred and scaled, in 16 bits.

    Args:
        where: name of the file.
        rate: samples a second.
        mix: average several channels.
        resample: from another rate.
        peak: largest sample after centring; 0: as it is.
        flags: prefix of the flags that allow the two.
        skip: hint of a file that nothing can mend.

    Raises:
        Unfit: the file has several channels or another rate and that is not allowed.
        DataError: it is empty, silent, clipped, or has samples that are no numbers.
    """
    samples = sound.samples
    if not len(samples):
        raise DataError(where, "a sound of one sample or more", "none", skip)
    if not np.isfinite(samples).all():
        raise DataError(where, "samples that are numbers", "NaN or infinity", skip)
    if samples.shape[1] > 1 and not mix:
        hint = f"convert it, or pass {flags}mix to average the channels"
        raise Unfit(where, "1 channel", str(samples.shape[1]), hint)
    if sound.rate != rate and not resample:
        hint = f"pass {flags}resample, or give the run its rate"
        raise Unfit(where, f"{rate:,} samples a second", f"{sound.rate:,}", hint)
    for channel in samples.T:
        if (longest := _longest_run(channel)) >= CLIPPED:
            expected = f"a sound with fewer than {CLIPPED} samples in a row at the end of its range"
            raise DataError(where, expected, f"{longest}: it is clipped", f"record it at a lower level; {skip}")
    wave = samples.mean(axis=1, dtype=np.float32)
    if not np.any(wave != wave[0]):
        raise DataError(where, "a sound", "silence: all samples are equal", skip)
    if sound.rate != rate:
        wave = _resampled(wave, sound.rate, rate)
    return to_int16(levelled(wave, peak))


def levelled(wave: Float32[np.ndarray, " samples"], peak: float) -> Float32[np.ndarray, " samples"]:
    """The samples without their mean, scaled to a largest one of `peak`; as they are with 0."""
    if not peak:
        return wave
    wave = wave - np.mean(wave, dtype=np.float64).astype(np.float32)
    return wave * np.float32(peak / max(float(np.abs(wave).max()), 1e-9))


def _resampled(wave: Float32[np.ndarray, " samples"], rate: int, new_rate: int) -> Float32[np.ndarray, " new"]:
    from scipy.signal import resample_poly

    common = int(np.gcd(rate, new_rate))
    return resample_poly(wave, new_rate // common, rate // common).astype(np.float32)


def _longest_run(channel: Float32[np.ndarray, " samples"]) -> int:
    """Longest run of samples at one end of the range."""
    longest = 0
    for full in (channel >= FULL, channel <= -FULL):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(np.int8)))
        if len(edges):
            longest = max(longest, int((edges[1::2] - edges[::2]).max()))
    return longest
