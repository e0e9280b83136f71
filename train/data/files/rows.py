"""Arrays stored in files as in memory, read row by row."""

import bisect
import contextlib
import functools
import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..._errors import DataError
from .contents import sampled_hash
from .lazy import Lazy
from .npz import read_header


class Rows(Lazy):
    """An array in a file, of fixed-size rows one after the other.

    It is read and not mapped into memory: a mapped file that is cut short meanwhile ends the process with SIGBUS and no
    message.

    Args:
        path: of the file.
        shape: of the whole array.
        dtype: of its numbers.
        offset: of its first byte.

    Raises:
        DataError: the file cannot be opened, or ends before the array does.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int = 0):
        self.path, self.shape, self.dtype, self._offset = path, shape, dtype, offset
        self._row = math.prod(shape[1:]) * dtype.itemsize
        size = os.fstat(self._file).st_size
        if size < offset + self.nbytes:
            expected = f"{offset + self.nbytes:,} bytes for {dtype} {shape}"
            raise DataError(path, expected, f"{size:,}", "it is truncated; write or fetch it again")

    @classmethod
    def of_npy(cls, path: Path) -> "Rows":
        """The array of a .npy file.

        Raises:
            DataError: it is no .npy file of numbers in C order, or its size is not what its header says.
        """
        with _reading(path), path.open("rb") as file:
            shape, fortran, dtype = read_header(path, file)
            offset = file.tell()
        rows = cls(path, shape, dtype, offset)
        if fortran or os.path.getsize(path) != offset + rows.nbytes:
            got = "Fortran order" if fortran else f"{os.path.getsize(path):,}"
            raise DataError(path, f"{offset + rows.nbytes:,} bytes, in C order", got, "write it again with numpy.save")
        return rows

    def __getstate__(self) -> dict:
        # A worker process opens the file itself.
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def run(self, start: int, count: int) -> np.ndarray:
        """Consecutive rows.

        Raises:
            DataError: the file cannot be read, or is shorter than it was.
        """
        wanted = count * self._row
        with _reading(self.path):
            data = os.pread(self._file, wanted, self._offset + start * self._row)
        if len(data) != wanted:
            got = f"{len(data):,} from row {start} on"
            hint = "the file was cut short while it was in use; write or fetch it again"
            raise DataError(self.path, f"{wanted:,} bytes", got, hint)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def part(self, start: int, stop: int | None) -> "Rows":
        """The rows from `start` to `stop`, still in the file."""
        stop = len(self) if stop is None else stop
        return Rows(self.path, (stop - start, *self.shape[1:]), self.dtype, self._offset + start * self._row)

    def read(self, index: int) -> np.ndarray:
        return self.run(index, 1)[0]

    def __getitem__(self, key) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self.run(start, max(0, stop - start))
        return super().__getitem__(key)

    def name(self, index: int) -> str:
        return f"{self.path}, row {index}"

    @property
    def fingerprint(self) -> str:
        with _reading(self.path):
            return f"{sampled_hash(self._file)} {self.shape} {self._offset}"

    @functools.cached_property
    def _file(self) -> int:
        with _reading(self.path):
            file = os.open(self.path, os.O_RDONLY)
        return file

    def __del__(self):
        if "_file" in self.__dict__:
            os.close(self._file)


class Joined(Lazy):
    """Several arrays one after the other. All must have rows of one shape and type."""

    def __init__(self, parts: Sequence[Lazy]):
        self._parts, self._ends = parts, list(itertools.accumulate(map(len, parts)))
        self.shape, self.dtype = (self._ends[-1], *parts[0].shape[1:]), parts[0].dtype

    def read(self, index: int) -> np.ndarray:
        part, within = self._find(index)
        return part.read(within)

    def name(self, index: int) -> str:
        part, within = self._find(index)
        return part.name(within)

    @property
    def fingerprint(self) -> str:
        return "; ".join(part.fingerprint for part in self._parts)

    def _find(self, index: int) -> tuple[Lazy, int]:
        number = bisect.bisect_right(self._ends, index)
        return self._parts[number], index - (self._ends[number - 1] if number else 0)


@contextlib.contextmanager
def _reading(path: Path):
    try:
        yield
    except OSError as error:
        raise DataError(path, "a readable file", f"{error.strerror}", "check the path and its permissions") from error
