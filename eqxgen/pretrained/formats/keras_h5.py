"""HDF5, as Keras writes .h5: groups of arrays, whose names are joined by slashes. Read by h5py (extra `h5`)."""

from pathlib import Path
from typing import Any

import numpy as np

from eqxgen.pretrained.formats.stored import ARRAYS, Stored, check_count, check_entry, check_size, damaged, refused

LEVELS = 32
"""Most groups within each other."""


def open_file(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays by name.

    Raises:
        ValueError: the file is damaged, or points to other files.
        ModuleNotFoundError: h5py is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError('no module h5py: pip install "eqxgen[h5]"', name="h5py") from None
    arrays: dict[str, Stored] = {}
    try:
        file = h5py.File(path, "r")  # open as long as its arrays can be read
        _collect(path, file, "", arrays, set())
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise damaged(path, "an HDF5 file of arrays", str(error)[:200]) from None
    check_size(path, arrays, path.stat().st_size)
    return arrays, {}


def _collect(path: Path, group: Any, above: str, arrays: dict[str, Stored], groups: set[int]) -> None:
    import h5py

    where = h5py.h5o.get_info(group.id).addr
    if where in groups or len(groups) > ARRAYS or above.count("/") > LEVELS:
        raise refused(path, f"groups in at most {LEVELS} levels, each once", "a circle or more", "it is not a model's")
    groups.add(where)
    for key in group:
        name = f"{above}/{key}" if above else key
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise refused(path, "arrays in the file itself", f"a link as {name}", "it is not a model's")
        if isinstance(item := group[key], h5py.Group):
            _collect(path, item, name, arrays, groups)
            continue
        check_count(path, len(arrays) + 1)
        check_entry(path, name, item.shape or ())
        if item.external or item.is_virtual:
            raise refused(path, "arrays in the file itself", f"another file's as {name}", "it is not a model's")
        if item.shape is None or item.dtype.kind not in "biuf":
            raise refused(path, f"numbers in {name}", str(item.dtype), "save the weights alone")
        kind = item.dtype.newbyteorder("=")
        read = lambda index, item=item, kind=kind: np.asarray(item[index]).astype(kind, copy=False)
        arrays[name] = Stored(tuple(item.shape), kind, read)
