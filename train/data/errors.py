"""The errors of this package."""

import os

from .._errors import printable


class DataError(ValueError):
    """A data file, folder or array is not what it should be.

    The message is one line: where, what was expected, what came, and a hint.
    """

    def __init__(self, where: str | os.PathLike, expected: str, got: str, hint: str):
        super().__init__(f"{printable(os.fspath(where))}: expected {expected}, got {printable(got)}: {hint}")

    def __reduce__(self):
        # What a worker process sends back is made again of its message, not of the four parts.
        return _again, (type(self), str(self))

    def of(self, place: str) -> "DataError":
        """The same error with the place in the stream of examples where it came up."""
        return _again(type(self), f"{self} ({place})")


class DataStalled(DataError):
    """A read of the data hangs and cannot be stopped from within Python: the process must end without waiting for its
    threads.
    """


def _again(kind: type[DataError], message: str) -> DataError:
    return kind.__new__(kind, message)
