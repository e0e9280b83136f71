"""Use of every array of a file, and the errors of a file whose arrays are not those of the model."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from eqxgen.pretrained.formats.stored import printable
from eqxgen.pretrained.table.rows import Table


class Coverage(NamedTuple):
    """Use of every array of a file.

    Attributes:
        read: names of arrays that parameters are made of.
        ignored: reason by name.
        missing: names that the model needs.
        extra: names that nothing is known of.
        cropped: number of rows that are left out, by name.
    """

    read: tuple[str, ...]
    ignored: Mapping[str, str]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    cropped: Mapping[str, int] = {}

    @property
    def line(self) -> str:
        """The report in one line."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.ignored.items():
            reasons.setdefault(reason, []).append(name)
        parts = [f"{len(self.read)} arrays read"]
        parts += [f"{some(names)} ignored: {reason}" for reason, names in reasons.items()]
        parts += [f"{count} more rows of {name} than the model has left out" for name, count in self.cropped.items()]
        parts += [f"{some(names)} {what}" for what in ("missing", "extra") if (names := getattr(self, what))]
        return printable("; ".join(parts))


def some(names: Iterable[str]) -> str:
    """The number of some names and the first three."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} ({', '.join(names[:3])}{more})"


def require_complete(table: Table, coverage: Coverage, where: object, family: str | None) -> None:
    """Raises `ValueError` for arrays that are missing or not of the model.

    Args:
        family: that the arrays look like.
    """
    if coverage.missing:
        other = family is not None and len(coverage.missing) > len(coverage.read)
        if other and family != re.sub(r"\W", "", table.family).lower():
            what = (
                f"of a {table.family} are missing ({coverage.missing[0]}, ...): they look like those of {family}: give"
            )
            raise ValueError(printable(f'{where}: {len(coverage.missing)} arrays {what} family="{family}"'))
        what = f"is missing{_more(coverage.missing)}: is it a {table.family} of the sizes that its config names?"
        raise ValueError(printable(f"{where}: array {coverage.missing[0]} {what}"))
    if coverage.extra:
        what = f"is not of a {table.family} of this config{_more(coverage.extra)}"
        raise ValueError(printable(f"{where}: array {coverage.extra[0]} {what}"))


def _more(names: tuple[str, ...]) -> str:
    """The others of some names, after the first."""
    if len(names) == 1:
        return ""
    return f", and {len(names) - 1} more ({', '.join(names[1:3])}{', ...' if len(names) > 3 else ''})"
