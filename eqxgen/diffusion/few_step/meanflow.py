"""MeanFlow: the average velocity of a flow (Geng et al. 2025, arXiv:2505.13447), and its improved form, a loss of the
velocity (Geng et al. 2025, arXiv:2512.02012).

    u(z, t, r) = v(z, t) - (t - r) du/dt,   du/dt = v ∂u/∂z + ∂u/∂t

du/dt is one forward-mode product, in float32 at least, with the same dropout key as the value.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen

Average = Callable[..., Array]
"""(z, t, r, condition, key=) -> average velocity from t down to r."""


def total_derivative(
    average: Average,
    z: Float[Array, "*shape"],
    t: Float[Array, ""],
    r: Float[Array, ""],
    velocity: Float[Array, "*shape"],
    condition: Any = None,
    *,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """u, and du/dt along the velocity."""
    z = widen(z)
    one = jnp.ones_like(t)
    call = lambda z, t, r: average(z, t, r, condition, key=key)
    return jax.jvp(call, (z, t, r), (velocity.astype(z.dtype), one, jnp.zeros_like(r)))


def meanflow_loss(
    average: Average,
    x0: Float[Array, "*shape"],
    t: Float[Array, ""],
    r: Float[Array, ""],
    condition: Any = None,
    *,
    noise: Float[Array, "*shape"],
    velocity: Float[Array, "*shape"] | None = None,
    power: float = 1.0,
    least: float = 1e-3,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """Squared error of u, weighted by 1 / (error + least)^power, which is held still (section 4.3).

    Args:
        average: in training mode.
        x0: example.
        t, r: times, r <= t; r = t in 25 to 75 % of a batch is flow matching.
        condition: label, or None.
        noise: standard normal.
        velocity: that of the path, such as `guided_velocity`; noise - x_0 by default.
        power: 0 is the plain squared error.
        least: bound of the weight.
        key: of dropout.
    """
    velocity = noise - x0 if velocity is None else velocity
    u, change = total_derivative(average, (1 - t) * x0 + t * noise, t, r, velocity, condition, key=key)
    target = jax.lax.stop_gradient(velocity - (t - r) * change)
    return adaptive(jnp.sum(jnp.square(u - target)), power, least)


def improved_meanflow_loss(
    average: Average,
    x0: Float[Array, "*shape"],
    t: Float[Array, ""],
    r: Float[Array, ""],
    condition: Any = None,
    *,
    noise: Float[Array, "*shape"],
    velocity: Float[Array, "*shape"] | None = None,
    power: float = 1.0,
    least: float = 1e-3,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """Squared error of the velocity u + (t - r) du/dt against that of the path, with du/dt along the model's own
    velocity u(z, t, t) and held still; arguments as `meanflow_loss`.
    """
    z = (1 - t) * x0 + t * noise
    own = jax.lax.stop_gradient(average(z, t, t, condition, key=key))
    u, change = total_derivative(average, z, t, r, own, condition, key=key)
    found = u + (t - r) * jax.lax.stop_gradient(change)
    velocity = noise - x0 if velocity is None else velocity
    return adaptive(jnp.sum(jnp.square(found - velocity)), power, least)


def adaptive(error: Float[Array, ""], power: float, least: float) -> Float[Array, ""]:
    """The error over (error + least)^power, whose divisor is held still."""
    return error / jax.lax.stop_gradient((error + least) ** power)


def guided_velocity(
    average: Average,
    z: Float[Array, "*shape"],
    t: Float[Array, ""],
    velocity: Float[Array, "*shape"],
    condition: Any,
    null: Any,
    *,
    scale: float | Float[Array, ""],
    mix: float | Float[Array, ""] = 0.0,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "*shape"]:
    """Velocity whose expectation is that of classifier-free guidance, held still: with w = scale (1 - mix),
    w velocity + mix u(z, t, t, condition) + (1 - w - mix) u(z, t, t, null) (MeanFlow, section 4.2, where w and mix
    are ω and κ). With mix = 1 - 1 / scale, w is 1: improved MeanFlow's.

    Args:
        velocity: noise - x_0.
        null: condition of no class.
        scale: 1 is none.
        mix: share of the model's own guided velocity: less variance.
    """
    free, weight = average(z, t, t, null, key=key), scale * (1 - mix)
    found = weight * velocity + (1 - weight - mix) * free
    if not isinstance(mix, float) or mix > 0:
        found = found + mix * average(z, t, t, condition, key=key)
    return jax.lax.stop_gradient(found)
