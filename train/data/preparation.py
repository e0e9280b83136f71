"""Writing of prepared sets: decoded images, or the ids of a text, checked and ready to be read in any order."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..config.data import DataConfig
from .files.broken import Say
from .files.draft import Draft
from .files.lazy import Lazy
from .files.prepared_index import FORMAT
from .sources import load
from .text.corpus import cut
from .text.text_files import read_text
from .text.vocabulary import NAME
from .text.vocabulary_file import open_vocabulary


def prepare_images(config: DataConfig, out: Path, shard_bytes: int, say: Say = print) -> Path:
    """Writes the images that `config` names as shards of at most `shard_bytes`, with their labels and an index; gives
    the index's path.

    The held-out part is the one of `load`. The same call after an interruption goes on with the unfinished shard.

    Raises:
        DataError: the images cannot be read, or the folder holds something else.
        UserError: the folder cannot be written.
    """
    dataset = load(config, say=say)
    about = {"format": FORMAT, "kind": "images", "classes": list(dataset.class_names), "levels": dataset.levels}
    draft = Draft(out, about, f"{dataset.fingerprint} {shard_bytes}", say)
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


def prepare_text(
    source: Path,
    out: Path,
    tokenizer: str,
    held_out: float,
    say: Say = print,
    *,
    keep_newlines: bool = False,
    skip_broken: bool = False,
) -> Path:
    """Writes `train.npy` and `val.npy`, the ids of a text's beginning and of its last `held_out`, and an index; gives
    the index's path.

    Files of a folder are joined by an empty line. The vocabulary is written beside the ids, its hash into the index.

    Args:
        source: a text file, or a folder of them.
        out: the folder to write.
        tokenizer: see `open_vocabulary`; byte pairs are learned of the whole text.
        held_out: share of the text.
        say: takes the lines about what was read and written.
        keep_newlines, skip_broken: as for `read_text`.

    Raises:
        DataError: the text cannot be read, or is too short to hold anything out.
        UserError: the folder cannot be written.
    """
    texts = read_text(source, keep_newlines=keep_newlines, skip_broken=skip_broken, say=say)
    text = "\n\n".join(texts.values())
    first, last = cut(source, text, held_out)
    vocabulary = open_vocabulary(tokenizer, text)
    about = {
        "format": FORMAT,
        "kind": "tokens",
        "tokenizer": vocabulary.kind,
        "vocab": vocabulary.size,
        "vocabulary": vocabulary.sha256,
    }
    draft = Draft(
        out, about, f"{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()} {tokenizer} {held_out}", say
    )
    dtype = np.uint16 if vocabulary.size <= 2**16 else np.uint32
    for name, part in (("train.npy", first), ("val.npy", last)):
        draft.write(name, lambda part=part: vocabulary.encode(part).astype(dtype))
    vocabulary.save(out / NAME)
    return draft.finish({"parts": {"train": "train.npy", "val": "val.npy"}})


def _read(images: np.ndarray | Lazy, start: int, count: int, threads: int) -> np.ndarray:
    stop = min(start + count, len(images))
    if isinstance(images, np.ndarray):
        return np.ascontiguousarray(images[start:stop])
    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(images.read, range(start, stop))))
