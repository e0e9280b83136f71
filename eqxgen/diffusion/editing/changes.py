"""Changes of an image: SDEdit, inversion, interpolation."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.diffusion.solvers.driver import Context, Sample, Solver, Times, checked, sample
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.protocols import Denoiser


def sdedit(
    denoiser: Denoiser,
    image: Float[Array, "*shape"],
    times: Times,
    solver: Solver,
    *,
    key: PRNGKeyArray,
    condition: Any = None,
) -> Sample:
    """An image noised to the first time, and denoised again (Meng et al. 2022, arXiv:2108.01073, algorithm 1).

    Args:
        image: a guide, such as a stroke painting.
        times: falling to 0, from the noise of the image: more noise, more change. See `strength`.
        solver: see `eqxgen.diffusion.solvers`.
        key: of this image.
        condition: what the denoiser takes.

    Raises:
        ValueError: see `sample`.
    """
    first, rest = jr.split(key)
    image = widen(image)
    x = denoiser.schedule(checked(times)[0]).diffuse(image, jr.normal(first, image.shape, image.dtype))
    return sample(denoiser, x, times, solver, key=rest, condition=condition)


def strength(times: Times, share: float | Float[Array, ""]) -> Float[Array, " times"]:
    """Times of SDEdit: as many as of the grid, over the last share of its places above 0, so that every share runs the
    same program.

    Args:
        times: a grid, falling to 0, of at least two steps.
        share: in (0, 1], traced; 1 is the whole grid.

    Raises:
        ValueError: the share is out of range or too small for the times to differ, or the grid has one step.
    """
    times, known = checked(times), not isinstance(share, Tracer)
    if len(times) < 3:
        raise ValueError(f"times must be at least three, two above 0: got {len(times)}")
    if known and not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1]: got {share:g}; 0 would be the image itself")
    places = jnp.arange(len(times) - 1, dtype=times.dtype)  # from the least time, where small shares are told apart
    found = jnp.append(jnp.interp(share * places, places, times[:-1][::-1])[::-1], 0)
    if known and not isinstance(found, Tracer) and not bool(jnp.all(jnp.diff(found) < 0)):
        raise ValueError(f"share must be large enough for the times to differ: got {share:g}")
    return found


def invert(
    denoiser: Denoiser, image: Float[Array, "*shape"], times: Times, *, condition: Any = None, iterations: int = 1
) -> Sample:
    """Noise from which DDIM without noise gives the image: its steps backwards (Song et al. 2021, arXiv:2010.02502,
    section 5.4).

    A step backwards needs the noise at its end. One evaluation there, of x at its start, is the usual approximation.
    More iterations solve the step (Pan et al. 2023, arXiv:2309.04907), and `sample` with `Euler()` returns the image.

    Args:
        times: the grid of sampling, falling to 0.
        condition: what the denoiser takes.
        iterations: evaluations a step.

    Raises:
        ValueError: iterations is below 1, or the times do not fall.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1: got {iterations}")
    times = checked(times)
    image = widen(image)

    def advance(carry: tuple, part: tuple) -> tuple:
        (x, spent), (index, t, s) = carry, part
        context = Context(denoiser, condition, lambda *_: None, index, len(times) - 1)
        low, high = denoiser.schedule(s), denoiser.schedule(t)
        found = x
        for _ in range(iterations):
            noise = Interval(high, low).noise(found, context(found, t))
            found = (high.alpha / low.alpha * (x - low.sigma * noise) + high.sigma * noise).astype(x.dtype)
        return (found, spent + context.spent), None

    parts = jnp.arange(len(times) - 1, dtype=jnp.int32), times[:-1][::-1], times[1:][::-1]
    (x, spent), _ = jax.lax.scan(advance, (image, jnp.int32(0)), parts)
    return Sample(x, jnp.asarray(spent, jnp.int32), None)


def slerp(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], share: float | int | Float[Array, ""] | Int[Array, ""]
) -> Float[Array, "*shape"]:
    """Spherical interpolation of two noises: share 0 is a, 1 is b (Shoemake 1985; Song et al. 2021, appendix D.5).

    The norm of the noise is kept, as that of a straight interpolation is not. Directions that are nearly equal or
    opposite are interpolated straight.
    """
    cosine = jnp.sum(a * b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-12)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    sine = jnp.sin(angle)
    straight = sine < 1e-4
    over = jnp.where(straight, 1, sine)
    of_a = jnp.where(straight, 1 - share, jnp.sin((1 - share) * angle) / over)
    of_b = jnp.where(straight, share, jnp.sin(share * angle) / over)
    return of_a * a + of_b * b
