"""Folders in Hugging Face's layout: config.json, and weights in one file or several with an index."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqxgen._files import atomic
from eqxgen.pretrained import formats
from eqxgen.pretrained.formats import flax_msgpack, safetensors
from eqxgen.pretrained.formats.stored import Stored, printable, refused

CONFIG = "config.json"
DIFFUSERS = "diffusion_pytorch_model.safetensors"
FLAX = "flax_model.msgpack"
WEIGHTS = ("model.safetensors", DIFFUSERS, "pytorch_model.bin", "diffusion_pytorch_model.bin", FLAX)
"""Names of the files of weights, of which the first that is there is read."""
JSON_BYTES = 64 * 2**20


def open_arrays(source: Path, key: str | None = None) -> dict[str, Stored]:
    """Every array of a folder or a file, by its published name; none is read yet. See `opened`."""
    return opened(source, key)[0]


def opened(source: Path, key: str | None = None) -> tuple[dict[str, Stored], dict[str, str]]:
    """Every array of a folder or a file, by its published name; and by name the reason for what a file has beside them.

    Args:
        source: the file, or a folder with one of `WEIGHTS`, an index of several, or a single file of weights.
        key: of the dictionary within a file that holds several.

    Raises:
        ValueError: a file is missing or damaged, or the index names one outside the folder.
    """
    arrays: dict[str, Stored] = {}
    beside: dict[str, str] = {}
    for path in weight_files(source):
        found, left = formats.opened(path, key)
        beside |= left
        if twice := sorted(arrays.keys() & found.keys()):
            raise ValueError(f"{path}: array {twice[0]} must be in one file: it is in another of the index too")
        arrays |= found
    return arrays, beside


def weight_files(source: Path) -> list[Path]:
    """The files of weights of a folder, or the file itself.

    Raises:
        ValueError: there is none, or the index names one outside the folder.
    """
    if not source.is_dir():
        return [source]
    for name in WEIGHTS:
        if (index := source / f"{name}.index.json").exists():
            return [source / name for name in _indexed(index, Path(name).suffix)]
        if (source / name).is_file():
            return [source / name]
    found = sorted(path for path in source.iterdir() if path.suffix in formats.FORMATS)
    if len(found) > 1:
        raise ValueError(
            f"{source}: must have one of {', '.join(WEIGHTS)}: got {len(found)} others; give the file itself"
        )
    if not found:
        raise ValueError(f"{source / WEIGHTS[0]}: no such file: expected the weights of a published model")
    return found


def _indexed(index: Path, suffix: str) -> list[str]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise refused(index, "a weight_map of names to files", str(names)[:80], "fetch it again")
    for name in names.values():
        if not isinstance(name, str) or os.path.basename(name) != name or not name.endswith(suffix):
            raise ValueError(printable(f"{index}: must name {suffix} files in the same folder: got {str(name)[:80]!r}"))
    return sorted(set(names.values()))


def config_of(source: Path) -> Path:
    """The config.json of a folder, or beside a file."""
    return (source if source.is_dir() else source.parent) / CONFIG


def weights_name(config: Mapping[str, Any]) -> str:
    """Name of the file of weights beside a config.json: diffusers', flax's or transformers'."""
    if config.get("library") == "flax":
        return FLAX
    return DIFFUSERS if "_class_name" in config else WEIGHTS[0]


def write_arrays(path: Path, config: Mapping[str, Any], arrays: Mapping[str, Stored]) -> None:
    """Writes a file of weights in the format that goes with a config.json: flax's msgpack, or safetensors.

    Raises:
        OSError: the disk refuses.
        ValueError: an array is of a type that the format is without.
    """
    if weights_name(config) == FLAX:
        flax_msgpack.write(path, arrays)
    else:
        safetensors.write(path, arrays, {"format": "pt"})


def write(folder: Path, config: Mapping[str, Any], arrays: Mapping[str, Stored]) -> None:
    """Writes config.json and the weights for `from_pretrained` of the family's library, each whole or not at all.

    Raises:
        OSError: the disk refuses; an older file is untouched.
    """
    with atomic(folder / weights_name(config)) as part:
        write_arrays(part, config, arrays)
    with atomic(folder / CONFIG) as part:
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file of a published folder.

    Raises:
        ValueError: there is none.
    """
    try:
        if path.stat().st_size > JSON_BYTES:
            raise ValueError(f"more than {JSON_BYTES:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: expected the folder of a published model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a JSON object: got {type(values).__name__}")
    return values
