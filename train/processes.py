"""What one process of several does for all of them."""

import json
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from train.errors import UserError

Json = TypeVar("Json")


def is_first() -> bool:
    """Whether this process writes what only one may write."""
    return jax.process_index() == 0


def from_first(function: Callable[[], Json]) -> Json:
    """What `function` gives in the first process, in every process; it runs in the first alone, and no process goes on before it ended.

    Args:
        function: gives what JSON can hold.

    Raises:
        UserError: what it raised in the first process, in every process.
    """
    if jax.process_count() == 1:
        return function()
    answer = _broadcast(_answer(function) if is_first() else b"")
    value, error, status = json.loads(answer)
    if error is not None:
        failure = UserError(error)
        failure.status = status
        raise failure
    return value


def _answer(function: Callable[[], object]) -> bytes:
    try:
        return json.dumps([function(), None, 0]).encode()
    except UserError as error:
        return json.dumps([None, str(error), error.status]).encode()


def _broadcast(data: bytes) -> bytes:
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.frombuffer(data.ljust(length), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
