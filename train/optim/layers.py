"""Steps of a chain that look at each layer of stacked parameters on its own."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..config.optim import OptimConfig
from .groups import Group, check_groups, groups_of


def trust_ratio(config: OptimConfig) -> optax.GradientTransformation:
    """Each layer's update, scaled to the norm of its weights (LAMB, arXiv:1904.00962, algorithm 2, with φ the
    identity).
    """

    def scale(group: Group, update: Array, param: Array) -> Array:
        axes = tuple(range(int(group.stacked), update.ndim))
        norm = lambda x: jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=axes, keepdims=True))
        of_param, of_update = norm(param), norm(update)
        safe = jnp.where(of_update > 0, of_update, 1)
        return update * jnp.where((of_param > 0) & (of_update > 0), of_param / safe, 1).astype(update.dtype)

    def update(updates: PyTree, params: PyTree | None) -> PyTree:
        return jax.tree.map(scale, groups_of(config, updates), updates, params)

    return optax.stateless(update)


def lars_ratio(config: OptimConfig) -> optax.GradientTransformation:
    """λ (g + β w) for each layer's matrix, with λ = η ‖w‖ / (‖g‖ + β ‖w‖), β being its weight decay and η `trust`
    (LARS, You et al. 2017, arXiv:1708.03888, algorithm 1). Vectors, and layers where a norm is 0, have g + β w.

    optax's has ‖g + β w‖ below the line.
    """

    def scale(group: Group, gradient: Array, param: Array) -> Array:
        beta = config.weight_decay if group.decayed else 0.0
        decayed = gradient + beta * param
        if not group.matrix:
            return decayed
        axes = tuple(range(int(group.stacked), gradient.ndim))
        norm = lambda x: jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=axes, keepdims=True))
        of_param, of_gradient = norm(param), norm(gradient)
        both = (of_param > 0) & (of_gradient > 0)
        ratio = config.trust * of_param / jnp.where(both, of_gradient + beta * of_param, 1)
        return decayed * jnp.where(both, ratio, 1).astype(gradient.dtype)

    def update(updates: PyTree, params: PyTree | None) -> PyTree:
        return jax.tree.map(scale, groups_of(config, updates), updates, params)

    return optax.stateless(update)


def scale_by_group(config: OptimConfig) -> optax.GradientTransformation:
    """Each update times its group's multiplier of the learning rate, layer by layer where it is stacked."""

    def scale(group: Group, update: Array) -> Array:
        if set(group.rates) == {1.0}:
            return update
        shape = (len(group.rates),) + (1,) * (update.ndim - 1) if group.stacked else ()
        return update * jnp.asarray(group.rates, update.dtype).reshape(shape)

    def init(params: PyTree) -> optax.EmptyState:
        check_groups(config, params)
        return optax.EmptyState()

    def update(updates: PyTree, state: optax.OptState, params: PyTree | None = None) -> tuple[PyTree, optax.OptState]:
        return jax.tree.map(scale, groups_of(config, updates), updates), state

    return optax.GradientTransformation(init, update)


def like_adam(config: OptimConfig) -> optax.GradientTransformation:
    """Orthogonal updates scaled to the size of Adam's, so that one learning rate serves both (arXiv:2502.16982,
    equation 4).
    """

    def scale(group: Group, update: Array) -> Array:
        rows, columns = _sides(group)
        return update * (0.2 * max(rows, columns) ** 0.5)

    def update(updates: PyTree, params: PyTree | None) -> PyTree:
        return jax.tree.map(scale, groups_of(config, updates), updates)

    return optax.stateless(update)


def _sides(group: Group) -> tuple[int, int]:
    """Rows and columns of a kernel as a matrix: (out, in) of a linear map, all but the last axis and the last of a
    convolution.
    """
    shape = group.shape[int(group.stacked) :]
    rows = 1
    for side in shape[:-1]:
        rows *= side
    return rows, shape[-1]
