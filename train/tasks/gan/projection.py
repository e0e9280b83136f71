"""Latent of a generator whose image is nearest to a given one."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int

FRAMES = 7
"""Images of a projection, the last of which is the result."""
DRAWN = 256
"""Latents that are drawn for the start."""


class Projected(NamedTuple):
    """A latent and the images on the way to it.

    Attributes:
        latent: a style vector of StyleGAN2, otherwise a normal latent.
        images: after evenly spaced steps, in about [-1, 1].
    """

    latent: Float[Array, " dim"]
    images: Float[Array, "frames height width channels"]


class Projection(eqx.Module):
    """Projection of an image by gradient descent (Karras et al. 2020, arXiv:1912.04958, appendix D).

    Adam with a rate of 0.1 that rises over the first twentieth and falls over the last quarter of the steps; noise of
    0.05 deviations is added to the latent, and falls to 0 over three quarters of them. A style vector of StyleGAN2
    starts at the mean of the class. A latent of another generator starts at the nearest of 256 and keeps the length
    that normal latents have.

    Where we differ: the distance is the squared error of the images and of their halvings by means, not LPIPS, which
    needs weights; the noise of the synthesis is drawn once and not optimised.
    """

    def __call__(self, tree: Any, example: dict[str, Array]) -> Projected:
        """The projection of `image`, of a `label`, in `steps` steps.

        Args:
            tree: the released generator, and a key.
        """
        released, key = tree
        start_key, noise_key, key = jr.split(jr.fold_in(key, example["index"]), 3)
        generate, latents = _generator(released, example["label"], start_key, noise_key)
        target = example["image"]

        def distance(latent: Array) -> Array:
            return pyramid_distance(generate(latent), target)

        start, deviation = _start(latents, hasattr(released.model, "mapping"), distance)
        steps = example["steps"].astype(jnp.float32)
        rule = optax.scale_by_adam(0.9, 0.999)

        def step(number: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            latent, moments = carry
            done = number / steps
            noise = 0.05 * deviation * jnp.maximum(0, 1 - done / 0.75) ** 2
            noisy = latent + noise * jr.normal(jr.fold_in(key, number), latent.shape)
            change, moments = rule.update(jax.grad(distance)(noisy), moments)
            return latent - 0.1 * _rate(done) * jnp.asarray(change), moments

        def frame(carry: tuple[Array, Any], ends: tuple[Array, Array]) -> tuple[tuple[Array, Any], Array]:
            carry = jax.lax.fori_loop(*ends, step, carry)
            return carry, generate(carry[0])

        ends = example["steps"] * jnp.arange(FRAMES + 1) // FRAMES
        (latent, _), images = jax.lax.scan(frame, (start, rule.init(start)), (ends[:-1], ends[1:]))
        return Projected(latent, images)


def pyramid_distance(
    first: Float[Array, "height width channels"], second: Float[Array, "height width channels"]
) -> Float[Array, ""]:
    """Mean squared error of two images, summed over them and their halvings while both sides are even."""
    total, difference = jnp.zeros(()), first - second
    while True:
        total = total + jnp.mean(difference**2)
        height, width, channels = difference.shape
        if height % 2 or width % 2:
            return total
        difference = difference.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def _generator(released: Any, label: Int[Array, ""], start_key: Any, noise_key: Any) -> tuple[Any, Array]:
    """Image of a latent, and latents of the class that are drawn."""
    net = released.model
    given = None if net.label_embedding is None else label
    latents = jr.normal(start_key, (DRAWN, net.config.latent_dim))
    if not hasattr(net, "mapping"):
        of_length = lambda z: z * jnp.sqrt(z.size / jnp.sum(z**2))
        return lambda z: net.sample(of_length(z), given, released.state, key=noise_key), latents
    noise = net.noise(noise_key)
    spread = lambda style: jnp.broadcast_to(style, (net.layers, *style.shape))
    return lambda style: net.synthesis(spread(style), noise=noise), jax.vmap(lambda z: net.style(z, given))(latents)


def _start(latents: Array, styles: bool, distance: Any) -> tuple[Array, Array]:
    """First latent, and the deviation of the drawn ones from their mean."""
    mean = jnp.mean(latents, axis=0)
    if styles:
        return mean, jnp.sqrt(jnp.mean(jnp.sum((latents - mean[None]) ** 2, axis=1)))
    return latents[jnp.argmin(jax.lax.map(distance, latents))], jnp.ones(())


def _rate(done: Float[Array, ""]) -> Float[Array, ""]:
    """Share of the rate after a share of the steps."""
    falls = jnp.minimum(1, (1 - done) / 0.25)
    return (0.5 - 0.5 * jnp.cos(jnp.pi * falls)) * jnp.minimum(1, done / 0.05)
