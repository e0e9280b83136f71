"""A trained model as one safetensors file with its description inside."""

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from .._errors import UserError
from .._files import write_atomically
from ..parallel import spec_of
from ..parallel.processes import is_first, on_host
from ..params.paths import named_arrays


def with_arrays(tree: PyTree, arrays: dict[str, Any]) -> PyTree:
    """The tree with its arrays replaced by those of the same path."""
    wanted, rest = eqx.partition(tree, lambda x: eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct))
    names = list(named_arrays(wanted))
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(wanted), [arrays[name] for name in names]), rest)


def save_model(path: Path, model: PyTree, description: dict[str, Any]) -> None:
    """Writes the model's arrays, and the description as JSON in the file's metadata; of several processes the first
    writes.

    Raises:
        UserError: the disk refuses; an older file is untouched.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {name: on_host(leaf) for name, leaf in named_arrays(model).items()}

    def write(part: Path) -> None:
        try:
            save_file(arrays, part, metadata={"eqxgen": json.dumps(description)})
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from None

    if is_first():
        write_atomically(path, write)


def digest(tree: PyTree) -> str | None:
    """SHA-256 of the arrays of a tree with their paths, shapes and types; None where it has none."""
    arrays = named_arrays(tree)
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(on_host(array)).tobytes())
    return total.hexdigest() if arrays else None


def load_model(
    path: Path, build: Callable[[dict[str, Any]], PyTree], mesh: Mesh | None = None
) -> tuple[PyTree, dict[str, Any]]:
    """The model of a file that `save_model` wrote, and its description.

    Args:
        build: from the description to a model of the same shapes.
        mesh: gives each device its part of the arrays, as in training; by default they are whole on one device.

    Raises:
        UserError: there is no such file; it is damaged or not ours; its description or its arrays are not the model's.
    """
    from eqxgen.pretrained.formats import safetensors
    from eqxgen.pretrained.table import placed

    if not path.is_file():
        raise UserError(f"{path}: no such file: expected a model that a finished run wrote")
    try:
        arrays, metadata = safetensors.open_file(path)
        description = json.loads(metadata.get("eqxgen", "null"))
    except (OSError, ValueError) as error:
        said = error if str(path) in str(error) else f"{path}: this file is damaged: {error}"
        raise UserError(f"{said}; train again, or restore it from a copy") from None
    if not isinstance(description, dict):
        raise UserError(
            f"{path}: expected a model that eqxgen saved, with its description in the metadata, but there is none"
        )
    try:
        shapes = eqx.filter_eval_shape(build, description)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{path}: its description is of no model that this version can build ({reason}); was it edited?"
        ) from None
    check_arrays(path, {name: (leaf.shape, leaf.dtype) for name, leaf in named_arrays(shapes).items()}, arrays)
    place = lambda name, shape: None if mesh is None else NamedSharding(mesh, spec_of(name, shape, mesh))
    found = {name: placed(stored, stored.dtype, place(name, stored.shape)) for name, stored in arrays.items()}
    return with_arrays(shapes, found), description


def check_arrays(
    where: Path,
    expected: dict[str, tuple],
    arrays: dict[str, Any],
    hint: Callable[[str], str] = lambda name: "the file is of another model",
) -> None:
    """Raises `UserError` that names the first array that is missing, unexpected, or of another shape or type.

    Args:
        hint: for the array of a name.
    """
    for name, (shape, dtype) in expected.items():
        if name not in arrays:
            raise UserError(f"{where}: array {name} is missing: {hint(name)}")
        if (arrays[name].shape, arrays[name].dtype) != (shape, dtype):
            got = f"{arrays[name].dtype}{list(arrays[name].shape)}"
            raise UserError(f"{where}: array {name} must be {dtype}{list(shape)}: got {got}; {hint(name)}")
    if extra := sorted(arrays.keys() - expected.keys()):
        raise UserError(f"{where}: array {extra[0]} is not of this model; {hint(extra[0])}")
