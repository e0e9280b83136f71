"""The folder of a run: made, locked, and checked against the config that is to run in it."""

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


def path_of(config: TrainConfig, recipe: str) -> Path:
    return Path(config.run_dir or f"runs/{recipe}-{config.preset}")


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


@contextmanager
def open_run(config: TrainConfig, recipe: str) -> Iterator[Path]:
    """Makes the folder or checks that it is this config's, and holds its lock while entered; gives its path.

    To be entered before anything that takes long. Of several processes the first does so for all.

    Raises:
        UserError: the folder cannot be made or written, is being written by another process, or belongs to another
            config.
    """
    from ..parallel.processes import from_first

    folder = path_of(config, recipe)
    with ExitStack() as held:
        from_first(lambda: _claim(folder, {"recipe": recipe, "config": to_dict(config)}, held))
        yield folder


def describe_run(
    folder: Path, config: TrainConfig, recipe: str, facts: dict[str, Any], frozen: str | None = None
) -> dict[str, Any]:
    """Writes config.json where there is none, or checks that it is of the same data; gives what it holds.

    Args:
        folder: as `open_run` gave it.
        facts: what a sampler needs to know that the config does not say, such as the shape of the images.
        frozen: SHA-256 of the frozen parts.

    Raises:
        UserError: the run was begun on other data, or with other frozen parts.
    """
    from ..parallel.processes import from_first

    record = {"recipe": recipe, "config": to_dict(config), "facts": json.loads(json.dumps(facts))}
    record |= {} if frozen is None else {"frozen": frozen}
    return from_first(lambda: _describe(folder / "config.json", record))


def _describe(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        write_json(path, record)
    old = read_json(path)
    if old.get("facts") != record["facts"]:
        raise UserError(
            f"--run-dir {path.parent}: holds a run on other data ({old.get('facts')} and not {record['facts']}): give "
            "another folder"
        )
    if old.get("frozen") != record.get("frozen"):
        raise UserError(
            f"--run-dir {path.parent}: holds a run with other frozen parts (SHA-256 {old.get('frozen')} and not "
            f"{record.get('frozen')}): give the same files, or another folder"
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


def defaults_of(record: dict[str, Any]) -> dict[str, Any]:
    """The values of a run's preset, which fields have that its version did not know."""
    from ..engine.recipes import recipe_of

    presets = recipe_of(record, "config.json").PRESETS
    return to_dict(presets.get(record["config"].get("preset"), next(iter(presets.values()))))


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
    if differing := differences(old["config"], new["config"], defaults_of(old)):
        raise UserError(
            f"--run-dir {folder}: holds a run with another config ({differing}): give another folder, or the same flags"
        )
