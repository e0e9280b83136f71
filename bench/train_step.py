"""A train step of ours as a contender of a race: loss, gradients and an optimiser's update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.random as jr
import optax

from bench.race import Side


def update_of(
    mean_loss: Callable[[Any, Any], jax.Array], arrays: Any, optimizer: optax.GradientTransformation, batch: int
) -> tuple[Callable, list[Any]]:
    """A train step and its arguments: (parameters, optimiser state, key) -> (the same after the step, loss).

    Args:
        mean_loss: of the parameters and a key for each example.
    """

    def step(arrays: Any, state: Any, key: Any) -> tuple[Any, Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(mean_loss)(arrays, jr.split(key, batch))
        updates, state = optimizer.update(grads, state, arrays)
        return optax.apply_updates(arrays, updates), state, jr.fold_in(key, 0), value

    return step, [arrays, optimizer.init(arrays), jr.key(3)]


def stepping(step: Callable, held: list[Any]) -> Side:
    """Calls that keep their state from one to the next; the arguments are given up to them."""
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*held).compile()

    def call() -> jax.Array:
        *held[:], value = compiled(*held)
        return value

    return Side(call)
