"""Writes prepared sets: decoded images, or the ids of a text, checked and ready to be read in any order."""

import hashlib
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...config.data import DataConfig
from ..errors import DataError
from ..sources import load
from ..text.reading import read_text
from ..text.vocabulary import NAME, open_vocabulary
from .lazy import Lazy
from .prepared import FORMAT, INDEX
from .whole import write_atomic

_DRAFT = f"unfinished-{INDEX}"


def prepare_images(config: DataConfig, out: Path, shard_bytes: int, say: Callable[[str], None] = print) -> Path:
    """Writes the images that `config` names as shards of at most `shard_bytes`, with their labels and an index; gives
    the index's path.

    The held-out part is the one that `load` gives. Whoever is interrupted goes on with the shard that was not finished.

    Raises:
        DataError: the images cannot be read, or the folder holds something else.
        OSError: the folder cannot be written.
    """
    dataset = load(config)
    about = {"format": FORMAT, "kind": "images", "classes": list(dataset.class_names), "levels": dataset.levels}
    draft = _Draft(out, about, f"{dataset.fingerprint} {shard_bytes}", say)
    parts = {}
    for part, images, labels in (
        ("train", dataset.train_images, dataset.train_labels),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        rows = max(1, shard_bytes // (images.nbytes // len(images)))
        names = [f"{part}-images-{number:05}.npy" for number in range(-(-len(images) // rows))]
        for number, name in enumerate(names):
            draft.write(
                name, lambda images=images, at=number * rows, rows=rows: _read(images, at, rows, config.threads)
            )
        draft.write(f"{part}-labels.npy", lambda labels=labels: labels)
        parts[part] = {"images": names, "labels": f"{part}-labels.npy"}
    return draft.finish({"parts": parts})


def prepare_text(source: Path, out: Path, tokenizer: str, held_out: float, say: Callable[[str], None] = print) -> Path:
    """Writes `train.npy` and `val.npy`, the ids of a text's beginning and of its last `held_out`, and an index; gives
    the index's path.

    Files of a folder are joined by an empty line. What `tokenizer` may be, `open_vocabulary` says; byte pairs are
    learned of the whole text. The vocabulary is written beside the ids, and its hash into the index.

    Raises:
        DataError: the text cannot be read, or is too short to hold anything out.
        OSError: the folder cannot be written.
    """
    text = "\n\n".join(read_text(source).values())
    cut = int(len(text) * (1 - held_out))
    if not 0 < cut < len(text):
        raise DataError(
            source, "a text long enough to hold some of it out", f"{len(text)} characters", "take a longer one"
        )
    vocabulary = open_vocabulary(tokenizer, text)
    about = {
        "format": FORMAT,
        "kind": "tokens",
        "tokenizer": vocabulary.kind,
        "vocab": vocabulary.size,
        "vocabulary": vocabulary.sha256,
    }
    draft = _Draft(
        out, about, f"{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()} {tokenizer} {held_out}", say
    )
    dtype = np.uint16 if vocabulary.size <= 2**16 else np.uint32
    for name, part in (("train.npy", text[:cut]), ("val.npy", text[cut:])):
        draft.write(name, lambda part=part: vocabulary.encode(part).astype(dtype))
    vocabulary.save(out / NAME)
    return draft.finish({"parts": {"train": "train.npy", "val": "val.npy"}})


class _Draft:
    """A prepared set in the making: the index so far, rewritten after each file."""

    def __init__(self, out: Path, about: dict[str, Any], source: str, say: Callable[[str], None]):
        self._out, self._about, self._say = out, about | {"source": source}, say
        self._files: dict[str, dict[str, Any]] = {}
        if (out / INDEX).exists() or (out.exists() and not (out / _DRAFT).exists() and any(out.iterdir())):
            got = "a finished set" if (out / INDEX).exists() else "one with other files"
            raise DataError(out, "a new or an empty folder to write to", got, "name another, or remove it")
        if (out / _DRAFT).exists():
            self._files = self._begun()

    def _begun(self) -> dict[str, dict[str, Any]]:
        """The files that an interrupted preparation of the same source has finished."""
        try:
            draft = json.loads((self._out / _DRAFT).read_bytes())
            files = dict(draft["files"])
            same = {name: draft[name] for name in self._about} == self._about
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                self._out / _DRAFT, "the index of an interrupted preparation", str(error), "remove the folder"
            ) from error
        if not same:
            cure = "give the same command again, or remove the folder"
            raise DataError(self._out, "an interrupted preparation of this source", "one of another", cure)
        return files

    def write(self, name: str, make: Callable[[], np.ndarray]) -> None:
        """Writes one array, unless it is there with the sum that was written down."""
        path = self._out / name
        if (
            (file := self._files.get(name))
            and path.is_file()
            and hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
        ):
            return
        buffer = io.BytesIO()
        np.save(buffer, make(), allow_pickle=False)
        data = buffer.getbuffer()
        write_atomic(path, data)
        self._files[name] = {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self._save(_DRAFT, {})
        self._say(f"{path}  {len(data):,} bytes")

    def finish(self, parts: dict[str, Any]) -> Path:
        """The index comes last: a folder that has one is whole."""
        path = self._save(INDEX, parts)
        (self._out / _DRAFT).unlink(missing_ok=True)
        return path

    def _save(self, name: str, parts: dict[str, Any]) -> Path:
        write_atomic(self._out / name, json.dumps(self._about | parts | {"files": self._files}, indent=1).encode())
        return self._out / name


def _read(images: np.ndarray | Lazy, start: int, count: int, threads: int) -> np.ndarray:
    stop = min(start + count, len(images))
    if isinstance(images, np.ndarray):
        return np.ascontiguousarray(images[start:stop])
    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(images.read, range(start, stop))))
