"""Frozen encoders of images: the model of a finished run or of a published folder, opened by a flag."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from eqxgen.models.autoencoder import KLAutoencoder
from eqxgen.pretrained import from_pretrained
from eqxgen.pretrained.formats import safetensors

from ..._errors import UserError
from ..._files import read_json
from ...engine.recipes import load

MODEL = "model.safetensors"


def is_run(where: Path) -> bool:
    """True for the folder of a run, and for a file of a model that a run wrote."""
    if where.is_dir():
        record = where / "config.json"
        return record.is_file() and "recipe" in read_json(record)
    if where.suffix != ".safetensors" or not where.is_file():
        return False
    try:
        return "eqxgen" in safetensors.open_file(where)[1]
    except (OSError, ValueError):
        return True  # to be opened, and refused with the reason


def is_published(where: Path) -> bool:
    """True for a folder or a file of a published model."""
    return (where.is_file() or (where / "config.json").is_file()) and not is_run(where)


def open_encoder(where: str | Path, flag: str, family: str | None = None) -> Any:
    """The model of a run, or of a published folder.

    Args:
        flag: that names it, for errors.
        family: of the published model; by default the one of its config.json.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = Path(where).expanduser()
    if is_run(path):
        return load(path / MODEL if path.is_dir() else path, where=f"{flag} {where}")
    try:
        return from_pretrained(path, family)
    except (ValueError, OSError) as error:
        raise UserError(f"{flag} {error}") from None


def latents_shape(
    model: KLAutoencoder, shape: tuple[int, int, int], flag: str, where: str | Path
) -> tuple[int, int, int]:
    """Height, width and channels of the latents of images of a shape.

    Raises:
        UserError: the images have other channels, or sides that the autoencoder's factor does not divide.
    """
    if model.channels != shape[2] or shape[0] % model.factor or shape[1] % model.factor:
        raise UserError(
            f"{flag} {where}: is for images of {model.channels} channels whose sides {model.factor} divides: got "
            f"{shape} (height, width, channels); give --data.image-size, or another autoencoder"
        )
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    height, width, channels = eqx.filter_eval_shape(lambda m, x: m.encode(x).mean, model, image).shape
    return height, width, channels


def in_float32(model: Any) -> Any:
    """The model with its floating-point arrays in float32 where they have fewer bits."""
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)) if eqx.is_inexact_array(x) else x
    return jax.tree.map(wide, model)
