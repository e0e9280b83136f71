"""Noise of stochastic solvers: a unit normal of each interval of time.

`PerStep` draws a fresh one at each step. `Brownian` takes increments of one Brownian path in log (alpha / sigma): other
numbers of steps with one key follow one path, and their images converge to one image.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.diffusion.solvers.interval import Interval


class PerStep(eqx.Module):
    """Independent draws, by the key folded with the number of the step."""

    def __call__(
        self, key: PRNGKeyArray, index: Int[Array, ""], draw: int, interval: Interval, like: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """A unit normal.

        Args:
            key: of one example.
            index: of the step.
            draw: number of draws before it in the step.
            interval: the part of the path that it belongs to.
            like: array of its shape and type.
        """
        return jr.normal(jr.fold_in(jr.fold_in(key, index), draw), like.shape, like.dtype)


class Brownian(eqx.Module):
    """Increments of a Brownian path, by a virtual tree of bridges (Li et al. 2020, arXiv:2001.01328, algorithm 3).

    Args:
        depth: of the tree: the path is linear between points 2 span / 2^depth apart.
        span: the path runs over log (alpha / sigma) from -span to span; levels outside share its ends.
    """

    depth: int = eqx.field(static=True, default=18)
    span: float = eqx.field(static=True, default=20.0)

    def __call__(
        self, key: PRNGKeyArray, index: Int[Array, ""], draw: int, interval: Interval, like: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """The increment over the interval, scaled to deviation 1. Overlapping intervals are correlated."""
        start, end = (self._place(level) for level in interval)
        rise = self._value(key, end, like) - self._value(key, start, like)
        return rise / jnp.sqrt(jnp.maximum(end - start, 0.5**self.depth))

    def _place(self, level: Any) -> Float[Array, ""]:
        """Place of a level on the path, in [0, 1]."""
        return jnp.clip((jnp.log(level.alpha / level.sigma) / self.span + 1) / 2, 0, 1)

    def _value(self, key: PRNGKeyArray, at: Float[Array, ""], like: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        draw = lambda key: jr.normal(key, like.shape, like.dtype)

        def halve(i: Int[Array, ""], state: tuple) -> tuple:
            key, left, right, part = state
            middle = (left + right) / 2 + draw(jr.fold_in(key, 2)) * jnp.sqrt(0.5**i) / 2
            upper = part >= 0.5
            ends = jnp.where(upper, middle, left), jnp.where(upper, right, middle)
            return jr.fold_in(key, upper), *ends, 2 * part - upper

        first = key, jnp.zeros_like(like), draw(jr.fold_in(key, 3)), at
        _, left, right, part = jax.lax.fori_loop(0, self.depth, halve, first)
        return left + part.astype(like.dtype) * (right - left)
