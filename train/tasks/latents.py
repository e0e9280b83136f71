"""The frozen autoencoder of a model of latents: Stable Diffusion's, as diffusers publishes it."""

from pathlib import Path
from typing import Any

from .._errors import UserError
from .._files import read_json

FACTOR, CHANNELS = 8, 4
"""Pixels along each side of a latent, and its channels."""
SCALE = 0.18215
"""Factor that gives latents of Stable Diffusion a deviation of about 1 (Rombach et al. 2022, arXiv:2112.10752,
appendix G).
"""


def latent_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape of the latents of images."""
    return shape[0] // FACTOR, shape[1] // FACTOR, CHANNELS


def untrained(channels: int) -> Any:
    """The autoencoder without weights, for a dry run."""
    import jax.random as jr

    from eqxgen.configs import AutoencoderConfig
    from eqxgen.models.autoencoder import KLAutoencoder

    return KLAutoencoder(channels, AutoencoderConfig.stable_diffusion(), key=jr.key(0))


def open_autoencoder(where: str, shape: tuple[int, int, int]) -> Any:
    """The autoencoder of a published folder.

    Raises:
        UserError: there is none, or its latents have another shape.
    """
    import equinox as eqx
    import jax

    from eqxgen.pretrained import from_pretrained

    try:
        found = from_pretrained(where, "autoencoder_kl")
    except (ValueError, OSError) as error:
        raise UserError(f"--autoencoder {error}") from None
    latents = eqx.filter_eval_shape(
        lambda model, image: model.encode(image).mean, found, jax.ShapeDtypeStruct(shape, "float32")
    )
    if latents.shape != latent_shape(shape):
        raise UserError(
            f"--autoencoder {where}: must make latents of {latent_shape(shape)} of images of {shape}: got "
            f"{latents.shape}; it is another's"
        )
    return found


def autoencoder_of_run(folder: Path, where: str, shape: tuple[int, int, int]) -> Any:
    """The autoencoder that a run was trained with.

    Raises:
        UserError: that of the path is another now.
    """
    from ..run.weights import digest

    found, known = open_autoencoder(where, shape), read_json(folder / "config.json").get("frozen")
    if digest(found) != known:
        raise UserError(
            f"--run {folder}: its latents are of another autoencoder than {where} is now (SHA-256 {known} and not "
            f"{digest(found)}): give back the file that it was trained with"
        )
    return found
