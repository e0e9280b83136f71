"""The check of a config's field."""


def require(holds: bool, message: str) -> None:
    """Raises `ValueError` with the message, for use in `__post_init__`."""
    if not holds:
        raise ValueError(message)
