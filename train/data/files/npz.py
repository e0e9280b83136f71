"""Arrays of an untrusted .npz: no pickle, and never more memory than the file accounts for."""

import io
import lzma
import math
import os
import tokenize
import warnings
import zipfile
import zlib
from typing import IO

import numpy as np

from ..._errors import DataError
from .contents import MAX_BYTES

_HEADER_LIMIT = 10_000
_LOCAL = 30  # bytes of a zip entry's own header before its name; the last four are the lengths of name and extra field
# Deflate reaches 1032:1 on zeros; real images stay far below 200:1.
_RATIO_LIMIT, _RATIO_FROM = 200, 64 * 2**20
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    SyntaxError,
    tokenize.TokenError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    SystemError,  # raised on some damaged headers by Python 3.13's tokenizer, with which NumPy reads them
)


class Npz:
    """The arrays of an .npz file by name.

    Raises:
        DataError: it is not a zip file, or it holds one name twice.
    """

    def __init__(self, path: str | os.PathLike, file: io.BufferedIOBase, limit: int = MAX_BYTES):
        self.path, self.limit, self._file = path, limit, file
        try:
            self._zip = zipfile.ZipFile(file)
        except _BROKEN as error:
            raise DataError(
                path, "an .npz file", str(error), "it is truncated or another kind of file; write it with numpy.savez"
            ) from error
        self.names = [info.filename.removesuffix(".npy") for info in self._zip.infolist()]
        if len(set(self.names)) != len(self.names):
            raise DataError(path, "every array once", f"names {self.names[:10]}", "write it again with numpy.savez")

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str, rank: tuple[int, ...], kinds: str) -> np.ndarray:
        """The array `name`, which must have one of the ranks and one of NumPy's `dtype.kind`s.

        The size that the header claims is compared with that of the zip entry, and both with the limit, before anything
        is allocated.

        Raises:
            DataError: the array is missing, damaged, too large, of objects, or of another rank or kind.
        """
        if name not in self:
            hint = f"write it with numpy.savez(path, {name}=...)"
            raise DataError(self.path, f"an array {name!r}", f"only {self.names[:10]}", hint)
        where = f"{os.fspath(self.path)}, array {name!r}"
        info = next(info for info in self._zip.infolist() if info.filename.removesuffix(".npy") == name)
        if info.file_size > self.limit or (
            info.file_size > _RATIO_FROM and info.file_size > _RATIO_LIMIT * info.compress_size
        ):
            got = f"{info.file_size:,} unpacked from {info.compress_size:,}"
            raise DataError(
                where,
                f"at most {self.limit:,} bytes, packed no more than {_RATIO_LIMIT}:1",
                got,
                "use fewer or smaller images",
            )
        try:
            with self._zip.open(info) as entry:
                shape, fortran, dtype = _header(entry)
                if dtype.kind not in kinds or len(shape) not in rank:
                    expected = f"dtype kind {' or '.join(kinds)} and rank {' or '.join(map(str, rank))}"
                    raise DataError(where, expected, f"{dtype} {shape}", "convert the array before numpy.savez")
                claimed, left = math.prod(shape) * dtype.itemsize, info.file_size - entry.tell()
                if min(shape, default=0) < 0 or claimed != left:
                    raise DataError(
                        where,
                        f"{claimed:,} bytes for {dtype} {shape}",
                        f"{left:,}",
                        "its header does not fit; write it again",
                    )
                # Reading to the end makes zipfile check the CRC.
                data = entry.read()
        except DataError:
            raise
        except _BROKEN as error:
            reason = str(error) or type(error).__name__
            raise DataError(
                where, "a whole array", reason, "the file is truncated or altered; fetch or write it again"
            ) from error
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    def locate(self, name: str) -> tuple[tuple[int, ...], np.dtype, int] | None:
        """Shape, dtype and first byte of an array stored as in memory: by `numpy.savez`, in C order. None
        of any other, which `read` reads or refuses.
        """
        info = next((info for info in self._zip.infolist() if info.filename.removesuffix(".npy") == name), None)
        if info is None or info.compress_type != zipfile.ZIP_STORED:
            return None
        try:
            with self._zip.open(info) as entry:
                shape, fortran, dtype = _header(entry)
                header = entry.tell()
        except _BROKEN:
            return None
        if fortran or dtype.hasobject or math.prod(shape) * dtype.itemsize != info.file_size - header:
            return None
        self._file.seek(info.header_offset)
        local = self._file.read(_LOCAL)
        name_and_extra = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        return shape, dtype, info.header_offset + _LOCAL + name_and_extra + header

    def read_names(self, name: str) -> tuple[str, ...]:
        """The array `name` of text, rank 1.

        Raises:
            DataError: as `read`, or the text is not Unicode.
        """
        names = self.read(name, (1,), "U")
        # NumPy raises a SystemError on a code point that does not exist.
        codes = np.frombuffer(names.tobytes(), np.dtype(np.uint32).newbyteorder(names.dtype.byteorder))
        if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))).any():
            raise DataError(
                f"{os.fspath(self.path)}, array {name!r}",
                "Unicode text",
                "other bytes",
                "write it again with numpy.savez",
            )
        return tuple(names.tolist())


def read_header(path: str | os.PathLike, file: io.BufferedIOBase | IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype of a .npy file, whose position is then its first number.

    Raises:
        DataError: it is no .npy file, or not of numbers.
    """
    try:
        shape, fortran, dtype = _header(file)
    except _BROKEN as error:
        raise DataError(path, "a .npy file", str(error) or type(error).__name__, "write it with numpy.save") from error
    if dtype.kind not in "biuf" or min(shape, default=0) < 0 or not shape:
        raise DataError(path, "an array of numbers", f"{dtype} {shape}", "convert it before numpy.save")
    return shape, fortran, dtype


def _header(entry) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, dtype."""
    version = np.lib.format.read_magic(entry)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format, not 1.0 or 2.0")
    with warnings.catch_warnings():
        # A damaged header may hold odd literals and old type names; the caller checks the result.
        warnings.simplefilter("ignore")
        return readers[version](entry, max_header_size=_HEADER_LIMIT)
