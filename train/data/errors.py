"""The one error of this package."""

import os


class DataError(ValueError):
    """A data file, folder or array is not what it should be.

    The message is one line: where, what was expected, what came, and the cure.
    """

    def __init__(self, where: str | os.PathLike, expected: str, got: str, cure: str):
        super().__init__(f"{_one_line(os.fspath(where))}: expected {expected}, got {_one_line(got)}: {cure}")


def _one_line(text: str) -> str:
    """The text with control characters escaped, so that a hostile file name cannot draw on the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text)
