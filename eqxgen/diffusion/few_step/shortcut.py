"""Shortcut models (Frans et al. 2024, arXiv:2410.12557): the average velocity over 2d is the mean of those over its two
halves. The paper trains a quarter of a batch so, and the rest by flow matching, r = t.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.diffusion.few_step.meanflow import Average


def shortcut_target(
    average: Average,
    z: Float[Array, "*shape"],
    t: Float[Array, ""],
    r: Float[Array, ""],
    condition: Any = None,
    *,
    shortest: float = 0.0,
) -> Float[Array, "*shape"]:
    """Average velocity from t to r by two steps of half the length, held still.

    Args:
        shortest: least interval that is trained; its halves, which are not, are steps of the velocity (section 3.2).
    """
    half = (t + r) / 2
    end = lambda start, end: jnp.where(t - r <= shortest, start, end)
    first = average(z, t, end(t, half), condition)
    second = average(z - (t - half) * first, half, end(half, r), condition)
    return jax.lax.stop_gradient((first + second) / 2)


def shortcut_loss(
    average: Average,
    x0: Float[Array, "*shape"],
    t: Float[Array, ""],
    r: Float[Array, ""],
    condition: Any = None,
    *,
    noise: Float[Array, "*shape"],
    velocity: Float[Array, "*shape"] | None = None,
    teacher: Average | None = None,
    shortest: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """Mean squared error: of the velocity where r = t, else of consistency with the halves.

    Args:
        average: in training mode.
        x0: example.
        t, r: times, r <= t; t - r is a power of a half in the paper.
        condition: label, or None.
        noise: standard normal.
        velocity: that of the path, such as `guided_velocity`; noise - x_0 by default.
        teacher: gives the target, such as averaged weights in inference mode; the model itself by default.
        shortest: as `shortcut_target`.
        key: of dropout.
    """
    z = (1 - t) * x0 + t * noise
    velocity = noise - x0 if velocity is None else velocity
    halves = shortcut_target(teacher or average, z, t, r, condition, shortest=shortest)
    target = jnp.where(r == t, velocity, halves)
    return jnp.mean(jnp.square(average(z, t, r, condition, key=key) - target))
