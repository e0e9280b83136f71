"""Consistency models: a denoiser with the same x_0 all along a path (Song et al. 2023, arXiv:2303.01469), trained
without a teacher on pairs of levels with one noise (Song and Dhariwal 2024, arXiv:2310.14189), or distilled along a
teacher's path.

The boundary, x itself without noise, is that of EDM's preconditioning. The target is the model's own, held still, not
that of averaged weights.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.diffusion.distances import pseudo_huber
from eqxgen.diffusion.views import divisor, epsilon_of
from eqxgen.protocols import Denoiser


def consistency_loss(
    denoiser: Denoiser,
    x0: Float[Array, "*shape"],
    t: Float[Array, ""],
    s: Float[Array, ""],
    condition: Any = None,
    *,
    noise: Float[Array, "*shape"],
    teacher: Denoiser | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """Pseudo-Huber distance of the denoised examples of two levels, over the difference of their times.

    Args:
        denoiser: in training mode.
        x0: example.
        t, s: times of the denoiser's schedule, s < t; the closer, the less biased and the noisier.
        condition: label, or None.
        noise: standard normal.
        teacher: its path leads from x_t to x_s, by a step of Heun's; without one, x_s has the noise of x_t.
        key: of dropout, the same for both levels.
    """
    schedule = denoiser.schedule
    x = schedule(t).diffuse(x0, noise)
    before = schedule(s).diffuse(x0, noise) if teacher is None else taught(teacher, x, t, s, condition)
    target = jax.lax.stop_gradient(denoiser(before, s, condition, key=key))
    width = 0.00054 * math.sqrt(x0.size)
    error = denoiser(x, t, condition, key=key) - target
    # Of the whole vector, as in the paper.
    distance = pseudo_huber(jnp.sqrt(jnp.sum(jnp.square(error)) + 1e-20), width)
    return distance / divisor(t - s)


def taught(
    teacher: Denoiser, x: Float[Array, "*shape"], t: Float[Array, ""], s: Float[Array, ""], condition: Any = None
) -> Float[Array, "*shape"]:
    """x_s of a step of Heun's along a teacher's path."""
    start, end = teacher.schedule(t), teacher.schedule(s)
    slope = lambda x, t: epsilon_of(x, teacher(x, t, condition, inference=True), teacher.schedule(t))
    first = slope(x, t)
    # In x / alpha the path's slope in sigma / alpha is the noise.
    step = end.ratio - start.ratio
    guess = end.alpha * (x / start.alpha + step * first)
    second = slope(guess, s)
    return jax.lax.stop_gradient(end.alpha * (x / start.alpha + step * (first + second) / 2))
