"""From a name to `Sounds`: the known set, a folder, a folder of LJSpeech's form."""

import io
from collections import Counter
from pathlib import Path

import numpy as np

from ..._errors import DataError
from ...config.sounds import SoundConfig
from ..files.broken import Say, read_each
from ..files.known_files import KnownFiles
from ..files.listing import counted, first, list_files
from ..files.npz import Npz
from ..images.held_out import held_out
from .clips import Clip, Part, Sounds, checked
from .files import SUFFIXES, Sound, read_sound

INDEX = "metadata.csv"
"""Of LJSpeech's form: a line NAME|TEXT|... for each recording wavs/NAME.wav."""


def load_sounds(config: SoundConfig, rate: int, files: KnownFiles | None = None, say: Say = print) -> Sounds:
    """The recordings that `config` names, at so many samples a second.

    Raises:
        DataError: a file is missing, damaged or no sound; it has several channels or another rate and that is not
            allowed; it is silent or clipped; a speaker is unknown, or a part is empty.
    """
    if config.is_path:
        path = Path(config.name).expanduser()
        names, speakers = _listed(path, say)
        read = read_each(
            path,
            names,
            lambda file: _checked(str(file), read_sound(file), rate, config),
            skip=config.skip_broken,
            say=say,
            threads=config.threads,
        )
        rows = [(name, who, wave) for name, who, wave in zip(names, speakers, read) if wave is not None]
        found = _parted(path.resolve().name, rate, rows, config, str(path))
    else:
        found = _fsdd(files or KnownFiles.of(config), rate, config)
    part = lambda part: f"{counted(len(part), 'recording')}, {part.seconds(rate) / 60:.1f} minutes"
    say(f"{config.name}: {part(found.train)} to train on; {part(found.test)} held out")
    return found


def _fsdd(files: KnownFiles, rate: int, config: SoundConfig) -> Sounds:
    """Spoken digits. Source: Jackson et al., "Free Spoken Digit Dataset"."""
    path, data = files.read("fsdd/fsdd.npz")
    npz = Npz(path, io.BytesIO(data))
    samples, offsets = npz.read("samples", (1,), "i"), npz.read("offsets", (1,), "i")
    digits, takes = npz.read("digit", (1,), "u"), npz.read("take", (1,), "u")
    names, whose = npz.read_names("speaker_names"), npz.read("speaker", (1,), "u")
    own = int(npz.read("sample_rate", (1,), "i")[0])
    rows = []
    for digit, who, take, start, end in zip(digits, whose, takes, offsets, offsets[1:]):
        name, wave = f"{digit}_{names[who]}_{take}", samples[start:end].astype(np.float32) / 32768
        rows.append((name, names[who], _checked(f"fsdd {name}", Sound(wave[:, None], own), rate, config)))
    return _parted("fsdd", rate, rows, config, "fsdd")


def _checked(where: str, sound: Sound, rate: int, config: SoundConfig) -> Clip:
    return checked(where, sound, rate, mix=config.mix, resample=config.resample, peak=config.peak)


def _listed(path: Path, say: Say) -> tuple[list[str], list[str]]:
    """Files below a folder, and the speaker of each: its first subfolder, or none."""
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing there"
        raise DataError(path, "a folder of .wav or .flac files", got, "correct the path in --data.name")
    if (path / INDEX).is_file() and (path / "wavs").is_dir():
        return _ljspeech(path, say)
    listing = list_files(path, SUFFIXES)
    if not listing.found:
        raise DataError(path, "a folder of .wav or .flac files", f"none; {listing.left_out()}", "add recordings")
    if listing.skipped:
        say(f"{path}: {listing.left_out()}")
    return listing.found, [name.partition("/")[0] if "/" in name else "" for name in listing.found]


def _ljspeech(path: Path, say: Say) -> tuple[list[str], list[str]]:
    """The recordings of an index; a line has the files beside them."""
    try:
        lines = (path / INDEX).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = "extract the set's archive again"
        raise DataError(path / INDEX, "lines NAME|TEXT in UTF-8", str(error), hint) from error
    names = [f"wavs/{line.partition('|')[0]}.wav" for line in lines if line.strip()]
    if missing := [name for name in names if not (path / name).is_file()]:
        got = f"{len(missing):,} of {len(names):,} missing: {first(missing)}"
        raise DataError(path, f"the recordings of {INDEX}", got, "extract the set's archive again")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(path / INDEX, "each recording once", f"twice: {first(twice)}", "take the second lines out")
    listing, listed = list_files(path, SUFFIXES), set(names)
    listing.take({INDEX})
    listing.skip(f"not in {INDEX}", [name for name in listing.found if name not in listed])
    say(f"{path}: {counted(len(names), 'recording')} of {INDEX}; {listing.left_out()}")
    return names, [""] * len(names)


def _parted(name: str, rate: int, rows: list[tuple[str, str, Clip]], config: SoundConfig, where: str) -> Sounds:
    known = sorted({who for _, who, _ in rows} - {""})
    if unknown := [who for who in config.left_out if who not in known]:
        expected = f"speakers of {', '.join(known[:8]) or 'no subfolder'}"
        hint = "correct --data.speakers, or leave it out to hold out --data.held-out of all"
        raise DataError(where, expected, ", ".join(unknown), hint)
    if config.left_out:
        held = np.array([who in config.left_out for _, who, _ in rows], bool)
    elif len(rows) < 2:
        raise DataError(where, "two or more recordings, one to hold out", f"{len(rows)}", "add recordings")
    else:
        held = held_out(np.zeros(len(rows), np.int32), config.held_out, where)
    part = lambda chosen: (
        Part(*map(tuple, zip(*(row for row, kept in zip(rows, chosen) if kept)))) if any(chosen) else Part((), (), ())
    )
    return Sounds(name, rate, part(~held), part(held))
