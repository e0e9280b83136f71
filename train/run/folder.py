"""Folder of a run: made, locked, and checked against the config and the data of the command."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .._errors import UserError
from .._files import read_json, remove_parts, write_json
from ..config.base import TrainConfig, to_dict
from ..config.options import free, moving
from .lock import NAME as LOCK
from .lock import locked
from .metadata import differences


@dataclasses.dataclass
class RunFolder:
    """The folder of a run, locked while it is open, and the content of its config.json."""

    path: Path
    record: dict[str, Any]
    moving: frozenset[str] = frozenset()
    """Fields of the config with paths of frozen parts."""
    grown_from: int | None = None
    """Steps of the run so far, where the config has more."""

    @classmethod
    @contextmanager
    def open(cls, config: TrainConfig, recipe: str, default: TrainConfig | None = None) -> Iterator["RunFolder"]:
        """Makes the folder or checks that it is this config's, and holds its lock while entered.

        Args:
            config: of the command.
            recipe: its name.
            default: values of fields that the config of a run of an older version lacks, such as the preset's; by
                default those of the config's type.

        To be entered before anything that takes long. Of several processes the first does so for all.

        Raises:
            UserError: the folder cannot be made or written, is being written by another process, or belongs to another
                config.
        """
        from ..parallel.processes import from_first

        path = Path(config.run_dir or from_first(lambda: str(default_folder(recipe, config, default))))
        run = cls(path, {"recipe": recipe, "config": to_dict(config)}, moving(type(config)))
        with ExitStack() as held:
            run.grown_from = from_first(lambda: _claim(path, recipe, config, default or type(config)(), held))
            yield run

    @property
    def summary(self) -> Path:
        """File that a complete run has."""
        return self.path / "summary.json"

    @property
    def complete(self) -> bool:
        """True where the config's steps are made and evaluated."""
        return self.summary.exists() and self.grown_from is None

    def grow(self, growth: dict[str, Any]) -> None:
        """Writes the new number of steps into config.json, and the record of `train.run.growth` beside it.

        The summary of the shorter run is removed first.
        """
        from ..parallel.processes import from_first

        def write() -> dict[str, Any]:
            old = read_json(self.path / "config.json")
            self.summary.unlink(missing_ok=True)
            new = {"config": {**old["config"], "steps": growth["to"]}, "growths": [*old.get("growths", []), growth]}
            write_json(self.path / "config.json", old | new)
            return old | new

        self.record = from_first(write)

    def describe(
        self,
        facts: dict[str, Any],
        data: dict[str, Any] | None = None,
        *,
        changed: bool = False,
        frozen: str | None = None,
        start: dict[str, Any] | None = None,
    ) -> None:
        """Writes config.json where there is none, or checks that it is of the same data.

        A run of a version that kept no fingerprint of its data gets that of the present ones, and a line says so. So
        do new paths of the same frozen parts.

        Args:
            facts: of the data, which the config does not say, such as the shape of the images.
            data: SHA-256 of the data (`sha256`), and the number of training examples (`examples`).
            changed: whether the run may go on with other data.
            frozen: SHA-256 of the frozen parts.
            start: path and SHA-256 of the weights that the run starts from; None where it has a checkpoint.

        Raises:
            UserError: the run was begun on other data, with other frozen parts, or from other weights.
        """
        from ..parallel.processes import from_first

        record = {**self.record, "facts": json.loads(json.dumps(facts))} | ({"data": data} if data else {})
        record |= {} if frozen is None else {"frozen": frozen}
        record |= {} if start is None else {"from": start}
        self.record = from_first(lambda: _describe(self.path / "config.json", record, self.moving, changed=changed))


def _describe(path: Path, record: dict[str, Any], moving: frozenset[str], *, changed: bool) -> dict[str, Any]:
    if not path.exists():
        write_json(path, record)
    old, new = read_json(path), record["facts"]
    facts = old.get("facts")
    # Facts that a run of an older version lacks cannot differ.
    if not isinstance(facts, dict) or facts != {name: new[name] for name in facts.keys() & new.keys()}:
        kept = old.get("config", {}).get("data", {})
        newlines = "; --data.keep-newlines reads CR LF as older versions did" if "keep_newlines" not in kept else ""
        raise UserError(
            f"--run-dir {path.parent}: holds a run on other data ({differing(facts, new)}): give another "
            f"folder{newlines if 'vocab' in new else ''}"
        )
    if old.get("frozen") != record.get("frozen"):
        raise UserError(
            f"--run-dir {path.parent}: holds a run with other frozen parts (SHA-256 {old.get('frozen')} and not "
            f"{record.get('frozen')}): give the same files, or another folder"
        )
    if "from" in record and (start := old.get("from", {}).get("sha256")) != record["from"]["sha256"]:
        raise UserError(
            f"--run-dir {path.parent}: was to start from other weights (SHA-256 {start} and not "
            f"{record['from']['sha256']}): give the same file, or another folder"
        )
    if moved := {name: record["config"][name] for name in moving if old["config"].get(name) != record["config"][name]}:
        print(f"{path.parent}: its frozen parts have moved: {', '.join(f'{n} is {moved[n]}' for n in sorted(moved))}")
        old = old | {"config": old["config"] | moved}
        write_json(path, old)
    before, now = old.get("data"), record.get("data")
    if before == now or now is None:
        return old
    if before is None:
        print(f"{path.parent}: its version kept no fingerprint of the data, so they could not be compared")
    elif not changed:
        hint = "put the data back, give another folder, or pass --data.changed to go on with these"
        raise UserError(
            f"--run-dir {path.parent}: holds a run on other data ({_named(before)}, and now {_named(now)}): {hint}"
        )
    else:
        print(f"{path.parent}: goes on with other data: {_named(now)}, in place of {_named(before)}")
    write_json(path, old | {"data": now})
    return old | {"data": now}


def _named(data: dict[str, Any]) -> str:
    return f"{data.get('examples'):,} examples with fingerprint {str(data.get('sha256'))[:12]}"


def default_folder(recipe: str, config: TrainConfig, preset: TrainConfig | None) -> Path:
    """The folder of a run without --run-dir: named by recipe and preset, and by the data where they are not the
    preset's.

    A run of these data in the folder without their name, as older versions had it, is found there.
    """
    plain, data = Path(f"runs/{recipe}-{config.preset}"), config.data.name
    if preset is None or data == preset.data.name or _data_of(plain) == data:
        return plain
    name = Path(data).expanduser().absolute().stem if config.data.is_path else data
    return plain.with_name(f"{plain.name}-{re.sub(r'[^A-Za-z0-9_.]+', '-', name)}")


def _data_of(folder: Path) -> Any:
    """The data that a run's config names; None where there is no run."""
    with suppress(UserError, KeyError, TypeError):
        return read_json(folder / "config.json")["config"]["data"]["name"]
    return None


def _claim(folder: Path, recipe: str, config: TrainConfig, default: TrainConfig, held: ExitStack) -> int | None:
    """Holds the folder; gives the steps of the run in it where the config has more."""
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
    grown_from = None
    if (folder / "config.json").exists():
        grown_from = _check_same(folder, read_json(folder / "config.json"), recipe, config, default)
    remove_parts(folder)
    return grown_from


def _remove_empty(folder: Path) -> None:
    """Removes the folder of a run that could not begin."""
    with suppress(OSError):
        folder.rmdir()


def _reason(error: OSError | RuntimeError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _check_same(folder: Path, old: Any, recipe: str, config: TrainConfig, default: TrainConfig) -> int | None:
    if not (isinstance(old, dict) and isinstance(old.get("config"), dict)):
        raise UserError(
            f"{folder / 'config.json'}: is not the config of a run: remove the folder, or give another by --run-dir"
        )
    if old.get("recipe") != recipe:
        raise UserError(
            f"--run-dir {folder}: holds a run of train.{old.get('recipe')}, not of train.{recipe}: give another folder"
        )
    steps = old["config"].get("steps")
    grown = isinstance(steps, int) and steps < config.steps
    may = free(type(config)) | ({"steps"} if grown else set())
    if differing := differences(old["config"], to_dict(config), may, default=to_dict(default)):
        raise UserError(
            f"--run-dir {folder}: holds a run with another config ({differing}): give another folder, or the same flags"
        )
    return steps if grown else None


def differing(facts: Any, new: Mapping[str, Any]) -> str:
    """Facts of a run that are others now, with both values."""
    if not isinstance(facts, Mapping):
        return f"{facts} and not {new}"
    both = [name for name in new if name in facts and facts[name] != new[name]]
    return ", ".join(f"{name} {facts[name]}, and now {new[name]}" for name in both)
