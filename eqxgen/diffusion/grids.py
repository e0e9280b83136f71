"""Grids of sampling: the levels at which the steps of a solver end.

`karras`, `exponential`, `polynomial`, `vp`, `ve` and `iddpm` are ratios sigma / alpha, from the noisiest down; `times`
turns them into times of a schedule and adds data at the end. `trailing`, `leading` and `linspace` are times of a
discrete schedule, with data at the end.

Numbers are computed in float64 on the host and rounded once. A grid is an argument of the compiled sampler: another
range compiles nothing.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqxgen.diffusion.schedules import Schedule

Grid = Float[Array, " levels"]


def karras(steps: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Grid:
    """Equal steps of sigma^(1 / rho) (Karras et al. 2022, arXiv:2206.00364, equation 5).

    Args:
        steps: number of ratios.
        low, high: last and first ratio.
        rho: 7 in EDM; 1 is equal steps.

    Raises:
        ValueError: steps is below 1, or low is not in (0, high), or rho is not positive.
    """
    if rho <= 0:
        raise ValueError(f"rho must be positive: got {rho:g}")
    part = _parts(steps, low, high)
    return _rounded((high ** (1 / rho) + part * (low ** (1 / rho) - high ** (1 / rho))) ** rho)


def exponential(steps: int, low: float = 0.002, high: float = 80.0) -> Grid:
    """Equal steps of log sigma; see `karras`."""
    part = _parts(steps, low, high)
    return _rounded(np.exp(math.log(high) + part * (math.log(low) - math.log(high))))


def polynomial(steps: int, low: float = 0.002, high: float = 80.0, rho: float = 1.0) -> Grid:
    """log sigma by the power rho of the rest of the way (k-diffusion's polyexponential; rho 1 is `exponential`).

    Args:
        steps, low, high: see `karras`.
        rho: above 1, more steps at small sigma.

    Raises:
        ValueError: see `karras`.
    """
    if rho <= 0:
        raise ValueError(f"rho must be positive: got {rho:g}")
    rest = (1 - _parts(steps, low, high)) ** rho
    return _rounded(np.exp(rest * (math.log(high) - math.log(low)) + math.log(low)))


def vp(steps: int, rise: float = 19.9, low: float = 0.1, start: float = 1e-3) -> Grid:
    """Equal steps of the time of variance-preserving diffusion (Karras et al. 2022, table 1).

    Args:
        steps: number of ratios.
        rise, low: of beta(t), see `eqxgen.diffusion.schedules.VP`.
        start: smallest time.

    Raises:
        ValueError: steps is below 1, or start is not in (0, 1).
    """
    t = 1 + _parts(steps, start, 1.0, "start", "1") * (start - 1)
    return _rounded(np.sqrt(np.expm1(rise / 2 * t**2 + low * t)))


def ve(steps: int, low: float = 0.02, high: float = 100.0) -> Grid:
    """Equal steps of log sigma² (Karras et al. 2022, table 1), which `exponential` has too, in the range of Song et al.
    2021.
    """
    return exponential(steps, low, high)


def iddpm(steps: int, low: float = 0.0064, high: float = 81.0, levels: int = 1000, least: float = 1e-3) -> Grid:
    """Every so many of the levels of improved DDPM's cosine schedule (Karras et al. 2022, table 1).

    Args:
        steps: number of ratios.
        low, high: levels outside are left out.
        levels: of the schedule, M.
        least: C_1, smallest alpha² of a level.

    Raises:
        ValueError: steps is below 1 or above the levels in the range, or low is not in (0, high).
    """
    part = _parts(steps, low, high)
    kept = np.sin(math.pi / 2 * np.arange(levels + 1) / levels / (0.008 + 1)) ** 2
    ratios = np.zeros(levels + 1)
    for j in range(levels, 0, -1):
        ratios[j - 1] = math.sqrt((ratios[j] ** 2 + 1) / max(kept[j - 1] / kept[j], least) - 1)
    inside = ratios[(ratios >= low) & (ratios <= high)]
    _check_steps(steps, len(inside), "levels between low and high")
    return _rounded(inside[np.floor((len(inside) - 1) * part + 0.5).astype(int)])


def times(schedule: Schedule, ratios: Grid | Float[np.ndarray, " levels"]) -> Float[Array, " times"]:
    """Times of ratios sigma / alpha, and 0: one step for each ratio."""
    found = schedule.time(jnp.asarray(ratios))
    return jnp.append(found, jnp.zeros((), found.dtype))


def trailing(steps: int, total: int) -> Float[Array, " times"]:
    """From the last step of training, in equal parts: the first step is noise (Lin et al. 2024, arXiv:2305.08891,
    table 2).

    Args:
        steps: of sampling.
        total: of training.

    Raises:
        ValueError: steps is below 1 or above total.
    """
    _check_steps(steps, total)
    return _discrete(np.round(total - np.arange(steps) * total / steps) - 1, total)


def leading(steps: int, total: int, offset: int = 0) -> Float[Array, " times"]:
    """Each so many steps from step `offset` up (DDIM; Stable Diffusion has offset 1); see `trailing`."""
    _check_steps(steps, total)
    found = np.arange(steps)[::-1] * (total // steps) + offset
    if not 0 <= offset <= total - 1 - (steps - 1) * (total // steps):
        raise ValueError(f"offset must leave the steps in [0, {total}): got offset={offset} for {steps} steps")
    return _discrete(found, total)


def linspace(steps: int, total: int) -> Float[Array, " times"]:
    """Equal parts from the last to the first step of training (improved DDPM); see `trailing`. Places between two steps
    are kept.
    """
    _check_steps(steps, total)
    return _discrete(np.linspace(0, total - 1, steps)[::-1] if steps > 1 else np.asarray([total - 1.0]), total)


GRIDS: dict[str, Callable[..., Grid]] = {
    "karras": karras,
    "exponential": exponential,
    "polynomial": polynomial,
    "vp": vp,
    "ve": ve,
    "iddpm": iddpm,
}
"""The grids of ratios by name."""
SPACINGS: dict[str, Callable[..., Float[Array, " times"]]] = {
    "trailing": trailing,
    "leading": leading,
    "linspace": linspace,
}
"""The spacings of a discrete schedule by name."""


def _parts(
    steps: int, low: float, high: float, names: str = "low", above: str = "high"
) -> Float[np.ndarray, " levels"]:
    """Equal steps from 0 to 1; 0 alone for one step."""
    _check_steps(steps, None)
    if not 0 < low < high:
        raise ValueError(f"{names} must be positive and below {above}: got {names}={low:g}, {above}={high:g}")
    return np.arange(steps) / max(steps - 1, 1)


def _check_steps(steps: int, most: int | None, of: str = "training steps") -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1: got {steps}")
    if most is not None and steps > most:
        raise ValueError(f"steps must be at most the number of {of}, {most}: got {steps}")


def _rounded(ratios: Float[np.ndarray, " levels"]) -> Grid:
    return jnp.asarray(ratios)


def _discrete(places: Float[np.ndarray, " steps"] | np.ndarray, total: int) -> Float[Array, " times"]:
    return jnp.asarray(np.append((places + 1) / total, 0.0))
