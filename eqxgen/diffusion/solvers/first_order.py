"""Solvers of one evaluation a step and no memory: Euler, DDIM, DDPM."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.diffusion.solvers.driver import Context
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.diffusion.solvers.renewed import Renewed


class Euler(eqx.Module):
    """First order: x_0 and the noise are constant over a step.

    Euler's step of EDM in sigma, of flow matching in t, DDIM without noise and DPM-Solver++ of order 1 are this step
    (Karras et al. 2022, arXiv:2206.00364; Lu et al. 2022, arXiv:2211.01095, section 4).
    """

    def init(self, x: Float[Array, "*shape"]) -> None:
        return None

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        return Interval.of(context.schedule, t, s).line(x, context(x, t)), None


class DDIM(Renewed):
    """DDIM (Song et al. 2021, arXiv:2010.02502, equation 12): each step renews eta² of the posterior's variance.

    For a schedule whose alpha is 1 it is Euler's ancestral sampler. The last step is to alpha 1, not to the first
    level of training: no noise is left.

    Args:
        eta: from 0 (deterministic) to 1 (ancestral), traced. None: 0, without a key.

    Raises:
        ValueError: eta is out of range.
    """

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        interval, x0 = Interval.of(context.schedule, t, s), context(x, t)
        if self.eta is None:
            return interval.line(x, x0), None
        return interval.jump(x, x0, self.eta, context.noise(interval, x)), None


def ancestral(eta: float | Float[Array, ""] = 1.0) -> DDIM:
    """Euler's ancestral sampler (Karras et al., k-diffusion): DDIM with noise, at any schedule."""
    return DDIM(eta)


class DDPM(eqx.Module):
    """Ancestral sampling (Ho et al. 2020, arXiv:2006.11239, algorithm 2): a draw of the posterior of x_s.

    Args:
        variance: small, that of the posterior; large, that of the forward step; learned, between both by the denoiser
            (Nichol and Dhariwal 2021, arXiv:2102.09672, equation 15).

    Raises:
        ValueError: there is no such variance.
    """

    variance: Literal["small", "large", "learned"] = eqx.field(static=True, default="small")

    stochastic = True

    def __check_init__(self):
        if self.variance not in ("small", "large", "learned"):
            raise ValueError(f"variance must be small, large or learned: got {self.variance!r}")

    @property
    def learned(self) -> bool:
        return self.variance == "learned"

    def init(self, x: Float[Array, "*shape"]) -> None:
        return None

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        interval = Interval.of(context.schedule, t, s)
        a, b = interval
        x0, fraction = context.variance(x, t) if self.learned else (context(x, t), None)
        mean = b.alpha * x0 + b.sigma * interval.decay * interval.noise(x, x0)
        renewed = interval.gain * (1 + interval.decay)
        small, large = b.sigma * jnp.sqrt(renewed), a.sigma * jnp.sqrt(renewed)
        if fraction is not None:
            mix = lambda low, high: jnp.log(low) + fraction * (jnp.log(high) - jnp.log(low))
            # The variance of the last step is not drawn.
            deviation = jnp.exp(mix(jnp.where(b.sigma == 0, large, small), large))
        else:
            deviation = small if self.variance == "small" else large
        return mean + jnp.where(b.sigma == 0, 0, deviation) * context.noise(interval, x), None
