"""Inpainting by an unconditional denoiser: RePaint."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.diffusion.solvers.driver import Context, Sample, Times, checked, memory_of, number
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.protocols import Denoiser


def path_of(steps: int, jump: int = 10, repeats: int = 10) -> np.ndarray:
    """Places of the grid in the order of RePaint (Lugmayr et al. 2022, arXiv:2201.09865, appendix B): down by one step
    at a time, and at each `jump` steps up again by `jump`, `repeats - 1` times.

    Args:
        steps: of the grid; place 0 is noise, place `steps` data.
        jump: steps of a jump.
        repeats: passes over each stretch; 1 has no jumps.

    Raises:
        ValueError: a number is below 1, or jump is above steps.
    """
    for name, value in (("jump", jump), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    if jump > steps:
        raise ValueError(f"jump must be at most the number of steps, {steps}: got {jump}")
    left = dict.fromkeys(range(0, steps - jump, jump), repeats - 1)  # by the steps that remain to data
    remain, path = steps, [0]
    while remain > 0:
        remain -= 1
        path.append(steps - remain)
        if left.get(remain, 0) > 0:
            left[remain] -= 1
            for _ in range(jump):
                remain += 1
                path.append(steps - remain)
    return np.asarray(path)


def inpaint(
    denoiser: Denoiser,
    image: Float[Array, "*shape"],
    times: Times,
    *,
    mask: Bool[Array, "*mask"],
    key: PRNGKeyArray,
    condition: Any = None,
    eta: float | int | Float[Array, ""] = 1.0,
    jump: int = 10,
    repeats: int = 10,
) -> Sample:
    """An image whose part under a mask is painted to fit the rest (RePaint: Lugmayr et al. 2022, algorithm 1).

    After each step the rest is replaced by the image at that level. Jumps up in noise and down again bring the two into
    agreement. Pixels outside the mask are the image's, exactly.

    Args:
        image: (height, width, channels); values under the mask are ignored, and must be finite.
        times: grid, from noise to 0; the first should be noise.
        mask: (height, width), or the shape of the image; True where the image is painted. The paper's mask is the
            opposite.
        key: of this image.
        condition: what the denoiser takes.
        eta: of DDIM, from 0 to 1, traced.
        jump, repeats: see `path_of`.

    Raises:
        ValueError: the mask has another shape, a number is out of range, the times do not fall.
    """
    if mask.shape not in (image.shape, image.shape[:-1], (*image.shape[:-1], 1)):
        raise ValueError(
            f"mask must have the image's shape, with or without channels: got {mask.shape} for {image.shape}"
        )
    mask = jnp.broadcast_to(mask if mask.ndim == image.ndim else mask[..., None], image.shape)
    times = checked(times)
    image = widen(image)
    eta = number(eta, "eta", 0, 1)
    path = path_of(len(times) - 1, jump, repeats)
    draw = lambda key: jr.normal(key, image.shape, image.dtype)

    def advance(carry: tuple, part: tuple) -> tuple:
        (x, spent, memory), (index, t, s) = carry, part
        here = jr.fold_in(key, index)
        fresh = draw(jr.fold_in(here, 0))
        a, b = denoiser.schedule(t), denoiser.schedule(s)

        def down() -> tuple[Array, Any, Any]:
            context = Context(denoiser, condition, lambda *_: fresh, index, len(path), memory)
            new = Interval(a, b).jump(x, context(x, t), eta, fresh)
            kept = b.diffuse(image, draw(jr.fold_in(here, 1)))
            return jnp.where(mask, new, kept).astype(x.dtype), jnp.asarray(context.spent, jnp.int32), context.remembered

        def up() -> tuple[Array, Any, Any]:
            scale = b.alpha / a.alpha
            added = jnp.sqrt(jnp.maximum(b.sigma**2 - (scale * a.sigma) ** 2, 0))
            return (scale * x + added * fresh).astype(x.dtype), jnp.int32(0), memory

        x, more, memory = jax.lax.cond(s < t, down, up)
        return (x, spent + more, memory), None

    first = denoiser.schedule(times[0])
    x = jnp.where(
        mask,
        first.sigma * draw(jr.fold_in(key, len(path) + 1)),
        first.diffuse(image, draw(jr.fold_in(key, len(path)))),
    )
    parts = jnp.arange(len(path) - 1, dtype=jnp.int32), times[path[:-1]], times[path[1:]]
    x = x.astype(image.dtype)
    (x, spent, _), _ = jax.lax.scan(advance, (x, jnp.int32(0), memory_of(denoiser, x)), parts)
    return Sample(x, spent, None)
