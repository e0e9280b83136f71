"""Models of images: logits, features and reconstructions of one image."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from eqxgen.models.autoencoder import VQAutoencoder


def drawn_image(height: int, width: int, channels: int) -> np.ndarray:
    """A normal image of a fixed seed, for the report of parity."""
    return np.random.default_rng(0).normal(size=(height, width, channels)).astype(np.float32)


def original_outputs(original: Any, image: np.ndarray, **more: np.ndarray) -> Any:
    """Outputs of a transformers model of one image, and of other inputs with a leading axis, as NumPy arrays."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
    with torch.no_grad():
        out = original(pixel_values=pixels, **{name: torch.from_numpy(array) for name, array in more.items()})
    return {name: value.float().numpy() for name, value in out.items() if isinstance(value, torch.Tensor)}


def image_outputs(model: Any, original: Any, height: int, width: int, channels: int) -> dict[str, tuple[Any, Any]]:
    """Logits or features of both on one image."""
    image = drawn_image(height, width, channels)
    found = original_outputs(original, image)
    name = "logits" if "logits" in found else "pooler_output"
    return {name: (model(jnp.asarray(image)), found[name][0])}


def on_latents(model: Any, original: Any) -> dict[str, tuple[Any, Any]]:
    """Latents of an image, and its reconstruction, of autoencoders of the library diffusers."""
    import torch

    image = np.clip(drawn_image(6 * model.factor, 4 * model.factor, model.channels), -1, 1)
    to_ours = lambda array: np.moveaxis(array[0].float().numpy(), 0, -1)
    with torch.no_grad():
        found = original.encode(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None])))
        if isinstance(model, VQAutoencoder):
            pairs = {"latents": (model.latents(jnp.asarray(image)), found.latents)}
            latents = found.latents
        else:
            posterior, latents = model.encode(jnp.asarray(image)), found.latent_dist.mean
            pairs = {
                "mean": (posterior.mean, latents),
                "log variance": (posterior.log_variance, found.latent_dist.logvar),
            }
        pairs["image"] = (model(jnp.asarray(image))[0], original.decode(latents).sample)
    return {name: (ours, to_ours(theirs)) for name, (ours, theirs) in pairs.items()}


def on_noise(model: Any, original: Any) -> dict[str, tuple[Any, Any]]:
    """Output of a denoiser of a noisy latent, at one time, for one label."""
    import torch

    x = drawn_image(model.height, model.width, model.channels)
    time, label = 417.0, model.classes // 2
    with torch.no_grad():
        noisy = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)[None]))
        given = {"timestep": torch.tensor([time]), "class_labels": torch.tensor([label])}
        theirs = original(noisy, **given).sample[0].float().numpy()
    ours = model(jnp.asarray(x), jnp.asarray(time), jnp.asarray(label))
    return {"noise": (ours, np.moveaxis(theirs, 0, -1))}
