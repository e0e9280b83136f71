"""Sophia with Hutchinson's estimate of the Hessian's diagonal, Sophia-H (Liu et al. 2023, arXiv:2305.14342, algorithms
1 and 3).

    m ← β₁ m + (1 - β₁) g        h ← β₂ h + (1 - β₂) u ⊙ (H u), every so many updates        clip(m / max(γ h, ε), ±1)

Where we differ: the entries of u are signs, whose estimate has the smaller variance, and not normal numbers. Sophia-G
is not offered: its estimate (Gauss-Newton-Bartlett) needs labels drawn from the model's own distribution, which the
contract of a `Loss` lacks. optax's rule uses an estimate from the next update on, corrects the bias of m, and keeps an
estimate that is not finite.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ..config.optim import OptimConfig
from ..precision.guard import all_finite, choose

Curvature = Callable[[], PyTree]
"""Estimate of the Hessian's diagonal of the whole batch's mean loss, of the structure of the parameters."""


class SophiaState(NamedTuple):
    """Updates made, first moments, averages of the Hessian's diagonal, and the number of estimates left out, which were
    not finite.
    """

    made: Int[Array, ""]
    first: PyTree
    hessian: PyTree
    failed: Int[Array, ""]


def scale_by_sophia(config: OptimConfig) -> optax.GradientTransformationExtraArgs:
    """The transformation; decay of weights, learning rate and clipping are other steps of the chain.

    Its `update` needs `curvature=`, which is called where an estimate is due, inside `jax.lax.cond`.
    """
    beta1, beta2 = config.beta1, config.beta2

    def init(params: PyTree) -> SophiaState:
        zeros, zero = (lambda: jax.tree.map(jnp.zeros_like, params)), jnp.zeros((), jnp.int32)
        return SophiaState(zero, zeros(), zeros(), zero)

    def update(
        updates: PyTree,
        state: optax.OptState,
        params: PyTree | None = None,
        *,
        curvature: Curvature | None = None,
        **others: Any,
    ) -> tuple[PyTree, SophiaState]:
        assert isinstance(state, SophiaState)
        if curvature is None:
            raise ValueError(
                "curvature must be given to the update of sophia: got None; pass curvature=lambda: hutchinson(...), an "
                "estimate over the whole batch"
            )

        def estimate(hessian: PyTree) -> tuple[PyTree, Array]:
            found = curvature()
            good = all_finite(found)
            moved = jax.tree.map(lambda h, new: beta2 * h + (1 - beta2) * new.astype(h.dtype), hessian, found)
            return choose(good, moved, hessian), 1 - good.astype(jnp.int32)

        due = state.made % config.every == 0
        hessian, failed = jax.lax.cond(due, estimate, lambda hessian: (hessian, jnp.int32(0)), state.hessian)
        first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.first, updates)
        step = lambda m, h: jnp.clip(m / jnp.maximum(config.gamma * h, config.epsilon), -1, 1)
        steps = jax.tree.map(step, first, hessian)
        return steps, SophiaState(state.made + 1, first, hessian, state.failed + failed)

    return optax.GradientTransformationExtraArgs(init, update)


def hutchinson(gradient: Callable[[PyTree], PyTree], params: PyTree, key: PRNGKeyArray) -> PyTree:
    """u ⊙ (H u) for one u of random signs: unbiased for the diagonal of the Hessian H (Hutchinson 1990).

    Args:
        gradient: params -> gradient of the loss, summed over all devices: H u is then that of the whole batch.
        params: where it is taken.
        key: of the signs, which do not depend on the devices.
    """
    leaves, treedef = jax.tree.flatten(params)
    signs = treedef.unflatten(
        [jr.rademacher(jr.fold_in(key, number), leaf.shape, leaf.dtype) for number, leaf in enumerate(leaves)]
    )
    _, turned = jax.jvp(gradient, (params,), (signs,))
    return jax.tree.map(lambda product, sign: product * sign.astype(product.dtype), turned, signs)
