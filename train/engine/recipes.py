"""The recipes whose models and runs this version can open: a fixed list, so that no file can name code to run."""

import importlib
from typing import Any

from .._errors import UserError

RECIPES = ("gpt", "maskgit", "rnn", "vqgan")


def recipe_of(record: Any, where: object) -> Any:
    """The module of the recipe that a run's record or a model's description names.

    Raises:
        UserError: it names none of ours; `where` is named.
    """
    recipe = record.get("recipe") if isinstance(record, dict) else None
    if recipe not in RECIPES:
        raise UserError(f"{where}: expected the config of a run of {', '.join(RECIPES)}: got recipe {recipe!r}")
    return importlib.import_module(f"...{recipe}", __name__)
