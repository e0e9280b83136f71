"""Folder of a run: made, locked, and checked against the config and the facts of the command."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .._errors import UserError
from .._files import remove_parts, write_atomically
from ..config.base import TrainConfig, to_dict
from .lock import NAME as LOCK
from .lock import locked
from .metadata import differences


def read_json(path: Path) -> Any:
    """What a JSON file of a run holds; a `UserError` that names it where it does not."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: is {path.parent} the folder of a run?") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from None


def write_json(path: Path, values: Any) -> None:
    write_atomically(path, lambda part: part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8"))


@dataclasses.dataclass
class RunFolder:
    """The folder of a run, locked while it is open, and what its config.json says."""

    path: Path
    record: dict[str, Any]

    @classmethod
    @contextmanager
    def open(cls, config: TrainConfig, recipe: str) -> Iterator["RunFolder"]:
        """Makes the folder or checks that it is this config's, and holds its lock while entered.

        To be entered before anything that takes long. Of several processes the first does so for all.

        Raises:
            UserError: the folder cannot be made or written, is being written by another process, or belongs to another
                config.
        """
        from ..parallel.processes import from_first

        run = cls(
            Path(config.run_dir or f"runs/{recipe}-{config.preset}"), {"recipe": recipe, "config": to_dict(config)}
        )
        with ExitStack() as held:
            from_first(lambda: _claim(run.path, run.record, held))
            yield run

    @property
    def summary(self) -> Path:
        """File that a complete run has."""
        return self.path / "summary.json"

    def describe(self, facts: dict[str, Any]) -> None:
        """Writes config.json where there is none, or checks that it is of the same data.

        Args:
            facts: of the data, which the config does not say, such as the shape of the images.

        Raises:
            UserError: the run was begun on other data.
        """
        from ..parallel.processes import from_first

        record = {**self.record, "facts": json.loads(json.dumps(facts))}
        self.record = from_first(lambda: _describe(self.path / "config.json", record))


def _describe(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        write_json(path, record)
    old, new = read_json(path), record["facts"]
    before = old.get("facts")
    # Facts that a run of an older version lacks cannot differ.
    if not isinstance(before, dict) or before != {name: new[name] for name in before.keys() & new.keys()}:
        raise UserError(
            f"--run-dir {path.parent}: holds a run on other data ({before} and not {new}): give another folder"
        )
    return old


def _claim(folder: Path, record: dict[str, Any], held: ExitStack) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {path.name for path in folder.iterdir()} - {LOCK}
    except (OSError, RuntimeError) as error:  # Python before 3.13 says RuntimeError of a loop of links
        raise UserError(f"--run-dir {folder}: cannot be written: {_reason(error)}: give another by --run-dir") from None
    if files and "config.json" not in files and not all(name.endswith(".part") for name in files):
        raise UserError(
            f"--run-dir {folder}: holds files but no config.json, so it is not a run: give an empty or a new folder"
        )
    held.callback(_remove_empty, folder)
    held.enter_context(locked(folder))
    if (folder / "config.json").exists():
        _check_same(folder, read_json(folder / "config.json"), record)
    remove_parts(folder)


def _remove_empty(folder: Path) -> None:
    """What was made for a run that could not begin."""
    with suppress(OSError):
        folder.rmdir()


def _reason(error: OSError | RuntimeError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _check_same(folder: Path, old: Any, new: dict[str, Any]) -> None:
    if not (isinstance(old, dict) and isinstance(old.get("config"), dict)):
        raise UserError(
            f"{folder / 'config.json'}: is not the config of a run: remove the folder, or give another by --run-dir"
        )
    if old.get("recipe") != new["recipe"]:
        raise UserError(
            f"--run-dir {folder}: holds a run of train.{old.get('recipe')}, not of train.{new['recipe']}: give another "
            "folder"
        )
    if differing := differences(old["config"], new["config"]):
        raise UserError(
            f"--run-dir {folder}: holds a run with another config ({differing}): give another folder, or the same flags"
        )
