"""Averages of the weights along a run, which samples and evaluation use instead of the weights themselves.

An average moves by `average += (1 - β) * (weights - average)` after every step; the profiles differ in β:

  decay        min(decay, (1 + step) / (10 + step))
  half-life    0.5 ** (batch / half_life), the half-life being at most `ramp` times the examples so far (EDM,
               arXiv:2206.00364, appendix F)
  power        (1 - 1 / t) ** (γ + 1) after t steps, which weighs the step s in proportion to s ** γ (EDM2,
               arXiv:2312.02696, section 3.1);
               its width is named by σ_rel, its standard deviation relative to the run

What is computed is 1 - β, which float32 cannot take from a β near 1: after a million steps it would be off by a few per
cent.

Power-function averages can be recombined after the run into one of another width: `reconstruct`.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..config.optim import EmaConfig

Gain = Callable[[Int[Array, ""]], Float[Array, ""]]
"""Number of steps made before this one -> 1 - β, how far the step goes from the average to the weights."""


class Averages(NamedTuple):
    """Pure functions, as in an optimiser.

    Attributes:
        init: weights before the first step -> averages, the one to use first.
        update: (averages, weights after a step, number of steps before it) -> averages.
    """

    init: Callable[[PyTree], tuple[PyTree, ...]]
    update: Callable[[tuple[PyTree, ...], PyTree, Int[Array, ""]], tuple[PyTree, ...]]


def averages(config: EmaConfig, batch_size: int) -> Averages:
    """The averages that a config asks for: one, or one for each of `sigma_rel`."""
    if config.sigma_rel:
        profiles = [power(gamma_of(sigma)) for sigma in config.sigma_rel]
    elif config.half_life is not None:
        profiles = [half_life(config.half_life / batch_size, config.ramp)]
    else:
        profiles = [decay(config.decay)]

    def init(model: PyTree) -> tuple[PyTree, ...]:
        copy = lambda x: (
            jnp.array(x, copy=True) if eqx.is_array(x) else x
        )  # a step that takes over its arguments takes each buffer once
        return tuple(jax.tree.map(copy, model) for _ in profiles)

    def update(state: tuple[PyTree, ...], model: PyTree, step: Int[Array, ""]) -> tuple[PyTree, ...]:
        return tuple(move(average, model, gain(step)) for gain, average in zip(profiles, state))

    return Averages(init, update)


def move(average: PyTree, model: PyTree, gain: Float[Array, ""]) -> PyTree:
    """The average one step on; what is no floating-point array is the model's."""
    follow = lambda a, m: a + gain.astype(a.dtype) * (m - a) if eqx.is_inexact_array(m) else m
    return jax.tree.map(follow, average, model)


def decay(rate: float) -> Gain:
    """A fixed decay that ramps up, so that the first weights do not linger in a short run."""

    def gain(step: Int[Array, ""]) -> Float[Array, ""]:
        count = step.astype(jnp.float32)
        return jnp.maximum(1 - rate, 9 / (10 + count))

    return gain


def half_life(steps: float, ramp: float) -> Gain:
    """Weights count half after so many steps, or after `ramp` times the steps so far where that is less; ramp 0: at
    once.
    """

    def gain(step: Int[Array, ""]) -> Float[Array, ""]:
        life = jnp.minimum(steps, ramp * step.astype(jnp.float32)) if ramp else jnp.float32(steps)
        return -jnp.expm1(-math.log(2) / jnp.maximum(life, 1e-8))

    return gain


def power(gamma: float) -> Gain:
    """The profile in which the step s weighs in proportion to s ** gamma."""

    def gain(step: Int[Array, ""]) -> Float[Array, ""]:
        return -jnp.expm1((gamma + 1) * jnp.log1p(-1 / (step.astype(jnp.float32) + 1)))

    return gain


def gamma_of(sigma_rel: float) -> float:
    """The exponent γ of the profile with this relative width.

    The largest root of σ² (γ + 2)² (γ + 3) = γ + 1; there is one with γ >= 0 up to σ = 1 / √12 = 0.2887, the width of
    the uniform profile.

    Raises:
        ValueError: sigma_rel is not in (0, 0.2886).
    """
    if not 0 < sigma_rel < 0.2886:
        raise ValueError(f"sigma_rel must be in (0, 0.2886): got {sigma_rel}")
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def sigma_of(gamma: float) -> float:
    """The relative width of the profile with this exponent: the inverse of `gamma_of`."""
    return float(np.sqrt(gamma + 1) / (gamma + 2) / np.sqrt(gamma + 3))


def overlap(t: int, gamma: float, other_t: int, other_gamma: float) -> float:
    """∫ of the product of two profiles, each (γ + 1) s^γ / t^(γ + 1) on (0, t]: 1 is a profile's own integral (EDM2,
    appendix C).
    """
    low, high = sorted([t, other_t])
    outer = gamma if t >= other_t else other_gamma
    return (gamma + 1) * (other_gamma + 1) / (gamma + other_gamma + 1) * (low / high) ** outer / high


def weights_for(kept: Sequence[tuple[int, float]], t: int, gamma: float) -> Float[np.ndarray, " kept"]:
    """Weights with which averages kept along a run make one of another exponent, in the least squares of their
    profiles.

    Args:
        kept: steps made and exponent γ of each average.
        t, gamma: of the average that is wanted; t no later than the last one kept.
    """
    matrix = np.array([[overlap(*a, *b) for b in kept] for a in kept])
    target = np.array([overlap(*a, t, gamma) for a in kept])
    return np.linalg.lstsq(matrix, target, rcond=None)[0]


def reconstruct(models: Sequence[PyTree], kept: Sequence[tuple[int, float]], t: int, sigma_rel: float) -> PyTree:
    """The average of relative width `sigma_rel` after t steps, from averages kept along the run: each (steps, its
    σ_rel).
    """
    weights = weights_for([(steps, gamma_of(sigma)) for steps, sigma in kept], t, gamma_of(sigma_rel))

    def combine(*leaves):
        if not eqx.is_inexact_array(leaves[0]):
            return leaves[-1]
        total = sum(weight * np.asarray(leaf, np.float64) for weight, leaf in zip(weights, leaves))
        return jnp.asarray(total, leaves[0].dtype)

    return jax.tree.map(combine, *models)
