"""Arrays whose rows are read when they are asked for."""

import abc
import math

import numpy as np
from jaxtyping import Integer


class Lazy(abc.ABC):
    """A read-only array of rows that lie in files: as many as the disk holds, one at a time in memory.

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
            DataError: the file cannot be read, or is not what it was when the array was opened.
        """

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """The file that holds a row, for messages."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Text that differs where the rows differ, found without reading them."""

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
        return f"{self._rows.fingerprint}[{self._indices.tobytes().hex()}]"
