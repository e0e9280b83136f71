"""A user's mistakes: one line on the error stream, and an exit status."""

import os
import re

from eqxgen.configs._check import require as require


class UserError(Exception):
    """A run that cannot be: the message names the flag or file, the constraint, what came and a hint. Exit status 1."""

    status = 1


class UsageError(UserError):
    """A flag or a value that cannot be. Exit status 2."""

    status = 2


class DataError(UserError, ValueError):
    """A data file, folder or array that is not what it should be.

    The message is one line: place, expectation, what came, and the hint.
    """

    reason = ""
    """The value that was given."""

    def __init__(self, where: str | os.PathLike, expected: str, got: str, hint: str):
        self.reason = _readable(got)
        super().__init__(f"{printable(os.fspath(where))}: expected {expected}, got {self.reason}: {hint}")

    def __reduce__(self):
        # A worker process sends the message alone, not its four parts.
        return _again, (type(self), str(self))

    def of(self, place: str) -> "DataError":
        """The same error with its place in the stream of examples."""
        return _again(type(self), f"{self} ({place})")


class Unfit(DataError):
    """A whole file that the flags or the installed packages do not allow; no run leaves it out as broken."""


class DataStalled(DataError):
    """A read that hangs and cannot be stopped from Python: the process must end without joining its threads."""


def printable(text: str) -> str:
    """The text with control characters escaped, so that a hostile name cannot draw on the terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )


def _again(kind: type[DataError], message: str) -> DataError:
    return kind.__new__(kind, message)


def _readable(text: str) -> str:
    """The text of another library's error in one line, without the addresses of its objects."""
    return printable(re.sub(r"\s*<[^<>]* at 0x[0-9a-f]+>", "", text))
