"""Arrays whose rows are read on demand."""

import abc
import hashlib
import math

import numpy as np
from jaxtyping import Integer


class Lazy(abc.ABC):
    """A read-only array of rows in files: as many as the disk holds, one at a time in memory.

    Attributes:
        shape: of the whole array; the first axis counts the rows.
        dtype: of every row.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @abc.abstractmethod
    def read(self, index: int) -> np.ndarray:
        """One row. Any thread may call it at any time.

        Raises:
            DataError: the file cannot be read, or has changed since the array was opened.
        """

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """The file of a row, for messages."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A hash of the names and sizes of all files and of a sample of their contents; of the rows it is no proof, but
        another data set differs.
        """

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | Integer[np.ndarray, " n"]) -> np.ndarray:
        indices = np.arange(len(self))[key]
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for row, index in zip(rows, indices):
            row[...] = self.read(int(index))
        return rows

    def choose(self, indices: Integer[np.ndarray, " n"]) -> "Lazy":
        """Some of the rows, in the order given, still unread."""
        return _Chosen(self, indices)


class _Chosen(Lazy):
    def __init__(self, rows: Lazy, indices: np.ndarray):
        self._rows, self._indices = rows, indices
        self.shape, self.dtype = (len(indices), *rows.shape[1:]), rows.dtype

    def read(self, index: int) -> np.ndarray:
        return self._rows.read(int(self._indices[index]))

    def name(self, index: int) -> str:
        return self._rows.name(int(self._indices[index]))

    @property
    def fingerprint(self) -> str:
        return f"{self._rows.fingerprint} {hashlib.sha256(self._indices.tobytes()).hexdigest()}"


def fingerprint_of(*arrays: np.ndarray | Lazy) -> str:
    """SHA-256 of the shapes, types and contents of some arrays; of a `Lazy` one, of its own fingerprint."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(array.fingerprint.encode() if isinstance(array, Lazy) else np.ascontiguousarray(array).data)
    return digest.hexdigest()
