"""An update that is made only if every gradient is finite.

What is not finite never reaches parameters, optimiser state, averages or schedules: they stay bit for bit as they were,
while the counters of steps and data go on, so that a resumed run stays aligned. One number decides for all devices and
all optimisers.

On request an update is also left out whose loss or gradient norm is far above those of the last accepted updates
(levanter's and OLMo's skip of loss spikes). Their window takes in accepted updates alone: a number that is not finite,
or a spike, changes no mean.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..params.paths import leaves
from .scale import LossScale, widen

Tree = TypeVar("Tree", bound=PyTree)


class Skipped(eqx.Module):
    """Number of updates that were skipped.

    Attributes:
        total: since the beginning.
        consecutive: in a row, up to now.
        culprit: the first gradient that was not finite the last time, by its place among the gradients' leaves; after
            the last, the loss.
    """

    total: Int[Array, ""]
    consecutive: Int[Array, ""]
    culprit: Int[Array, ""]

    def __init__(self):
        self.total, self.consecutive, self.culprit = jnp.int32(0), jnp.int32(0), jnp.int32(0)

    def after(self, finite: Bool[Array, " leaves"]) -> "Skipped":
        """The counts after a step in which these were finite."""
        made = jnp.all(finite)
        now = (
            self.total + jnp.where(made, 0, 1),
            jnp.where(made, 0, self.consecutive + 1),
            jnp.where(made, self.culprit, jnp.argmin(finite)).astype(jnp.int32),
        )
        return eqx.tree_at(lambda s: (s.total, s.consecutive, s.culprit), self, now)


class SpikesSkipped(Skipped):
    """Number of updates that were skipped, spikes among them, and the window that says what a spike is.

    A spike is a loss, or a norm of the gradients, above mean + factor * standard deviation of those of the last
    accepted updates. Before the window is full there are none.

    Args:
        factor: positive.
        window: at least 2.

    Attributes:
        seen: loss and gradient norm of the last accepted updates, in a ring.
        accepted: number of accepted updates.
        spikes: number of updates that were skipped as spikes.
        culprit: as of `Skipped`; the next but one after the last gradient is a spike of the loss, the one after it of
            the norm.

    Raises:
        ValueError: an argument is out of its range.
    """

    seen: Float[Array, "2 window"]
    accepted: Int[Array, ""]
    spikes: Int[Array, ""]
    factor: float = eqx.field(static=True)

    def __init__(self, factor: float = 6.0, window: int = 128):
        if not 0 < factor < math.inf:
            raise ValueError(f"factor must be positive and finite: got {factor}; Skipped() skips no spikes")
        if window < 2:
            raise ValueError(f"window must be at least 2 updates: got {window}")
        super().__init__()
        self.seen = jnp.zeros((2, window), jnp.float32)
        self.accepted, self.spikes, self.factor = jnp.int32(0), jnp.int32(0), float(factor)

    def spread(self) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """Mean and standard deviation of loss and norm in a full window, the latter at least what float32 resolves."""
        mean = jnp.mean(self.seen, axis=1)
        return mean, jnp.maximum(jnp.std(self.seen, axis=1), 1e-6 * jnp.abs(mean))

    def spiked(self, numbers: Float[Array, "2"]) -> Bool[Array, "2"]:
        """True where a loss or a norm is a spike."""
        mean, deviation = self.spread()
        return (self.accepted >= self.seen.shape[1]) & (numbers > mean + self.factor * deviation)

    def after_both(
        self, finite: Bool[Array, " leaves"], spiked: Bool[Array, "2"], numbers: Float[Array, "2"]
    ) -> "SpikesSkipped":
        """The counts after a step in which these were finite and these spiked, and the window with an accepted one."""
        counted = self.after(jnp.concatenate([finite, ~spiked]))
        made = jnp.all(finite) & ~jnp.any(spiked)
        entered = self.seen.at[:, self.accepted % self.seen.shape[1]].set(numbers)
        now = (
            jnp.where(made, entered, self.seen),
            self.accepted + made.astype(jnp.int32),
            self.spikes + (jnp.all(finite) & jnp.any(spiked)).astype(jnp.int32),
        )
        return eqx.tree_at(lambda s: (s.seen, s.accepted, s.spikes), counted, now)


class Guarded(NamedTuple):
    """Result of `guarded_update`: the new or the old state, the next scale, the counts, and the unscaled gradients to
    be measured.
    """

    kept: PyTree
    scale: LossScale
    skipped: Skipped
    grads: PyTree


def guarded_update(
    update: Callable[[PyTree, Tree], Tree],
    grads: PyTree,
    loss: Float[Array, ""],
    kept: Tree,
    scale: LossScale,
    skipped: Skipped,
    *,
    axes: str | Sequence[str] | None = None,
) -> Guarded:
    """Unscales the gradients, and updates the state with them if they and the loss are finite; else leaves it bit for
    bit as it is.

    Pure: for use under `jit`, `scan` and `shard_map`. With accumulated gradients it is called once, with their sum.

    Args:
        update: (unscaled gradients, kept) -> kept, with clipping, optimiser, averages: all that must not see a number
            that is not finite.
        grads: gradients of the scaled loss, summed over devices.
        loss: the unscaled loss, summed likewise.
        kept: what the update changes; not the counters of steps, which go on.
        scale: the loss scale that the gradients were taken with.
        skipped: the counts so far; `SpikesSkipped` skips spikes too.
        axes: mesh axes over which the gradients are sharded, inside a `shard_map`, whose devices must agree.

    Raises:
        TypeError: the update changed the type or the shape of an array.
    """
    grads = scale.unscale(grads)
    finite = jnp.stack([*map(all_finite, jax.tree.leaves(eqx.filter(grads, eqx.is_inexact_array))), all_finite(loss)])
    if axes:
        finite = jax.lax.pmin(finite.astype(jnp.int32), axes) == 1
    made, scale = jnp.all(finite), scale.adjust(jnp.all(finite))  # of a spike the scale is not to blame
    if isinstance(skipped, SpikesSkipped):
        numbers = jnp.stack([loss.astype(jnp.float32), _norm(grads, axes)])
        spiked = skipped.spiked(numbers)
        made, skipped = made & ~jnp.any(spiked), skipped.after_both(finite, spiked, numbers)
    else:
        skipped = skipped.after(finite)
    return Guarded(choose(made, update(grads, kept), kept), scale, skipped, grads)


def _norm(grads: PyTree, axes: str | Sequence[str] | None) -> Float[Array, ""]:
    """Norm of all gradients, of which each device may have its part."""
    arrays = [x for x in jax.tree.leaves(grads) if eqx.is_inexact_array(x)]
    square = sum((jnp.sum(jnp.square(widen(x))) for x in arrays), jnp.float32(0))
    return jnp.sqrt(jax.lax.psum(square, axes) if axes else square).astype(jnp.float32)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """True where every floating-point number of a tree is finite."""
    arrays = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in arrays])) if arrays else jnp.bool_(True)


def choose(which: Bool[Array, ""], first: Tree, second: Tree) -> Tree:
    """The arrays of the first tree if `which`, else those of the second."""

    def one(path: Any, new: Any, old: Any) -> Any:
        if new is old or not eqx.is_array(old):
            return old
        if (new.dtype, new.shape) != (old.dtype, old.shape):
            name = jax.tree_util.keystr(path)
            raise TypeError(
                f"an update must keep each array's type and shape: {name} was {jax.typeof(old)}, became "
                f"{jax.typeof(new)}"
            )
        return jnp.where(which, new, old)

    return jax.tree_util.tree_map_with_path(one, first, second)


def check_skipped(skipped: Skipped, scale: LossScale, grads: PyTree, *, limit: int, step: int) -> None:
    """Ends a run that makes no progress.

    Args:
        skipped, scale: after the step; reading them waits for it.
        grads: any tree of the gradients' structure, such as the parameters, for the names.
        limit: how many updates in a row may be left out; fewer are passed over in silence.
        step: for the message.

    Raises:
        FloatingPointError: `limit` or more updates in a row were left out, with the step, the scale and the first
            gradient that was not finite, or with the mean that a spike is above.
    """
    if (count := int(skipped.consecutive)) < limit:
        return
    paths = [path for path, leaf in leaves(grads) if eqx.is_inexact_array(leaf)]
    culprit = int(skipped.culprit)
    if isinstance(skipped, SpikesSkipped) and culprit > len(paths):
        number = culprit - len(paths) - 1
        mean, deviation = (float(of[number]) for of in skipped.spread())
        raise FloatingPointError(
            f"no update could be made in {count} steps in a row (the limit is {limit}): at step {step} "
            f"{('the loss', 'the norm of the gradients')[number]} is a spike, above a mean of {mean:g} by "
            f"{skipped.factor:g} times the standard deviation {deviation:g} of the last {skipped.seen.shape[1]} "
            "accepted updates; lower the learning rate, raise the factor, or look at the data"
        )
    what = f"the gradient of {paths[culprit]}" if culprit < len(paths) else "the loss"
    raise FloatingPointError(
        f"no update could be made in {count} steps in a row (the limit is {limit}): at step {step}, with a loss scale "
        f"of {float(scale.factor):g}, {what} is not finite; lower the learning rate, or look at the data and weights"
    )
