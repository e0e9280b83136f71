"""Loss scales: what keeps small float16 gradients from vanishing (Micikevicius et al. 2018, arXiv:1710.03740).

The loss is multiplied before its gradient is taken, the gradient divided after, both in float32. A scale of powers of
two costs no digit.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from eqxgen._widen import widen as widen

from .policy import Policy


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """Floating-point arrays in another type."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


class LossScale(eqx.Module):
    """Factor of a loss before its gradient."""

    @property
    @abc.abstractmethod
    def factor(self) -> Float[Array, ""]:
        """It, now."""

    def scale(self, loss: Float[Array, ""]) -> Float[Array, ""]:
        """The loss times the factor, in float32 before it is multiplied: 65,536 times a float16 loss would be
        infinite.
        """
        wide = widen(loss)
        return wide * self.factor.astype(wide.dtype)

    def unscale(self, grads: PyTree) -> PyTree:
        """Gradients of the loss itself, from those of the scaled one, in float32."""
        return jax.tree.map(
            lambda g: widen(g) / self.factor.astype(widen(g).dtype) if eqx.is_inexact_array(g) else g, grads
        )

    def adjust(self, finite: Bool[Array, ""]) -> "LossScale":
        """The scale of the next step, by whether this one's gradients were finite."""
        return self


class NoLossScale(LossScale):
    """1 for ever: float32 and bfloat16 need no other."""

    @property
    def factor(self) -> Float[Array, ""]:
        return jnp.float32(1)


class StaticLossScale(LossScale):
    """The same factor for ever.

    Raises:
        ValueError: the factor is not positive and finite.
    """

    value: float = eqx.field(static=True)

    def __init__(self, value: float):
        _positive(value=value)
        self.value = float(value)

    @property
    def factor(self) -> Float[Array, ""]:
        return jnp.float32(self.value)


class DynamicLossScale(LossScale):
    """As large as the gradients allow: doubled after `interval` finite steps in a row, halved at every one that is not
    finite.

    Args:
        value: at first.
        interval: how many finite steps double it; exactly so many.
        growth: what it is multiplied by then.
        backoff: what it is multiplied by after a step that was not finite.
        lowest, highest: where it stays, come what may.

    Raises:
        ValueError: a number is out of its range, or the first value is not between the lowest and the highest.
    """

    value: Float[Array, ""]
    good_steps: Int[Array, ""]
    interval: int = eqx.field(static=True)
    growth: float = eqx.field(static=True)
    backoff: float = eqx.field(static=True)
    lowest: float = eqx.field(static=True)
    highest: float = eqx.field(static=True)

    def __init__(
        self,
        value: float = 2.0**16,
        *,
        interval: int = 2000,
        growth: float = 2.0,
        backoff: float = 0.5,
        lowest: float = 2.0**-14,
        highest: float = 2.0**24,
    ):
        _positive(value=value, lowest=lowest, highest=highest)
        if not lowest <= value <= highest:
            raise ValueError(f"value must be between lowest and highest: got {lowest=}, {value=}, {highest=}")
        if interval < 1:
            raise ValueError(f"interval must be at least 1 step: got {interval}")
        if not (1 < growth < math.inf and 0 < backoff < 1):
            raise ValueError(f"growth must be above 1 and backoff in (0, 1): got {growth=}, {backoff=}")
        self.value, self.good_steps = jnp.float32(value), jnp.int32(0)
        self.interval, self.growth, self.backoff = interval, float(growth), float(backoff)
        self.lowest, self.highest = float(lowest), float(highest)

    @property
    def factor(self) -> Float[Array, ""]:
        return self.value

    def adjust(self, finite: Bool[Array, ""]) -> "DynamicLossScale":
        grows = finite & (self.good_steps + 1 >= self.interval)
        up = jnp.minimum(self.value * self.growth, self.highest)
        down = jnp.maximum(self.value * self.backoff, self.lowest)
        value = jnp.where(grows, up, jnp.where(finite, self.value, down))
        good_steps = jnp.where(finite & ~grows, self.good_steps + 1, 0)
        return eqx.tree_at(lambda s: (s.value, s.good_steps), self, (value, good_steps))


def scale_for(policy: Policy, scale: LossScale | None = None) -> LossScale:
    """The scale that was given; without one, none where the policy needs none.

    Raises:
        ValueError: the policy has float16 and no scale was given.
    """
    if scale is None and policy.needs_scale:
        raise ValueError(
            f"scale must be given for float16, in which small gradients vanish: got {policy}; pass "
            "scale=DynamicLossScale(), or use bfloat16"
        )
    return NoLossScale() if scale is None else scale


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} must be positive and finite: got {name}={number}")
