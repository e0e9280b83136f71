"""Files of a folder: those of some kind, and those left out with the reason."""

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from ..._errors import DataError, printable

_SHOWN = 3
TESTED = ("test", "val", "valid", "validation", "dev")
"""Names of a folder of held-out examples beside `train`, of which the first that is there is read."""


@dataclasses.dataclass
class Listing:
    """Files below a folder.

    Attributes:
        found: paths relative to the folder, with `/`, in the order of their names.
        skipped: the other files, by the reason why they are left out.
    """

    found: list[str] = dataclasses.field(default_factory=list)
    skipped: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def skip(self, reason: str, names: Sequence[str]) -> None:
        """Notes that some files are left out."""
        if names:
            self.skipped.setdefault(reason, []).extend(names)

    def others(self) -> list[str]:
        """The files that were left out, but for hidden ones."""
        return [name for reason, names in self.skipped.items() if reason != "hidden" for name in names]

    def take(self, names: Collection[str]) -> None:
        """Notes that some of the files are read after all."""
        kept = {reason: [n for n in listed if n not in names] for reason, listed in self.skipped.items()}
        self.skipped = {reason: listed for reason, listed in kept.items() if listed}

    def left_out(self) -> str:
        """`3 left out: 2 of another kind (a.txt, b.csv), 1 hidden (.DS_Store)`, or `nothing left out`."""
        if not self.skipped:
            return "nothing left out"
        count = sum(map(len, self.skipped.values()))
        kinds = ", ".join(f"{len(names):,} {reason} ({first(names)})" for reason, names in self.skipped.items())
        return f"{count:,} left out: {kinds}"


def list_files(folder: Path, suffixes: Sequence[str]) -> Listing:
    """The files below a folder, at any depth, whose names end in one of some suffixes in lower or upper case.

    Links to folders are not followed, so no link can loop.

    Raises:
        DataError: a folder cannot be read.
    """
    listing = Listing()
    for place, folders, files in os.walk(folder, onerror=_refuse):
        prefix = Path(place).relative_to(folder)
        inside = lambda names, prefix=prefix: [(prefix / name).as_posix() for name in sorted(names)]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        hidden = [name for name in (*files, *folders) if name.startswith(".")]
        listing.skip("hidden", inside(hidden))
        listing.skip("linked folders", inside(name for name in links if name not in hidden))
        folders[:] = [name for name in folders if name not in hidden]
        shown = [name for name in files if name not in hidden]
        wanted = [name for name in shown if name.lower().endswith(tuple(suffixes))]
        listing.found += inside(wanted)
        listing.skip("of another kind", inside(set(shown) - set(wanted)))
    listing.found.sort()
    return listing


def tested_part(folder: Path) -> str | None:
    """Name of the folder beside `train` that has the held-out examples; None where there is no such pair."""
    names = TESTED if (folder / "train").is_dir() else ()
    return next((name for name in names if (folder / name).is_dir()), None)


def first(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(printable, names[:_SHOWN])) + more


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`, `1,000 classes`."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def _refuse(error: OSError) -> NoReturn:
    raise DataError(
        error.filename, "a readable folder", f"{error.strerror}", "check the path and its permissions"
    ) from error
