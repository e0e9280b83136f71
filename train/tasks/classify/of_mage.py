"""Classifiers on the encoder of a run of `train.mage`, and on its tokenizer, as the run's folder has them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.models import MAGE, MAGEClassifier, PixelTokenizer
from eqxgen.pretrained.formats import safetensors

from ..._errors import UsageError, UserError
from ..._files import read_json
from ...engine.recipes import built, named
from ..facts import ClassifierFacts, TokenFacts
from ..tokenizers import COPY, PUBLISHED, check_tokenizer, load_tokenizer

KEPT = ("recipe", "config", "facts")
"""What a description says of a model."""


def described(config: Any, folder: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """The MAGE and the tokenizer that `--from` names, as their files describe them; those of a run that has begun are
    in its config.json.

    Args:
        folder: of the run.
        shape: of the images.

    Raises:
        UsageError: `--from` is no run of `train.mage`, nor of a classifier on one; or it has a published tokenizer.
        UserError: its images have another shape, or its files cannot be read.
    """
    began = folder / "config.json"
    if began.is_file() and (known := read_json(began).get("facts", {}).get("mage")):
        return known
    path = Path(str(config.start_from)).expanduser()
    record = _record(path)
    if record.get("recipe") == "classify" and (known := record.get("facts", {}).get("mage")):
        found = known
    elif record.get("recipe") == "mage":
        facts = named("mage").open(path, record, f"--from {config.start_from}").facts
        found = {"model": _kept(record)} | _tokenizer(path if path.is_dir() else path.parent, facts)
    else:
        raise UsageError(f"--backbone mage goes with --from, a run of train.mage: got {config.start_from}")
    theirs = tuple(found["model"]["facts"]["image_shape"])
    if theirs != shape:
        raise UserError(
            f"--from {config.start_from}: is for images of {theirs} (height, width, channels), but those of "
            f"{config.data.name} are {shape}: give the same --data.image-size, or train it on this data"
        )
    return found


def net_of_mage(facts: ClassifierFacts, key: PRNGKeyArray) -> MAGEClassifier:
    """The classifier of a run, with drawn weights.

    Raises:
        UserError: the run's description is of no model that this version can build.
    """
    where, parts = Path("config.json"), facts.mage or {}
    model = built(parts.get("model"), where, key)
    if not isinstance(model, MAGE):
        raise UserError(f"{where}: facts.mage.model must be of train.mage: got {type(model).__name__}; was it edited?")
    levels = parts["model"]["facts"]["codes"]
    tokenizer = built(parts["tokenizer"], where, key) if "tokenizer" in parts else PixelTokenizer(*facts.shape, levels)
    return MAGEClassifier(tokenizer, model, facts.classes, key=key)


def _record(path: Path) -> dict[str, Any]:
    """What a run, or a file that it wrote, says of itself; nothing where there is neither."""
    if path.is_dir():
        return read_json(path / "config.json") if (path / "config.json").is_file() else {}
    return _description(path) if path.is_file() else {}


def _description(path: Path) -> dict[str, Any]:
    try:
        return json.loads(safetensors.open_file(path)[1].get("eqxgen", "{}"))
    except (OSError, ValueError) as error:
        raise UserError(f"--from {error}; restore it from a copy") from None


def _kept(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in KEPT if name in record}


def _tokenizer(folder: Path, facts: TokenFacts) -> dict[str, Any]:
    """The tokenizer beside a run, which must be the one that it began with; nothing where its tokens are pixels."""
    if (folder / PUBLISHED).exists():
        raise UsageError(
            f"--from {folder}: must have the tokenizer of a run of train.vqgan, or pixels: got a published one"
        )
    if facts.tokenizer is None:
        return {}
    if not (folder / COPY).is_file():
        raise UserError(f"--from {folder}: has no {COPY}, which its run began with: put it back beside the model")
    check_tokenizer(load_tokenizer(folder / COPY, f"--from {folder}"), facts, f"--from {folder / COPY}")
    return {"tokenizer": _kept(_description(folder / COPY))}
