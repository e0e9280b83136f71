"""Published weights in and out: `model = from_pretrained(folder)` by the folder's config.json.

A table of names for each family (`eqxgen.pretrained.table`) is read from and written to the files of a format
(`eqxgen.pretrained.formats`).
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.pretrained.families import FAMILIES

if TYPE_CHECKING:
    from jaxtyping import DTypeLike

    from eqxgen.pretrained.family import Family, Opened


def from_pretrained(folder: str | Path, family: str | None = None, dtype: "DTypeLike | None" = None, mesh: Any = None):
    """The model of a published folder; see `eqxgen.pretrained.family.Family.from_pretrained`."""
    return _family(Path(folder), family).from_pretrained(folder, dtype, mesh=mesh)


def open_pretrained(folder: str | Path, family: str | None = None) -> "Opened":
    """The model of a published folder as shapes, and its parameters as they are stored."""
    return _family(Path(folder), family).open(folder)


def _family(folder: Path, name: str | None) -> "Family":
    from eqxgen.pretrained import files

    values = files.read_config(folder) if name is None else {}
    kind = values.get("model_type") or values.get("_class_name")
    found = next((known for known in FAMILIES if known.module == name or kind in known.types), None)
    if found is None:
        names = ", ".join(known.module for known in FAMILIES)
        got = f"model_type {kind!r} in {folder / files.CONFIG}" if name is None else repr(name)
        raise ValueError(f"family must be one of {names}: got {got}")
    return getattr(importlib.import_module(f"{__name__}.{found.module}"), found.module.upper())


__all__ = ["from_pretrained", "open_pretrained"]
