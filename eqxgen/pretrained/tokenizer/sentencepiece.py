"""SentencePiece's files (Kudo and Richardson 2018, arXiv:1808.06226), read without its library or protobuf's.

A file is one protobuf message: pieces with scores, and options of the trainer and the normalizer, of which those are
read that encoding depends on.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, DEFINED, BYTE = 1, 2, 3, 4, 6
FILE_BYTES = 64 * 2**20
SPACE = "\u2581"
"""The character that pieces have for a space."""


class Piece(NamedTuple):
    """A token: its text, its score and its kind."""

    text: str
    score: float
    kind: int


class Pieces(NamedTuple):
    """A file's contents.

    Attributes:
        pieces: by id.
        model: `UNIGRAM` or `BPE`.
        byte_fallback: unknown characters are written as bytes.
        unknown, begin, end, pad: ids; -1 where there is none.
        charsmap: table of the normalization, empty for none.
        prefix: a space is put before a text.
        squeezed: spaces at both ends are left out, and several between words are one.
    """

    pieces: tuple[Piece, ...]
    model: int
    byte_fallback: bool
    unknown: int
    begin: int
    end: int
    pad: int
    charsmap: bytes
    prefix: bool
    squeezed: bool


def read_pieces(path: Path) -> Pieces:
    """The contents of a file, such as spiece.model or tokenizer.model.

    Raises:
        ValueError: it is missing or damaged, or of a kind other than Unigram and BPE.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file: expected a SentencePiece model")
    if path.stat().st_size > FILE_BYTES:
        raise ValueError(f"{path}: must be at most {FILE_BYTES:,} bytes: got {path.stat().st_size:,}")
    try:
        found = _read(path.read_bytes())
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise ValueError(f"{path}: this file is no SentencePiece model, or damaged: {error}") from None
    if found.model not in (UNIGRAM, BPE):
        raise ValueError(f"{path}: must be a Unigram or BPE model, kind 1 or 2: got kind {found.model}")
    if not 0 <= found.unknown < len(found.pieces):
        raise ValueError(f"{path}: must have an unknown piece: got id {found.unknown} of {len(found.pieces)} pieces")
    return found


def _read(data: bytes) -> Pieces:
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for field, value in _fields(data):
        if field == 1:
            piece = dict(_fields(value))
            score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
            pieces.append(Piece(piece[1].decode("utf-8"), score, piece.get(3, NORMAL)))
        elif field in (2, 3):
            (trainer if field == 2 else normalizer).update(_fields(value))
    if not pieces:
        raise ValueError("no pieces")
    if trainer.get(24, 0) or not normalizer.get(5, 1):
        raise ValueError("spaces as suffixes, or spaces that are not marked, are not supported")
    ids = (_signed(trainer.get(field, default)) for field, default in ((40, 0), (41, 1), (42, 2), (43, -1)))
    unknown, begin, end, pad = ids
    return Pieces(
        tuple(pieces),
        trainer.get(3, UNIGRAM),
        bool(trainer.get(35, 0)),
        unknown,
        begin,
        end,
        pad,
        normalizer.get(2, b""),
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message: an integer, or bytes."""
    if not isinstance(data, bytes):
        raise ValueError("a number in place of a message")
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(data):
            raise ValueError("the end is missing")
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("an integer of more than 64 bits")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
