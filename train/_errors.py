"""A user's mistakes: one line on the error stream, and an exit status."""


class UserError(Exception):
    """Something about the run cannot be: the message names it, the law, what came and the cure. Exit status 1."""

    status = 1


class UsageError(UserError):
    """A flag's value cannot be. Exit status 2."""

    status = 2


def require(holds: bool, message: str) -> None:
    """Raises `ValueError` with the message, for use in `__post_init__`."""
    if not holds:
        raise ValueError(message)
