"""What a run says of itself beside its arrays: the config it is of, and the versions that wrote it."""

import platform
import sys
from pathlib import Path
from typing import Any

from .._errors import UserError
from ..config.base import TrainConfig, flat


def versions() -> dict[str, str]:
    """Of what decides the numbers of a run."""
    import jax

    import eqxgen

    return {"eqxgen": eqxgen.__version__, "jax": jax.__version__, "python": platform.python_version()}


def differences(old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any] | None = None) -> str:
    """The flags that differ between two configs, but those that may; empty where none does.

    Args:
        old: the config of a run, by this version or one that had fewer fields.
        defaults: a config whose values fields have that the old one lacks; without it they are passed over.
    """
    now = flat(new)
    before = flat(now if defaults is None else defaults) | flat(old)
    names = [
        name
        for name in sorted(before.keys() | now.keys())
        if name not in TrainConfig.FREE and before.get(name) != now.get(name)
    ]
    shown = ", ".join(f"--{name.replace('_', '-')} was {before.get(name)} and is {now.get(name)}" for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def check_record(where: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Warns where a checkpoint was written by other versions.

    Raises:
        UserError: it is of another run.
    """
    if {"recipe", "config"} <= old.keys() & new.keys():
        if old["recipe"] != new["recipe"]:
            raise UserError(
                f"checkpoint {where}: is of train.{old['recipe']}, not of train.{new['recipe']}: give another --run-dir"
            )
        if differing := differences(old["config"], new["config"]):
            raise UserError(
                f"checkpoint {where}: is of another config ({differing}): give another --run-dir, or the same flags"
            )
    before, now = old.get("versions", {}), versions()
    if changed := [
        f"{name} {before[name]}, and this is {now[name]}" for name in now if before.get(name, now[name]) != now[name]
    ]:
        print(
            f"warning: checkpoint {where} was written by {'; '.join(changed)}: numbers may differ in their last bits",
            file=sys.stderr,
        )
