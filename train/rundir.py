"""The folder of a run: made, claimed, and checked against the config that is to run in it."""

import json
import tempfile
from pathlib import Path
from typing import Any

from train.config import TrainConfig, flat, to_dict
from train.errors import UserError
from train.release import write_atomically


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


def open_run(config: TrainConfig, recipe: str, facts: dict[str, Any]) -> Path:
    """Makes the folder or checks that it is this config's, and gives its path.

    Args:
        facts: what a sampler needs to know that the config does not say, such as the shape of the images.

    Raises:
        UserError: the folder cannot be made or written, or belongs to another config.
    """
    folder = path_of(config, recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--run-dir {folder}: cannot be written: {error.strerror}: give another by --run-dir") from None
    record = {"recipe": recipe, "config": to_dict(config), "facts": json.loads(json.dumps(facts))}
    if (folder / "config.json").exists():
        _check_same(folder, read_json(folder / "config.json"), record)
    elif any(folder.iterdir()):
        raise UserError(f"--run-dir {folder}: holds files but no config.json, so it is not a run: give an empty or a new folder")
    else:
        write_json(folder / "config.json", record)
    return folder


def _check_same(folder: Path, old: Any, new: dict[str, Any]) -> None:
    if not (isinstance(old, dict) and isinstance(old.get("config"), dict)):
        raise UserError(f"{folder / 'config.json'}: is not the config of a run: remove the folder, or give another by --run-dir")
    if old.get("recipe") != new["recipe"]:
        raise UserError(f"--run-dir {folder}: holds a run of train.{old.get('recipe')}, not of train.{new['recipe']}: give another folder")
    before, now = flat(old["config"]), flat(new["config"])
    differing = [name for name in sorted(before.keys() | now.keys()) if name not in TrainConfig.FREE and before.get(name) != now.get(name)]
    if differing:
        shown = ", ".join(f"--{name.replace('_', '-')} was {before.get(name)} and is {now.get(name)}" for name in differing[:4])
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise UserError(f"--run-dir {folder}: holds a run with another config ({shown}{more}): give another folder, or the same flags")
    if old.get("facts") != new["facts"]:
        raise UserError(f"--run-dir {folder}: holds a run on other data ({old.get('facts')} and not {new['facts']}): give another folder")
