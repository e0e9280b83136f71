"""One writer a run folder."""

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import RawIOBase
from pathlib import Path

from .._errors import UserError
from .._files import writing

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, a file with the process and host of the holder, while entered.

    The system releases a lock when its process ends, in any way, so that none is ever stale. Reading a run needs no
    lock.

    Raises:
        UserError: another process holds it, or the file cannot be written.
    """
    path = folder / NAME
    with ExitStack() as opened:
        file = opened.enter_context(_taken(path))
        opened.callback(path.unlink, missing_ok=True)
        with writing(path):
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield


def _taken(path: Path) -> RawIOBase:
    while True:
        try:
            file = path.open("ab", buffering=0)  # nothing is left to write when it is closed
        except OSError as error:
            raise UserError(
                f"--run-dir {path.parent}: cannot be written: {error.strerror}: give another by --run-dir"
            ) from None
        _lock(file, path)
        if _is_at(path, file):
            return file
        file.close()  # its holder removed it as it left, between our opening and locking it


def _lock(file: RawIOBase, path: Path) -> None:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(
            f"--run-dir {path.parent}: is being written by {_holder(path)}: wait until it ends, stop it, or give "
            "another by --run-dir"
        ) from None
    except OSError as error:  # some network file systems have no locks
        print(
            f"warning: {path.parent} cannot be locked ({error.strerror}): see that no other run writes there",
            file=sys.stderr,
        )


def _is_at(path: Path, file: RawIOBase) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    for _ in range(50):  # the holder may be about to write its name
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return f"process {values['pid']} on {values['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.01)
    return "another process"
