"""The arrays of a file as the parameters of a model; nothing is read but what is tied."""

import fnmatch
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

from eqxgen.pretrained.families import recognised
from eqxgen.pretrained.formats.stored import Stored, printable
from eqxgen.pretrained.table.coverage import Coverage, require_complete
from eqxgen.pretrained.table.leaves import leaf_of
from eqxgen.pretrained.table.routes import routed
from eqxgen.pretrained.table.rows import Table


class Matched(NamedTuple):
    """Parameters as they are stored.

    Attributes:
        leaves: by path in the model, in its order; nothing is read yet.
        coverage: of the file.
    """

    leaves: dict[str, Stored]
    coverage: Coverage


def match(table: Table, arrays: Mapping[str, Stored], shapes: PyTree, where: object = "file") -> Matched:
    """The parameters of a model in a file's arrays. Shapes and types are compared, and nothing is read but what is
    tied.

    Args:
        table: of the family.
        arrays: of the file, by published name.
        shapes: the model, or its shapes as `eqx.filter_eval_shape` gives them.
        where: the file or folder, for messages.

    Raises:
        ValueError: an array is missing, is not of the model, has another shape or type, or differs from the one that
            it repeats.
    """
    given = _shortened(table, arrays, where)
    ignored = _tied(table, given, where)
    leaves: dict[str, Stored] = {}
    missing: list[tuple[int, str]] = []
    order = {row.path: place for place, row in reversed([*enumerate(table.rows)])}
    used: dict[str, None] = {}
    cropped: dict[str, int] = {}
    for path, leaf, rows in routed(table, shapes):
        parts = next((part for part in rows if all(n in given for n in part.names)), None)
        if parts is None:
            missing += [(order[rows[0].row.path], name) for name in rows[0].names if name not in given]
            continue
        used |= dict.fromkeys(parts.names)
        if not missing:
            leaves[path] = leaf_of(path, leaf, parts, given, where, cropped)
    for name in given.keys() - used.keys():
        reason = next((why for pattern, why in table.ignored.items() if _like(name, table.short(pattern))), None)
        if reason is not None:
            ignored[name] = reason
    extra = tuple(sorted(name for name in given if name not in used and name not in ignored))
    coverage = Coverage(
        tuple(used), ignored, tuple(name for _, name in sorted(missing, key=lambda each: each[0])), extra, cropped
    )
    require_complete(table, coverage, where, recognised(arrays))
    return Matched(leaves, coverage)


def _shortened(table: Table, arrays: Mapping[str, Stored], where: object) -> dict[str, Stored]:
    given: dict[str, Stored] = {}
    for name, stored in arrays.items():
        if (short := table.short(name)) in given:
            raise ValueError(printable(f"{where}: array {name} must be there once: got it under two names"))
        given[short] = stored
    return given


def _tied(table: Table, given: dict[str, Stored], where: object) -> dict[str, str]:
    """Moves the copies out of the way; gives the reason by name."""
    reasons: dict[str, str] = {}
    for tied in table.tied:
        of, pattern = table.short(tied.of), table.short(tied.name).replace("{}", "*")
        for name in [name for name in given if name != of and _like(name, pattern)]:
            copy = given.pop(name)
            if of not in given:
                given[of] = copy
                continue
            if not tied.equal:
                reasons[name] = "not used by the published model"
                continue
            if not _equal(copy, given[of]):
                raise ValueError(
                    printable(f"{where}: {name} must equal {of}, as {table.family}'s config ties them: they differ")
                )
            reasons[name] = f"the same as {of}"
    return reasons


def _equal(one: Stored, other: Stored) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and np.array_equal(one.read(...), other.read(...))


def _like(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern.replace("{}", "*").replace("[", "[[]"))
