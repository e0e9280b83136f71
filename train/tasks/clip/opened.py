"""A finished run of `train.clip`: its texts and its model, for search, guidance and ranking."""

from pathlib import Path
from typing import Any

from ..._errors import UsageError
from ..._files import read_json
from ...engine.recipes import Finished, recipe_of
from ..language import vocabulary_of_run
from .published import FOLDER, kept


def opened(folder: str, flag: str) -> Finished:
    """The run of a folder.

    Raises:
        UserError: there is none.
        UsageError: it is of another recipe.
    """
    path = Path(folder) / "config.json"
    record = read_json(path)
    recipe = recipe_of(record, path)
    if recipe.name != "clip":
        raise UsageError(f"{flag} {folder}: is a run of train.{recipe.name}: give one of train.clip")
    return recipe.open(Path(folder), record, path)


def texts_of_run(run: Finished) -> Any:
    """What encodes the texts of a run; see `train.tasks.clip.words`.

    Raises:
        DataError: its file is missing, damaged, or another than the model's.
    """
    if (run.folder / FOLDER).is_dir():
        return kept(run.folder, run.facts.vocabulary)
    return vocabulary_of_run(run.folder, run.facts)


def matcher_of(folder: str, shape: tuple[int, int, int]) -> Finished:
    """The run of a folder, which must match images of a shape.

    Raises:
        UserError: there is none.
        UsageError: it is of another recipe, or of images of another shape.
    """
    run = opened(folder, "--matcher")
    if run.facts.shape != shape:
        sizes = [" x ".join(map(str, each)) for each in (shape, run.facts.shape)]
        raise UsageError(f"--matcher {folder}: must be of images of {sizes[0]}, as the run's: got {sizes[1]}")
    return run
