"""Samples and losses of models over many examples."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..engine.recipe import Context
from ..evaluators.batched import batched
from .tokenizers import Tokenizer


def draw_images(
    draw: Callable[..., Any], model: Any, tokenizer: Tokenizer, labels: Int[np.ndarray, " n"], key: PRNGKeyArray
) -> Float[np.ndarray, "n height width channels"]:
    """An image in [-1, 1] of each label. Image i depends on the key, i and its label alone.

    Args:
        draw: (model, label, key=) -> ids of one image; a pytree, such as an `equinox.Partial`.
    """
    return batched(_Draw(draw, model, tokenizer, key), labels, np.arange(len(labels), dtype=np.int32), batch_size=250)


class _Draw(eqx.Module):
    draw: Callable[..., Any]
    model: Any
    tokenizer: Any
    key: PRNGKeyArray

    def __call__(self, label: Int[Array, ""], index: Int[Array, ""]) -> Float[Array, "height width channels"]:
        return self.tokenizer.decode(self.draw(self.model, label, key=jr.fold_in(self.key, index)))


def eval_loss(loss: Callable, model: Any, examples: dict[str, np.ndarray]) -> float:
    """The training loss of held-out examples, without dropout, the i-th with the same mask at every call."""
    names, arrays = zip(*examples.items())
    sums = batched(_Loss(loss, eqx.nn.inference_mode(model), names), np.arange(len(arrays[0]), dtype=np.int32), *arrays)
    total, weight = np.sum(sums[0], dtype=np.float64), np.sum(sums[1], dtype=np.float64)
    return float(total / weight)


class _Loss(eqx.Module):
    loss: Callable = eqx.field(static=True)
    model: Any
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, index: Int[Array, ""], *arrays: Array) -> tuple[Array, Array]:
        batch = {name: array[None] for name, array in zip(self.names, arrays)} | {"weight": jnp.ones(1)}
        sums = self.loss(self.model, batch, jr.fold_in(jr.key(0), index)[None], Context())
        return sums.loss, jnp.asarray(sums.weight)
