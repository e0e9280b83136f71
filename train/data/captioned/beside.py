"""Captions beside pictures: one .jsonl of the folder, or a .txt of the same name for each picture."""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..._errors import DataError
from ..files.contents import read_bytes
from ..files.listing import first

TABLES = ("metadata.jsonl", "captions.jsonl")
"""Names of a table of captions: a line for each picture, {"file_name": path below the folder, "text": its caption}."""
_LAYOUT = f'put a {TABLES[0]} with lines of {{"file_name": ..., "text": ...}}, or a .txt beside each picture'


def has_captions(folder: Path, pictures: Sequence[str], texts: Sequence[str]) -> bool:
    """True for a folder with a table of captions, or with a .txt of the name of a picture; nothing is read."""
    stems = {str(PurePosixPath(name).with_suffix("")) for name in texts}
    named = any(str(PurePosixPath(name).with_suffix("")) in stems for name in pictures)
    return named or any((folder / name).is_file() for name in TABLES)


def captions_beside(
    folder: Path, pictures: Sequence[str], others: Sequence[str]
) -> tuple[list[str], set[str], set[str]] | None:
    """A caption for each picture, the files that they were read from, and each .txt that a table takes the place of;
    None where there are no captions.

    Args:
        folder: of the paths.
        pictures: paths below it.
        others: files below it that are no pictures.

    Raises:
        DataError: some pictures have no caption, a caption is empty or of no picture, or a file is damaged.
    """
    tables = [name for name in TABLES if name in others]
    if len(tables) > 1:
        raise DataError(folder, "one table of captions", f"{tables[0]} and {tables[1]}", "keep one of them")
    stems = {name[: -len(".txt")]: name for name in others if name.endswith(".txt")}
    own = {name: stems[stem] for name in pictures if (stem := str(PurePosixPath(name).with_suffix(""))) in stems}
    if tables:
        texts, used, unread = _table(folder / tables[0], set(pictures)), {tables[0]}, set(own.values())
    else:
        texts, used, unread = {name: _text(folder / path) for name, path in own.items()}, set(own.values()), set()
    if not texts:
        return None
    if missing := [name for name in pictures if name not in texts]:
        got = f"{len(missing):,} without: {first(missing)}"
        raise DataError(folder, "a caption for each picture, as some have one", got, _LAYOUT)
    return [texts[name] for name in pictures], used, unread


def _table(path: Path, pictures: set[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, line in enumerate(_decoded(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(name := row.get("file_name"), str):
            raise DataError(where, 'an object with "file_name" and "text"', _short(line), _LAYOUT)
        if name not in pictures:
            hint = "correct the path, which is below the folder, or take the line out"
            raise DataError(where, "the path of a picture that is read", _short(name), hint)
        if name in texts:
            raise DataError(where, "one caption for each picture", f"a second for {name}", "keep one of them")
        texts[name] = _checked(where, row.get("text"))
    return texts


def _text(path: Path) -> str:
    return _checked(str(path), _decoded(path))


def _decoded(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, "UTF-8", f"byte {error.start} is none", "save the file as UTF-8") from None


def _checked(where: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise DataError(where, "a caption", "an empty text" if isinstance(text, str) else "no text", "write one")
    return " ".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
