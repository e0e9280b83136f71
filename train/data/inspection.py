"""Check of a source of any kind: every file is read, and a line says what it is."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .._errors import DataError
from ..config.data import DataConfig
from .captioned.beside import has_captions
from .encoded import check_statistics
from .files.broken import Say
from .files.contents import read_bytes
from .files.listing import counted, list_files
from .files.prepared_index import check_prepared, is_prepared
from .images.dataset import UNLABELLED, Dataset
from .images.picture import SUFFIXES as PICTURES
from .images.picture import read_picture
from .sources import load
from .text.text_files import SUFFIXES as TEXTS
from .text.text_files import read_text
from .text.tokens import Tokens

_BEGINNING = 2**16


def check(source: str, vocab: int, context: int, say: Say = print) -> str:
    """Description of a source, after all of it was read.

    Args:
        source: a path, or the name of a known set of images.
        vocab: ids of a file of ids must be below it.
        context: such a file must have at least one more id.
        say: takes lines about files that are left out.

    Raises:
        DataError: the source is damaged, or of no kind that can be trained on.
    """
    path = Path(source).expanduser()
    if not path.exists() and source in DataConfig.KNOWN:
        return f"{source}: {_images(load(DataConfig(source), say=say))}"
    if not path.exists():
        raise DataError(path, "a folder or a file", "nothing there", "correct the path")
    kind = _of_folder(path) if path.is_dir() else _of_file(path, vocab, context)
    return f"{path}: {kind(path, say)}"


def _of_folder(path: Path) -> Callable[[Path, Say], str]:
    if is_prepared(path):
        return _prepared
    pictures, texts = (list_files(path, suffixes).found for suffixes in (PICTURES, TEXTS))
    if not pictures and not texts:
        raise DataError(path, "pictures, texts or a prepared set", "none", "name another folder")
    if pictures and has_captions(path, pictures, texts):
        return functools.partial(_pictures, captions=True)
    return _pictures if len(pictures) >= len(texts) else _text


def _of_file(path: Path, vocab: int, context: int) -> Callable[[Path, Say], str]:
    suffix = path.suffix.lower()
    if suffix in (".npy", ".bin"):
        return lambda path, say: _ids(path, vocab, context)
    if suffix in TEXTS:
        return _text
    if suffix in PICTURES:
        return _picture
    return _archive if suffix == ".npz" else _unknown


def _prepared(path: Path, say: Say) -> str:
    index = check_prepared(path)
    check_statistics(path, index)
    files = index["files"].values()
    size = f"{counted(len(files), 'file')}, {sum(file['bytes'] for file in files):,} bytes as they were written"
    return f"a prepared set of {index['kind']}: {size}"


def _pictures(path: Path, say: Say, captions: bool = False) -> str:
    """Every picture is decoded, and kept at a size of which any number fits the memory; captions are compared."""
    dataset = load(DataConfig(_marked(path), image_size=8, memory=1e6), say=say, captions=captions)
    return f"a folder of pictures: {_counts(dataset)}{', each with a caption' if captions else ''}, every one decoded"


def _archive(path: Path, say: Say) -> str:
    return f"an .npz of images: {_images(load(DataConfig(_marked(path)), say=say))}"


def _text(path: Path, say: Say) -> str:
    texts = read_text(path, say=say)
    text = "".join(texts.values())
    return (
        f"text: {counted(len(texts), 'file')}, {len(text):,} characters, {len(set(text)):,} of them different, in UTF-8"
    )


def _picture(path: Path, say: Say) -> str:
    height, width, channels = read_picture(path, None).shape
    hint = "put it into a folder with others"
    raise DataError(path, "a source to train on", f"one picture of {height} x {width} x {channels}", hint)


def _ids(path: Path, vocab: int, context: int) -> str:
    tokens = Tokens(path, vocab=vocab, context=context)
    top = max(int(np.max(tokens.ids[start : start + 2**23])) for start in range(0, tokens.tokens, 2**23))
    kind = f"token ids as {tokens.ids.dtype}" + ("" if path.suffix == ".npy" else ", without a header")
    return f"{kind}: {tokens.tokens:,} ids, the largest {top:,}, all below {vocab:,}"


def _unknown(path: Path, say: Say) -> str:
    begin = read_bytes(path)[:_BEGINNING] if path.stat().st_size else b""
    got, hint = f"a file that begins with {begin[:12]!r}", "see `python -m train.data --help` for the kinds there are"
    if begin[:4] == b"PK\x03\x04":
        got, hint = "a zip archive", "if numpy.savez wrote it, let its name end in .npz"
    elif begin[:6] == b"\x93NUMPY":
        got, hint = "a NumPy array", "let its name end in .npy"
    raise DataError(path, "a folder, or a file .npz, .npy, .bin, .txt, .text or .md", got, hint)


def _marked(path: Path) -> str:
    """The path as a config takes it."""
    return str(path.absolute())


def _images(dataset: Dataset) -> str:
    height, width, channels = dataset.image_shape
    return f"{_counts(dataset)}, of {height} x {width} x {channels}"


def _counts(dataset: Dataset) -> str:
    count = f"{len(dataset.train_images):,} images to train on and {len(dataset.test_images):,} held out"
    kinds = "no classes" if dataset.class_names == UNLABELLED else f"classes {', '.join(dataset.class_names[:5])}"
    return f"{count}, {kinds}" + (" ..." if dataset.num_classes > 5 else "")
