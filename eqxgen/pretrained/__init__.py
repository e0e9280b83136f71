"""Published weights in and out: `model = from_pretrained(folder)` by the folder's config.json.

A table of names for each family (`eqxgen.pretrained.table`) is read from and written to the files of a format
(`eqxgen.pretrained.formats`).
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.pretrained.families import FAMILIES, recognised

if TYPE_CHECKING:
    from jaxtyping import DTypeLike

    from eqxgen.pretrained.family import Family, Opened


def from_pretrained(
    source: str | Path,
    family: str | None = None,
    dtype: "DTypeLike | None" = None,
    mesh: Any = None,
    *,
    key: str | None = None,
    revision: str | None = None,
) -> Any:
    """The model of a published folder, or of a file of weights with config.json beside it.

    Args:
        source: the folder or the file; with `revision`, owner/name of a model on the Hugging Face hub.
        family: one of `eqxgen.pretrained.families`; by default the one that config.json names.
        dtype: of the parameters; by default each has the one that it is stored in.
        mesh: gives each device its part of the arrays; see `eqxgen.pretrained.family.Family.from_pretrained`.
        key: of the dictionary within a file that holds several, such as "state_dict".
        revision: a commit of the hub's model, or a branch or tag, which may move; see `eqxgen.pretrained.formats.hub`.

    Raises:
        ValueError: a file is missing or damaged, or of no family that is known.
        ModuleNotFoundError: `revision` needs the extra `hub`.
    """
    if revision is not None:
        from eqxgen.pretrained.formats.hub import fetched

        source = fetched(str(source), revision)
    elif not Path(source).exists():
        hint = "; give revision=, best a commit, for a model of the hub" if str(source).count("/") == 1 else ""
        raise ValueError(f"{source}: no such file or folder of a published model{hint}")
    return family_of(source, family).from_pretrained(source, dtype, mesh=mesh, key=key)


def open_pretrained(source: str | Path, family: str | None = None, *, key: str | None = None) -> "Opened":
    """The model of a published folder or file as shapes, its parameters as they are stored, and the report of its
    arrays; the arguments are those of `from_pretrained`.
    """
    return family_of(source, family).open(source, key=key)


def to_pretrained(model: Any, folder: str | Path, family: str) -> None:
    """Writes a model as a folder that the published library reads.

    Raises:
        OSError: the disk refuses; older files are untouched.
        ValueError: the model is not of the family's architecture.
    """
    named(family).to_pretrained(model, folder)


def named(family: str) -> "Family":
    """The family of a name.

    Raises:
        ValueError: there is none.
    """
    known = next((known for known in FAMILIES if known.module == family), None)
    if known is None:
        raise ValueError(f"family must be one of {_names()}: got {family!r}")
    return getattr(importlib.import_module(f"{__name__}.{known.folder}{family}"), family.upper())


def family_of(source: str | Path, family: str | None = None) -> "Family":
    """The family of a name, or of the config.json of a folder or beside a file.

    Raises:
        ValueError: there is no config.json, or it is of no family that is known. The message says which family the
            arrays look like.
    """
    if family is not None:
        return named(family)
    from eqxgen.pretrained import files
    from eqxgen.pretrained.family import kind_of

    source = Path(source)
    where = files.config_of(source)
    if not where.exists() and source.exists() and (like := recognised(files.open_arrays(source))) is not None:
        known = named(like)
        own = known.infer is not None or not known.types
        hint = f'give family="{like}", whose files have no config.json' if own else "fetch config.json"
        raise ValueError(f"{where}: no such file, of a model's sizes; the arrays look like those of {like}: {hint}")
    kind = kind_of(files.read_json(where))
    found = next((known.module for known in FAMILIES if kind in known.types), None)
    if found is None:
        raise ValueError(f"{where}: must be of one of {_names()}: got model_type {kind!r}")
    return named(found)


def _names() -> str:
    return ", ".join(known.module for known in FAMILIES)


__all__ = ["from_pretrained", "open_pretrained", "to_pretrained"]
