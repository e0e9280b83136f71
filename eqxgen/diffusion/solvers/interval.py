"""One step of a solver as levels: x_a at time t, x_b at time s < t.

`h` is the rise of log (alpha / sigma) over the step. It is infinite in the last step, to sigma 0, and in the first of a
schedule without signal at its end: there every solver takes its first-order step, which is finite.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from eqxgen.diffusion.schedules import Level, Schedule


class Interval(NamedTuple):
    """A step between two levels.

    Attributes:
        a: level at the start, with the more noise.
        b: level at the end.
    """

    a: Level
    b: Level

    @classmethod
    def of(cls, schedule: Schedule, t: Float[Array, ""], s: Float[Array, ""]) -> "Interval":
        """The step from time t to time s."""
        return cls(schedule(t), schedule(s))

    @property
    def decay(self) -> Float[Array, ""]:
        """exp(-h): what remains of the ratio sigma / alpha, in [0, 1)."""
        return self.a.alpha * self.b.sigma / (self.a.sigma * self.b.alpha)

    @property
    def gain(self) -> Float[Array, ""]:
        """1 - exp(-h), without the cancellation of small steps."""
        (alpha, sigma), (alpha_b, sigma_b) = self
        return (alpha_b * sigma - alpha * sigma_b) / (alpha_b * sigma)

    @property
    def h(self) -> Float[Array, ""]:
        """Rise of log (alpha / sigma): positive, and infinite where `endless`."""
        (alpha, sigma), (alpha_b, sigma_b) = self
        least = jnp.where(self.endless, 1, alpha * sigma_b)
        return jnp.where(self.endless, jnp.inf, jnp.log1p((alpha_b * sigma - alpha * sigma_b) / least))

    @property
    def endless(self) -> Bool[Array, ""]:
        """True in a step to sigma 0 or from alpha 0."""
        return self.a.alpha * self.b.sigma == 0

    @property
    def ratios(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """sigma / alpha at both ends; ones where `endless`."""
        (alpha, sigma), (alpha_b, sigma_b) = self
        over = lambda a, b: jnp.where(self.endless, 1, a / jnp.where(self.endless, 1, b))
        return over(sigma, alpha), over(sigma_b, alpha_b)

    def noise(self, x: Float[Array, "*shape"], x0: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The noise of x_a and its x_0."""
        return (x - self.a.alpha * x0) / self.a.sigma

    def line(self, x: Float[Array, "*shape"], x0: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """x_b of the same x_0 and noise: the first-order step of every deterministic solver, exact for a constant x_0.
        In the last step it is x_0.
        """
        return self.b.sigma / self.a.sigma * x + self.b.alpha * self.gain * x0

    def jump(
        self,
        x: Float[Array, "*shape"],
        x0: Float[Array, "*shape"],
        eta: Float[Array, ""],
        fresh: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        """x_b of the same x_0, with eta² of the posterior's variance as fresh noise (DDIM's equation 12)."""
        renewed = eta**2 * self.gain * (1 + self.decay)  # share of the variance of x_b
        old = self.b.sigma * jnp.sqrt(jnp.maximum(1 - renewed, 0))
        return self.b.alpha * x0 + old * self.noise(x, x0) + self.b.sigma * jnp.sqrt(renewed) * fresh
