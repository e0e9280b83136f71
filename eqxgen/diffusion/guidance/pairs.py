"""Denoisers made of a good and a weak one: classifier-free guidance and autoguidance."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.diffusion.guidance.rules import Linear, Projected, Rule, Zero
from eqxgen.diffusion.guidance.wrapped import Wrapped
from eqxgen.diffusion.solvers.driver import cost, number
from eqxgen.nn._mesh import varying
from eqxgen.protocols import Denoiser

Number = float | int | Float[Array, ""]


class Pair(Wrapped):
    """A denoiser guided away from a weak one.

    Outside its interval it is the good denoiser alone, by a branch on the time. The branch saves the weak evaluation
    where the times are not mapped: close over them in `jax.vmap`, as `sample` says.

    Args:
        denoiser: the good one.
        weak: the weak one; None: the good one with the null condition, both in one mapped call.
        null: condition of the weak one without a denoiser of its own.
        rule: how the two are joined.
        interval: ratios sigma / alpha above the first and up to the second are guided, traced (Kynkäänniemi et al.,
            arXiv:2404.07724). None: all.
        channels: number of first channels that are guided; None: all. The sampler of DiT guides 3.
    """

    weak: Any
    null: Any
    rule: Rule
    interval: Float[Array, "2"] | None
    channels: int | None = eqx.field(static=True)

    def __call__(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*shape"]:
        """The guided x_0.

        Raises:
            ValueError: there is no condition to guide by.
        """
        return self.recall(x, t, condition, None, key=key, inference=inference)[0]

    def memory(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"] | None:
        """What is remembered before the first step; None: nothing ever, as by all rules without momentum."""
        remembers = isinstance(self.rule, Projected) and self.rule.momentum is not None
        return jnp.zeros_like(x[..., self._first]) if remembers else None

    def recall(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any,
        memory: Float[Array, "*shape"] | None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"] | None]:
        """The guided x_0, and the memory for the next step, which is kept where nothing is guided."""
        options: dict[str, Any] = {"key": key, "inference": inference}
        if self.weak is None and condition is None:
            raise ValueError("condition must be given: guidance of a null condition by itself is none")

        def alone() -> Any:
            return self.denoiser(x, t, condition, **options), memory

        def both() -> Any:
            if self.weak is not None:
                good, weak = alone()[0], self.weak(x, t, condition, **options)
            else:
                both = lambda a, b: jnp.stack([a, varying(jnp.asarray(b, a.dtype), a)])
                pair = jax.tree.map(both, _arrays(condition), self.null)
                good, weak = jax.vmap(lambda given: self.denoiser(x, t, given, **options))(pair)
            return self._joined(x, t, good, weak, memory)

        return both() if self.interval is None else jax.lax.cond(self._guided(t), both, alone)

    def evaluations(self, t: Float[Array, ""]) -> Any:
        """Passes of the network at a time."""
        good = cost(self.denoiser, t)
        both = good + cost(self.denoiser if self.weak is None else self.weak, t)
        return both if self.interval is None else jnp.where(self._guided(t), both, good)

    def _guided(self, t: Float[Array, ""]) -> Array:
        assert self.interval is not None
        ratio = self.schedule(t).ratio
        return (ratio > self.interval[0]) & (ratio <= self.interval[1])

    @property
    def _first(self) -> slice:
        return slice(None) if self.channels is None else slice(self.channels)

    def _joined(self, x: Array, t: Array, good: Array, weak: Array, memory: Array | None) -> tuple[Array, Array | None]:
        x, near, weak = (each[..., self._first] for each in (x, good, weak))
        rule, level = self.rule, self.schedule(t)
        if isinstance(rule, Projected):
            guided = rule(x, near, weak, level, t, memory)
            memory = None if memory is None else rule.difference(near, weak, memory).astype(memory.dtype)
        else:
            guided = rule(x, near, weak, level, t)
        guided = guided.astype(good.dtype)
        return guided if self.channels is None else jnp.concatenate([guided, good[..., self.channels :]], -1), memory


class Learned(Pair):
    """A guided denoiser with the learned variance of the good one (Nichol and Dhariwal 2021; DiT's sampler)."""

    def variance(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Any:
        """The guided x_0, and the fraction of the good denoiser's variance."""
        return self.recall_variance(x, t, condition, None, key=key, inference=inference)[0]

    def recall_variance(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any,
        memory: Float[Array, "*shape"] | None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Any, Float[Array, "*shape"] | None]:
        """`variance`, and the memory for the next step; see `recall`."""
        options: dict[str, Any] = {"key": key, "inference": inference}
        found = self.denoiser.variance(x, t, condition, **options)

        def both() -> Any:
            weak = self.denoiser if self.weak is None else self.weak
            null = condition if self.weak is not None else _like(self.null, condition)
            return self._joined(x, t, found[0], weak(x, t, null, **options), memory)

        alone = lambda: (found[0], memory)
        x0, memory = both() if self.interval is None else jax.lax.cond(self._guided(t), both, alone)
        return (type(found)(x0, *found[1:]) if hasattr(found, "_fields") else (x0, *found[1:])), memory


def cfg(
    denoiser: Denoiser,
    null: Any,
    scale: Number,
    *,
    interval: tuple[Number, Number] | None = None,
    rescale: Number | None = None,
    view: str = "epsilon",
    channels: int | None = None,
) -> Pair:
    """Classifier-free guidance; see `Linear` and `Pair`.

    Args:
        denoiser: conditional.
        null: its condition of an example without one, such as `denoiser.null_label`.
        scale: 1 is none.

    Raises:
        ValueError: the denoiser is unconditional, a number is out of range, the interval is upside down.
    """
    return by_rule(denoiser, null, Linear(scale, rescale, view), interval=interval, channels=channels)


def apg(
    denoiser: Denoiser,
    null: Any,
    scale: Number,
    *,
    eta: Number = 0.0,
    norm: Number = 0.0,
    momentum: Number | None = None,
    interval: tuple[Number, Number] | None = None,
) -> Pair:
    """Adaptive projected guidance; see `Projected`, `Pair` and `cfg`. With momentum it is called by `sample` alone."""
    return by_rule(denoiser, null, Projected(scale, eta, norm, momentum), interval=interval)


def cfg_zero_star(
    denoiser: Denoiser,
    null: Any,
    scale: Number,
    *,
    start: Number | None = None,
    interval: tuple[Number, Number] | None = None,
) -> Pair:
    """CFG-Zero*; see `Zero`, `Pair` and `cfg`."""
    return by_rule(denoiser, null, Zero(scale, start), interval=interval)


def autoguidance(
    denoiser: Denoiser,
    weak: Denoiser,
    scale: Number,
    *,
    interval: tuple[Number, Number] | None = None,
    rule: Rule | None = None,
) -> Pair:
    """Guidance by a weaker version of the denoiser, with or without a condition (Karras et al. 2024, arXiv:2406.02507).

    Args:
        weak: smaller or less trained, with the same schedule.
        scale: 1 is none.
        rule: another than `Linear(scale)`.

    Raises:
        ValueError: see `cfg`; the schedules differ.
    """
    if not eqx.tree_equal(weak.schedule, denoiser.schedule):
        raise ValueError(f"weak must have the denoiser's schedule: got {weak.schedule} beside {denoiser.schedule}")
    return _kind(denoiser)(denoiser, weak, None, rule or Linear(scale), _interval(interval), None)


def by_rule(
    denoiser: Denoiser,
    null: Any,
    rule: Rule,
    *,
    interval: tuple[Number, Number] | None = None,
    channels: int | None = None,
) -> Pair:
    """Guidance by the class, by any rule; see `cfg`, which is that of `Linear`, and `Pair`."""
    if null is None:
        raise ValueError("guidance needs a conditional model: got null=None, the mark of an unconditional one")
    if channels is not None and channels < 1:
        raise ValueError(f"channels must be at least 1: got {channels}")
    return _kind(denoiser)(denoiser, None, null, rule, _interval(interval), channels)


def _kind(denoiser: Any) -> type[Pair]:
    return Learned if hasattr(denoiser, "variance") else Pair


def _interval(ends: tuple[Number, Number] | None) -> Float[Array, "2"] | None:
    """The traced ends of an interval of ratios.

    Raises:
        ValueError: it is upside down, or negative.
    """
    if ends is None:
        return None
    low, high = ends
    if not isinstance(low, Tracer) and not isinstance(high, Tracer) and not 0 <= float(low) < float(high):
        raise ValueError(
            f"interval must rise from at least 0: got {float(low):g}, {float(high):g}; it is sigma / alpha"
        )
    return jnp.stack([number(end, "interval", 0, math.inf) for end in (low, high)])


def _arrays(condition: Any) -> Any:
    return jax.tree.map(jnp.asarray, condition)


def _like(null: Any, condition: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.asarray(b, jnp.asarray(a).dtype), condition, null)
