"""Folders in Hugging Face's layout: config.json, and weights in one safetensors file or several with an index."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eqxgen._files import atomic
from eqxgen.pretrained.formats import safetensors
from eqxgen.pretrained.formats.stored import Stored, refused

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_JSON_BYTES = 64 * 2**20


def read_config(folder: Path) -> dict[str, Any]:
    """Values of config.json.

    Raises:
        ValueError: the file is missing or no JSON object.
    """
    return _read_json(folder / CONFIG)


def open_arrays(folder: Path) -> dict[str, Stored]:
    """Every array, by its published name; none is read yet.

    Raises:
        ValueError: a file is missing or damaged, or the index names one outside the folder.
    """
    names = [WEIGHTS]
    if (folder / INDEX).exists():
        index = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise refused(folder / INDEX, "a weight_map of names to files", str(index)[:80], "fetch it again")
        names = sorted({str(name) for name in index.values()})
    arrays: dict[str, Stored] = {}
    for name in names:
        if os.path.basename(name) != name or not name.endswith(".safetensors"):
            raise ValueError(f"{folder / INDEX}: must name .safetensors files in the same folder: got {name!r}")
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file: expected the weights of a published model")
        arrays |= safetensors.open_file(folder / name)[0]
    return arrays


def write(folder: Path, config: Mapping[str, Any], arrays: Mapping[str, Stored]) -> None:
    """Writes config.json and model.safetensors for `from_pretrained` of the family's library, each whole or not at all.

    Raises:
        OSError: the disk refuses; an older file is untouched.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(array.read(...)) for name, array in arrays.items()}
    with atomic(folder / WEIGHTS) as part:
        try:
            save_file(whole, part, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from None
    with atomic(folder / CONFIG) as part:
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise ValueError(f"more than {_JSON_BYTES:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: expected the folder of a published model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a JSON object: got {type(values).__name__}")
    return values
