"""Folders in Hugging Face's layout: config.json, and weights in one safetensors file or several with an index."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from eqxgen._files import atomic

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_JSON_BYTES = 64 * 2**20


def read_config(folder: Path, family: str) -> dict[str, Any]:
    """Values of config.json.

    Raises:
        ValueError: the file is missing, is no JSON object, or is of another family.
    """
    values = _read_json(folder / CONFIG)
    if values.get("model_type") != family:
        raise ValueError(f"{folder / CONFIG}: model_type must be {family!r}: got {values.get('model_type')!r}")
    return values


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Every array, by its published name.

    Raises:
        ValueError: a file is missing or damaged, or the index names one outside the folder.
        ModuleNotFoundError: safetensors is not installed.
    """
    names = [WEIGHTS]
    if (folder / INDEX).exists():
        try:
            names = sorted({str(name) for name in _read_json(folder / INDEX)["weight_map"].values()})
        except (KeyError, AttributeError) as error:
            raise ValueError(f"{folder / INDEX}: must have a weight_map of names to files: {error}") from None
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        if os.path.basename(name) != name or not name.endswith(".safetensors"):
            raise ValueError(f"{folder / INDEX}: must name .safetensors files in the same folder: got {name!r}")
        arrays |= _read_file(folder / name)
    return arrays


def write(folder: Path, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes config.json and model.safetensors for `from_pretrained` of the family's library, each whole or not at all.

    Raises:
        OSError: the disk refuses; an older file is untouched.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with atomic(folder / WEIGHTS) as part:
        try:
            save_file(whole, part, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from None
    with atomic(folder / CONFIG) as part:
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def take(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], where: Path) -> np.ndarray:
    """Removes an array from the table and returns it in the type that it is stored in.

    Raises:
        ValueError: it is missing, has another shape, or is not floating-point.
    """
    if name not in arrays:
        raise ValueError(f"{where}: array {name} is missing: is it a model of the family that its config names?")
    array = arrays.pop(name)
    if array.shape != shape or not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"{where}: array {name} must be floating-point{list(shape)}, as the config says: got "
            f"{array.dtype}{list(array.shape)}"
        )
    return array


def _read_file(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'no module {error.name}: pip install "eqxgen[train]"', name=error.name) from None
    if not path.is_file():
        raise ValueError(f"{path}: no such file: expected the weights of a published model")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: this file is damaged: {error}; fetch it again") from None


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
