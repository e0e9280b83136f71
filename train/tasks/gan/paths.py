"""Images of latents that are near to each other on a path between two."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from eqxgen.metrics import path_points
from eqxgen.models.gan.latents import between

from ..._errors import UsageError


class PathImages(eqx.Module):
    """The images at t and t + epsilon of a path between two latents, as the perceptual path length takes them (Karras
    et al. 2019, arXiv:1812.04948, equations 2 and 3): not truncated, not clipped, with the same noise.

    Args:
        space: w, the line between two style vectors; z, the great circle between two normal latents.
        sampling: t is uniform (full) or 0 (end).
    """

    space: str = eqx.field(static=True)
    sampling: str = eqx.field(static=True)

    def __call__(
        self, tree: Any, example: dict[str, Array]
    ) -> tuple[Float[Array, "height width channels"], Float[Array, "height width channels"]]:
        """Two images that depend on the key, the example's number and its label alone.

        Args:
            tree: ((released generator, key, ...), epsilon).
        """
        (released, key, *_), epsilon = tree
        first_key, second_key, t_key, noise_key = jr.split(jr.fold_in(key, example["index"]), 4)
        net = released.model
        label = None if net.label_embedding is None else example["label"]
        first, second = (jr.normal(key, (net.config.latent_dim,)) for key in (first_key, second_key))
        t = jr.uniform(t_key) if self.sampling == "full" else jnp.zeros(())
        if not hasattr(net, "mapping"):
            points = [between(first, second, t), between(first, second, t + epsilon)]
            return tuple(net.sample(z, label, released.state, key=noise_key) for z in points)
        if self.space == "w":
            styles = path_points(net.style(first, label), net.style(second, label), t, epsilon, spherical=False)
        else:
            styles = tuple(net.style(z, label) for z in path_points(first, second, t, epsilon))
        noise = net.noise(noise_key)
        spread = lambda style: jnp.broadcast_to(style, (net.layers, *style.shape))
        return tuple(net.synthesis(spread(style), noise=noise) for style in styles)


def path_images(family: str, space: str | None, sampling: str) -> PathImages:
    """The path of a family; by default in w where it has style vectors.

    Raises:
        UsageError: w is asked for of a family without style vectors.
    """
    styled = family == "stylegan2"
    if space == "w" and not styled:
        raise UsageError(f"--path-space w must have a model with style vectors, stylegan2: got {family}; give z")
    return PathImages(space or ("w" if styled else "z"), sampling)
