"""Sums of one batch inside a compiled step, over the axes of a mesh where they are named: what a stream is merged with.

    sums = mean_sums(losses, axis="data")                       # within jit and shard_map
    state = state.merge(Mean(*jax.device_get(sums)))            # on the host, in float64

`mean_sums` goes to `Mean`, in which `Accuracy`, `CrossEntropy`, `PSNR` and `SSIM` consist; `code_sums` to `CodeCounts`,
`confusion_sums` to `Confusion`, `moment_sums` to `Moments`, in which `Pearson` consists. `Spearman` and `FeatureRows`
keep rows, which are gathered and not summed.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, Shaped

Axis = str | Sequence[str] | None
"""Axes of the mesh that share the batch; None in a step of one device."""


def mean_sums(
    values: Shaped[Array, "..."], weight: Shaped[Array, "..."] | float = 1.0, *, axis: Axis = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sums of values times weights, and of the weights, in float32 at least."""
    wide = jnp.promote_types(jnp.result_type(values, jnp.float32), jnp.float32)
    weights = jnp.broadcast_to(jnp.asarray(weight, wide), jnp.shape(values))
    return _over(axis, jnp.sum(values.astype(wide) * weights)), _over(axis, jnp.sum(weights))


def code_sums(ids: Int[Array, "..."], codes: int, *, axis: Axis = None) -> tuple[Float[Array, " codes"]]:
    """Occurrences of each code, exact up to 2^24; all NaN if an id is not in [0, codes)."""
    counts = jnp.zeros(codes, jnp.float32).at[ids.reshape(-1)].add(1.0)
    return (_over(axis, jnp.where(_within(ids, codes), counts, jnp.nan)),)


def confusion_sums(
    guesses: Int[Array, " n"], labels: Int[Array, " n"], classes: int, *, axis: Axis = None
) -> tuple[Float[Array, "classes classes"]]:
    """Counts of (label, guess), exact up to 2^24; all NaN if a class is not in [0, classes)."""
    counts = jnp.zeros((classes, classes), jnp.float32).at[labels, guesses].add(1.0)
    known = _within(guesses, classes) & _within(labels, classes)
    return (_over(axis, jnp.where(known, counts, jnp.nan)),)


def moment_sums(
    features: Num[Array, "n dim"], *, axis: Axis = None
) -> tuple[Float[Array, ""], Float[Array, " dim"], Float[Array, "dim dim"]]:
    """Number, mean and scatter Σ (x - μ)(x - μ)ᵀ of the rows, of which the mean of the whole batch is taken first: sums
    of squares would cancel.
    """
    wide = jnp.promote_types(jnp.result_type(features, jnp.float32), jnp.float32)
    rows = _over(axis, jnp.asarray(len(features), wide))
    values = features.astype(wide)
    shift = _over(axis, jnp.sum(values, axis=0)) / rows
    left = values - shift  # the sum of a large mean is rounded; that of what is left is small
    rest = _over(axis, jnp.sum(left, axis=0)) / rows
    centred = left - rest
    product = jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST)
    return rows, shift + rest, _over(axis, product)


def _over(axis: Axis, total: Array) -> Array:
    return total if axis is None else jax.lax.psum(total, axis if isinstance(axis, str) else tuple(axis))


def _within(ids: Int[Array, "..."], size: int) -> Array:
    return jnp.all((ids >= 0) & (ids < size))
