"""Log-likelihood by the probability flow (Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix D.2).

The flow is integrated from small noise to large in the angle of the level, by Runge-Kutta steps of order 4. The
divergence of its velocity, summed up, is the change of the log-density.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.diffusion.solvers.driver import Times, checked, cost
from eqxgen.diffusion.solvers.runge_kutta import angle
from eqxgen.protocols import Denoiser


class Likelihood(NamedTuple):
    """Log-density of an example.

    Attributes:
        log_density: in nats, of the data with noise of the last time above 0.
        noise: x at the first time.
        evaluations: passes of the network. Each product with its Jacobian is one more evaluation's work, not counted.
    """

    log_density: Float[Array, ""]
    noise: Float[Array, "*shape"]
    evaluations: Int[Array, ""]

    def bits(self, levels: int = 256) -> Float[Array, ""]:
        """Bits per dimension of data on so many levels, from -1 to 1, to which `dequantised` added noise:
        -log_density / (dimensions · ln 2) + log2((levels - 1) / 2).

        The mean over that noise is an upper bound of the bits of the levels (Theis et al. 2016, arXiv:1511.01844).

        Raises:
            ValueError: levels is below 2.
        """
        if levels < 2:
            raise ValueError(f"levels must be at least 2: got {levels}")
        return -self.log_density / (self.noise.size * math.log(2)) + math.log2((levels - 1) / 2)


def dequantised(x: Float[Array, "*shape"], levels: int = 256, *, key: PRNGKeyArray) -> Float[Array, "*shape"]:
    """Data on levels from -1 to 1 with uniform noise of one level's width, 2 / (levels - 1), centred on each level.

    Raises:
        ValueError: levels is below 2.
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2: got {levels}")
    return x + jr.uniform(key, x.shape, x.dtype, -1, 1) / (levels - 1)


def log_likelihood(
    denoiser: Denoiser,
    x: Float[Array, "*shape"],
    times: Times,
    *,
    key: PRNGKeyArray | None = None,
    probes: int | None = None,
    condition: Any = None,
) -> Likelihood:
    """Log-density of one example.

    Data on few levels, such as 8-bit pixels, have no density: `dequantised` adds uniform noise of one level's width,
    and `Likelihood.bits` counts in levels.

    Args:
        x: the example.
        times: grid of sampling, falling to 0; x is taken as at the last time above 0, the smallest noise.
        key: of the probes.
        probes: number of random signs that estimate the divergence without bias (Hutchinson; Grathwohl et al. 2019,
            arXiv:1810.01367). None: the exact divergence, one product with the Jacobian a dimension.
        condition: what the denoiser takes.

    Raises:
        ValueError: probes is below 1 or has no key, the times do not fall, or are fewer than three.
    """
    times = checked(times)
    if len(times) < 3:
        raise ValueError(f"times must be at least three, two above 0: got {len(times)}")
    if probes is not None and (probes < 1 or key is None):
        raise ValueError(f"probes must be at least 1, with key=: got probes={probes}, key={key}")
    schedule = denoiser.schedule
    x = widen(x)
    vectors = _vectors(x, key, probes)
    levels = schedule(times[:-1][::-1])
    angles, norms = angle(levels), jnp.hypot(levels.alpha, levels.sigma)

    def slope(z: Array, theta: Array) -> tuple[Array, Array, Any]:
        t = schedule.time(jnp.tan(theta))
        alpha, sigma = schedule(t)
        norm = jnp.hypot(alpha, sigma)

        def v(z: Array) -> Array:
            x0 = denoiser(norm * z, t, condition, inference=True).astype(z.dtype)
            return (alpha / norm) * (norm * z - alpha * x0) / sigma - sigma / norm * x0

        value, push = jax.linearize(v, z)
        terms = jax.lax.map(lambda e: jnp.sum(e * push(e)), vectors)
        return value, jnp.sum(terms) / (1 if probes is None else probes), jnp.asarray(cost(denoiser, t), jnp.int32)

    def advance(carry: tuple, part: tuple) -> tuple:
        (z, change, spent), (start, end) = carry, part
        step = end - start
        k1, d1, c1 = slope(z, start)
        k2, d2, c2 = slope(z + step / 2 * k1, start + step / 2)
        k3, d3, c3 = slope(z + step / 2 * k2, start + step / 2)
        k4, d4, c4 = slope(z + step * k3, end)
        z = z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        change = change + step / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        return (z.astype(x.dtype), change.astype(x.dtype), spent + c1 + c2 + c3 + c4), None

    first = x / norms[0], jnp.zeros((), x.dtype), jnp.int32(0)
    (z, change, spent), _ = jax.lax.scan(advance, first, (angles[:-1], angles[1:]))
    noise = norms[-1] * z
    deviation = levels.sigma[-1]
    prior = -jnp.sum(jnp.square(noise / deviation)) / 2 - x.size * (jnp.log(deviation) + math.log(2 * math.pi) / 2)
    # The density of z is that of x times norm^dimensions, at both ends.
    scale = x.size * (jnp.log(norms[-1]) - jnp.log(norms[0]))
    return Likelihood(prior + change + scale, noise, spent)


def _vectors(x: Array, key: PRNGKeyArray | None, probes: int | None) -> Array:
    """Unit vectors of every dimension, or random signs."""
    if probes is None or key is None:
        return jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    return jr.rademacher(key, (probes, *x.shape), x.dtype)
