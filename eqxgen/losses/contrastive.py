"""Contrastive losses of two views of each example of a batch (Chen et al. 2020, arXiv:2002.05709)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen


def info_nce(
    first: Float[Array, "batch dim"],
    second: Float[Array, "batch dim"],
    *,
    temperature: float = 0.2,
    weight: Float[Array, " batch"] | None = None,
    axes: tuple[str, ...] = (),
) -> Float[Array, " batch"]:
    """InfoNCE of each example (equation 1), the mean of its two views: the other view is the likely one of all vectors
    of the batch but itself, by cosine similarities over the temperature, in float32 at least.

    Args:
        first, second: vectors of the two views, of any length above zero.
        temperature: divides the similarities.
        weight: 0 for examples that are no negatives of others, such as padding; by default 1.
        axes: of a mesh over which the batch is split, inside `jax.shard_map`: the negatives are those of every device,
            with their gradients.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive: got {temperature}")
    unit = lambda x: widen(x) / jnp.maximum(jnp.linalg.norm(widen(x), axis=-1, keepdims=True), 1e-12)
    batch, views = len(first), jnp.concatenate([unit(first), unit(second)])
    weight = jnp.ones(batch) if weight is None else weight
    others, counted = (_gathered(x, axes) for x in (views, jnp.concatenate([weight, weight])))
    scores = views @ others.T / temperature
    start = jax.lax.axis_index(axes) * 2 * batch if axes else 0
    own = start + jnp.arange(2 * batch)
    self_ = own[:, None] == jnp.arange(len(others))[None, :]
    negatives = jnp.where(self_ | (counted[None, :] == 0), jnp.finfo(scores.dtype).min, scores)
    likely = jnp.sum(views * jnp.roll(views, batch, axis=0), axis=-1) / temperature
    each = jax.nn.logsumexp(negatives, axis=-1) - likely
    return (each[:batch] + each[batch:]) / 2


def _gathered(x: Array, axes: tuple[str, ...]) -> Array:
    return jax.lax.all_gather(x, axes, tiled=True) if axes else x
