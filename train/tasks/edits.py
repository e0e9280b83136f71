"""Edits of an image by a denoiser: functions of one example with an `image` in [-1, 1]; see `train.tasks.denoised`.

Each is a module of static numbers, so that equal ones share a program.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int

from eqxgen.diffusion.editing import NullSpace, inpaint, invert, sdedit, slerp
from eqxgen.diffusion.generate import guided
from eqxgen.diffusion.likelihood import dequantised, log_likelihood
from eqxgen.diffusion.solvers import Euler, prior, sample

from .denoised import condition_of, decoded, encoded


class Inverted(NamedTuple):
    """An image's noise, and the image that the same steps make of it.

    Attributes:
        noise: at the first time, of deviation 1.
        image: in [-1, 1].
    """

    noise: Float[Array, "*shape"]
    image: Float[Array, "height width channels"]


class Inpaint(eqx.Module):
    """The image painted where `mask` is True, by RePaint with the eta of the rules' DDIM. The rest is kept, exactly.

    Args:
        jump, repeats: see `eqxgen.diffusion.editing.path_of`.
    """

    jump: int = eqx.field(static=True)
    repeats: int = eqx.field(static=True)

    def __call__(self, tree: Any, example: dict[str, Array]) -> tuple[Float[Array, "height width channels"], Array]:
        image, mask, rules = example["image"], example["mask"], tree[2]
        denoiser, condition, key = _parts(tree, example)
        x = encoded(tree, image)
        found = inpaint(
            denoiser,
            x,
            rules.times,
            mask=_coarse(mask, x.shape),
            key=key,
            condition=condition,
            eta=rules.solver.eta,
            jump=self.jump,
            repeats=self.repeats,
        )
        return jnp.where(mask[..., None], decoded(tree, found.x), image), found.evaluations


class Change(eqx.Module):
    """The image noised to the first time of the rules and denoised again, by SDEdit."""

    def __call__(self, tree: Any, example: dict[str, Array]) -> tuple[Float[Array, "height width channels"], Array]:
        rules, (denoiser, condition, key) = tree[2], _parts(tree, example)
        x = encoded(tree, example["image"])
        found = sdedit(denoiser, x, rules.times, rules.solver, key=key, condition=condition)
        return decoded(tree, found.x), found.evaluations


class Upscale(eqx.Module):
    """An image whose means over blocks are the pixels of `small`, by the null space of the means."""

    def __call__(self, tree: Any, example: dict[str, Array]) -> tuple[Float[Array, "height width channels"], Array]:
        rules, (denoiser, condition, key) = tree[2], _parts(tree, example)
        start, steps = jr.split(key)
        restored = NullSpace(denoiser, example["small"])
        x = prior(denoiser.schedule, rules.times[0], rules.shape, key=start)
        found = sample(restored, x, rules.times, rules.solver, key=steps, condition=condition)
        return found.x, found.evaluations


class Invert(eqx.Module):
    """The noise of the image and its reconstruction, by the probability flow in Euler's steps.

    Args:
        iterations: see `eqxgen.diffusion.editing.invert`.
    """

    iterations: int = eqx.field(static=True)

    def __call__(self, tree: Any, example: dict[str, Array]) -> Inverted:
        times, (denoiser, condition, _) = tree[2].times, _parts(tree, example)
        x = encoded(tree, example["image"])
        noise = invert(denoiser, x, times, condition=condition, iterations=self.iterations).x
        found = sample(denoiser, noise, times, Euler(), condition=condition)
        return Inverted(noise / denoiser.schedule(times[0]).sigma, decoded(tree, found.x))


class Between(eqx.Module):
    """The image of a noise between `a` and `b`, by `share`."""

    def __call__(self, tree: Any, example: dict[str, Array]) -> Float[Array, "height width channels"]:
        times, (denoiser, condition, _) = tree[2].times, _parts(tree, example)
        noise = slerp(example["a"], example["b"], example["share"]) * denoiser.schedule(times[0]).sigma
        return decoded(tree, sample(denoiser, noise, times, Euler(), condition=condition).x)


class Bits(eqx.Module):
    """Bits per dimension of the image by the probability flow, and passes of the network.

    Args:
        levels: of the image.
        probes: of the divergence; 0: exact.
    """

    levels: int = eqx.field(static=True)
    probes: int = eqx.field(static=True)

    def __call__(self, tree: Any, example: dict[str, Array]) -> tuple[Float[Array, ""], Int[Array, ""]]:
        times, (denoiser, condition, key) = tree[2].times, _parts(tree, example)
        noise, probes = jr.split(key)
        x, alpha = dequantised(example["image"], self.levels, key=noise), denoiser.schedule(times[-2]).alpha
        found = log_likelihood(denoiser, alpha * x, times, key=probes, probes=self.probes or None, condition=condition)
        whole = found._replace(log_density=found.log_density + x.size * jnp.log(alpha))
        return whole.bits(self.levels), found.evaluations


def _parts(tree: Any, example: dict[str, Array]) -> tuple[Any, Any, Any]:
    """The guided denoiser, its condition and the key of an example."""
    denoiser, _, rules, key = tree
    condition = condition_of(denoiser, example["label"])
    return guided(denoiser, rules.guide, denoiser.null_label), condition, jr.fold_in(key, example["index"])


def _coarse(mask: Bool[Array, "height width"], shape: tuple[int, ...]) -> Bool[Array, "_ _"]:
    """A mask of pixels as one of latents: True where any of its pixels is."""
    height, width = shape[:2]
    return mask.reshape(height, mask.shape[0] // height, width, mask.shape[1] // width).any((1, 3))
