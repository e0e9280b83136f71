"""A user's mistakes: one line on the error stream, and an exit status."""

from eqxgen.configs._check import require as require


class UserError(Exception):
    """A run that cannot be: the message names the flag or file, the constraint, what came and a hint. Exit status 1."""

    status = 1


class UsageError(UserError):
    """A flag or a value that cannot be. Exit status 2."""

    status = 2


def printable(text: str) -> str:
    """The text with control characters escaped, so that a hostile name cannot draw on the terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )
