"""Sound files: wav and flac in, wav out. Other formats than plain PCM wav need soundfile, of the extra `audio`."""

import importlib
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int16

from ..._errors import DataError, Unfit
from ..._files import write_atomically

SUFFIXES = (".wav", ".flac")
STREAMED = 0x7FF00000
"""Length from which that of a header is a writer's that did not know it."""
HINT = "replace it, take it out, or pass --data.skip-broken"


class Sound(NamedTuple):
    """A recording.

    Attributes:
        samples: in [-1, 1].
        rate: samples a second.
    """

    samples: Float32[np.ndarray, "samples channels"]
    rate: int


def read_sound(path: Path, hint: str = HINT) -> Sound:
    """The recording of a .wav or .flac file; `hint` is of a file that is no sound.

    Raises:
        Unfit: the file needs soundfile, which is not installed.
        DataError: it is no sound, or ends before its last sample.
    """
    soundfile = library()
    if soundfile is None:
        return _plain(path, hint)
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise DataError(path, "a wav or flac file", _reason(error, path), hint) from error
    _check_whole(path, hint)
    return Sound(samples, int(rate))


def library() -> Any:
    """The module soundfile; None where it is not installed."""
    try:
        return importlib.import_module("soundfile")
    except (ModuleNotFoundError, OSError):  # OSError: without libsndfile, which it loads
        return None


def _plain(path: Path, bad: str) -> Sound:
    """A wav file of whole numbers, by the standard library."""
    if path.suffix.lower() != ".wav":
        hint = 'pip install "eqxgen[audio]", or convert it to wav'
        raise Unfit(path, "soundfile, which reads flac", "no module soundfile", hint)
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        if "unknown format" in str(error):
            hint = 'pip install "eqxgen[audio]", which reads it, or convert it to 16 bits'
            raise Unfit(path, "a wav file of whole numbers", "another format", hint) from error
        raise DataError(path, "a wav or flac file", str(error) or "a file that ends early", bad) from error
    if width not in (1, 2, 3, 4) or channels < 1:
        raise DataError(path, "samples of 8, 16, 24 or 32 bits", f"{8 * width} bits", bad)
    _check_whole(path, bad)
    data = data[: len(data) // (width * channels) * (width * channels)]
    if width == 1:  # without a sign
        values = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    elif width == 3:
        bytes_of = np.zeros((len(data) // 3, 4), np.uint8)
        bytes_of[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = bytes_of.view("<i4")[:, 0] / np.float32(2**31)
    else:
        values = np.frombuffer(data, f"<i{width}") / np.float32(2 ** (8 * width - 1))
    return Sound(values.astype(np.float32).reshape(-1, channels), rate)


def _check_whole(path: Path, bad: str) -> None:
    """Raises if a wav file has fewer bytes of samples than its header says; a stream's header says all bits or none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] + start[8:] != b"RIFFWAVE":  # another format, whose reader checks it
            return
        while len(header := file.read(8)) == 8:
            length = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                left = size - file.tell()
                if left < length < STREAMED:
                    raise DataError(path, f"{length:,} bytes of samples, as its header says", f"{left:,}", bad)
                return
            file.seek(length + length % 2, 1)


def _reason(error: Exception, path: Path) -> str:
    """The library's words without the path."""
    return str(error).rpartition(f"{str(path)!r}: ")[2].rstrip(".") or type(error).__name__


def to_int16(samples: Float32[np.ndarray, "*shape"]) -> Int16[np.ndarray, "*shape"]:
    """Samples in [-1, 1] as 16 bits; those beyond are cut."""
    return np.clip(np.rint(samples * np.float32(32767)), -32768, 32767).astype(np.int16)


def write_sound(path: Path, parts: Iterable[Float32[np.ndarray, " _"]], rate: int) -> int:
    """Writes a wav file of 16 bits, part by part as they come, whole or not at all; gives the number of samples.

    Raises:
        UserError: the file cannot be written.
    """
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        with part.open("wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            for samples in parts:
                file.writeframes(to_int16(samples).astype("<i2").tobytes())
                count += len(samples)

    write_atomically(path, write)
    return count
