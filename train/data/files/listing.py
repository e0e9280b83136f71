"""Files of a folder: those of some kind, and those left out with the reason."""

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from ..._errors import DataError, printable

_SHOWN = 3
TRAIN, HELD_OUT = ("train", "training"), ("test", "testing", "val", "valid", "validation", "dev")
"""Names of the folders of a part, in lower or upper case; of several, the first is read."""


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

    def add(self, other: "Listing", prefix: str = "") -> None:
        """Adds the files of another listing, whose folder is `prefix` below this one's."""
        self.found += [prefix + name for name in other.found]
        for reason, names in other.skipped.items():
            self.skip(reason, [prefix + name for name in names])

    def others(self) -> list[str]:
        """The files that were left out, but for hidden ones."""
        return [name for reason, names in self.skipped.items() if reason != "hidden" for name in names]

    def take(self, names: Collection[str]) -> None:
        """Notes that some of the files are read after all."""
        kept = {reason: [n for n in listed if n not in names] for reason, listed in self.skipped.items()}
        self.skipped = {reason: listed for reason, listed in kept.items() if listed}

    def left_out(self) -> str:
        """`3 left out: 2 of another kind (a.txt, b.csv), 1 hidden (.DS_Store)`, or `nothing left out`. A file of each
        ending is named before a second one.
        """
        if not self.skipped:
            return "nothing left out"
        count = sum(map(len, self.skipped.values()))
        kinds = ", ".join(
            f"{len(names):,} {reason} ({first(_by_ending(names))})" for reason, names in self.skipped.items()
        )
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


def files_at(
    path: Path, suffixes: Sequence[str], what: str, flag: str, *, apart: bool = False
) -> tuple[Path, list[str]]:
    """A folder, and its files of some kinds by their paths below it; a single file is one of its folder. A line names
    the other files of a folder.

    Args:
        what: they are, for the error.
        flag: that names the path.
        apart: refuse two names that differ by their endings alone.

    Raises:
        DataError: there is none.
    """
    if path.is_file():
        return path.parent, [path.name]
    listing = list_files(path, suffixes) if path.is_dir() else Listing()
    names, left = listing.found, f"; {listing.left_out()}" if listing.skipped else ""
    if not names:
        raise DataError(path, what, f"none{left}" if path.is_dir() else "nothing there", f"correct {flag}")
    stems = Counter(name.rpartition(".")[0] for name in names)
    if apart and (twice := [name for name in names if stems[name.rpartition(".")[0]] > 1]):
        raise DataError(path, "files of different names without their endings", first(twice), "rename them")
    if left:
        print(f"{path}: {counted(len(names), 'file')}{left}")
    return path, names


def entries_of(folder: Path) -> list[os.DirEntry]:
    """What is in a folder, by name; `DataError` where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        _refuse(error)


def parts_of(folder: Path, listing: Listing) -> tuple[str, str] | None:
    """The folders of the training and of the held-out part; None where there are none. What else is in the folder is
    added to the listing.

    Raises:
        DataError: there is one part alone, or the folder cannot be read.
    """
    found = {entry.name: os.path.isdir(entry.path) for entry in entries_of(folder)}
    folders = {name.lower(): name for name, is_folder in found.items() if is_folder and not name.startswith(".")}
    train, held = ([folders[name] for name in names if name in folders] for names in (TRAIN, HELD_OUT))
    if train and held:
        parts = train[0], held[0]
        rest = [f"{name}/" if is_folder else name for name, is_folder in found.items() if name not in parts]
        listing.skip("hidden", [name for name in rest if name.startswith(".")])
        listing.skip(f"outside {parts[0]}/ and {parts[1]}/", [name for name in rest if not name.startswith(".")])
        return parts
    if folders and folders.keys() <= {*TRAIN, *HELD_OUT}:
        got, hint = " and ".join(f"{name}/" for name in folders.values()), "add the other one, or name the folder in it"
        raise DataError(folder, f"train/ together with {'/ or '.join(HELD_OUT)}/", f"{got} alone", hint)
    return None


def first(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(printable, names[:_SHOWN])) + more


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`, `1,000 classes`."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def _by_ending(names: Sequence[str]) -> list[str]:
    firsts = {os.path.splitext(name)[1].lower(): name for name in reversed(names)}.values()
    return sorted(names, key=lambda name: name not in firsts)


def _refuse(error: OSError) -> NoReturn:
    raise DataError(
        error.filename, "a readable folder", f"{error.strerror}", "check the path and its permissions"
    ) from error
