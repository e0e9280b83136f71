"""Files read one by one, and those that cannot be read named at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..._errors import DataError, Unfit
from .listing import first

T = TypeVar("T")
Say = Callable[[str], None]


def read_each(
    folder: Path, names: Sequence[str], read: Callable[[Path], T], *, skip: bool, say: Say, threads: int = 1
) -> list[T | None]:
    """Result of `read` for each file; None for those that are broken, which a line names.

    Args:
        folder: of the files.
        names: paths below it.
        read: raises `DataError` of a broken file.
        skip: leave broken files out instead of refusing them.
        say: takes the line.
        threads: that read.

    Raises:
        Unfit: files are whole and not as the flags ask, whatever `skip` is: the error of the first, with the number.
        DataError: files are broken and `skip` is false, or all of them are broken. Of several the message has
            their number, and the first few with their reasons.
    """
    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(lambda name: _attempt(read, folder / name), names))
    kept = [None if isinstance(result, _Broken) else result for result in results]
    errors = {name: result.error for name, result in zip(names, results) if isinstance(result, _Broken)}
    if not errors:
        return kept
    if unfit := [error for error in errors.values() if isinstance(error, Unfit)]:
        raise unfit[0] if len(unfit) == 1 else unfit[0].of(f"{len(unfit):,} of {len(names):,} files are not as asked")
    if len(errors) == 1 and not skip:
        raise next(iter(errors.values()))
    count = f"{len(errors):,} of {len(names):,} files"
    shown = first([f"{name} ({error.reason})" for name, error in sorted(errors.items())])
    if not skip or len(errors) == len(names):
        hint = "replace them, take them out, or pass --data.skip-broken" if not skip else "replace them"
        raise DataError(folder, "files that can be read", f"{count} that cannot: {shown}", hint)
    say(f"{folder}: {count} cannot be read and are left out: {shown}")
    return kept


class _Broken(NamedTuple):
    error: DataError


def _attempt(read: Callable[[Path], T], path: Path) -> T | _Broken:
    try:
        return read(path)
    except DataError as error:
        return _Broken(error)
