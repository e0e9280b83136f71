"""A cache of decoded images, because LZMA takes 5 s for 10,000 small pictures."""

import contextlib
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..._errors import UserError
from ..._files import write_atomically


def cached(folder: Path, key: str, decode: Callable[[], np.ndarray]) -> UInt8[np.ndarray, "..."]:
    """The result of `decode()` when the file with SHA-256 `key` was first read.

    An entry is named by the key and by its own SHA-256, so that a damaged one is noticed, removed and made again. Where
    the folder cannot be read or written the array is decoded every time.
    """
    try:
        entries = sorted(folder.glob(f"{key}-*.npy"))
    except OSError:
        entries = []
    for entry in entries:
        try:
            data = entry.read_bytes()
            if hashlib.sha256(data).hexdigest() == entry.stem.removeprefix(f"{key}-"):
                return np.load(io.BytesIO(data), allow_pickle=False)
            entry.unlink()
        except OSError:
            continue
    array = np.ascontiguousarray(decode())
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    target = folder / f"{key}-{hashlib.sha256(buffer.getbuffer()).hexdigest()}.npy"
    with contextlib.suppress(UserError):
        write_atomically(target, lambda part: part.write_bytes(buffer.getbuffer()))
    return array
