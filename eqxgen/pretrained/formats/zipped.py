"""Zip archives as files of arrays: nothing is extracted, and entries that are not compressed are mapped."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from eqxgen.pretrained.formats.stored import ARRAYS, damaged, mapped, refused

_LOCAL = struct.Struct("<4s22xHH")
_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)


class Archive:
    """The entries of an archive.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no archive, is damaged or encrypted, or has an entry twice or too many.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            infos = self._zip.infolist()
        except _ERRORS as error:
            raise damaged(path, "a zip archive", str(error)[:200]) from None
        if len(infos) > ARRAYS + 100:
            raise refused(path, f"at most {ARRAYS:,} entries", f"{len(infos):,}", "it is not a model's")
        self.entries = {info.filename: info for info in infos}
        if len(self.entries) != len(infos):
            raise refused(path, "an archive with every entry once", "one twice", "save the model again")
        if any(info.flag_bits & 1 for info in infos):
            raise refused(path, "an archive without a password", "encrypted entries", "save the model without")
        self.size = path.stat().st_size
        self._data = mapped(path)

    def view(self, name: str) -> np.ndarray | None:
        """The bytes of an entry as they are stored; None if they are compressed."""
        info = self.entries[name]
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        start = info.header_offset
        head = self._data[start : start + _LOCAL.size].tobytes()
        if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
            raise damaged(self.path, f"a header of {name} at byte {start:,}", "none")
        _, names, extra = _LOCAL.unpack(head)
        begin = start + _LOCAL.size + names + extra
        data = self._data[begin : begin + info.file_size]
        if info.file_size != info.compress_size or len(data) != info.file_size:
            raise damaged(self.path, f"{info.file_size:,} bytes of {name}", f"{len(data):,}")
        return data

    def content(self, name: str, most: int | None = None) -> bytes:
        """The bytes of an entry.

        Args:
            name: of the entry.
            most: reads no more than these.
        """
        try:
            with self._zip.open(name) as file:
                return file.read(-1 if most is None else most)
        except _ERRORS as error:
            raise damaged(self.path, f"an entry {name}", str(error)[:200]) from None
