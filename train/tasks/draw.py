"""Samples and losses of a trained MaskGIT over many examples."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.configs import MaskedDecoding
from eqxgen.decoding.masked import MaskedModel, generate

from .._errors import UsageError
from ..engine.recipe import Context
from ..evaluators.batched import batched


def check_steps(steps: int, tokens: int, flag: str) -> None:
    """Raises `UsageError` unless there are at most as many guesses as tokens."""
    if not 1 <= steps <= tokens:
        raise UsageError(f"{flag} must be from 1 to the number of tokens, {tokens}: got {steps}")


class _Draw(eqx.Module):
    model: MaskedModel
    tokenizer: Any
    key: PRNGKeyArray
    options: MaskedDecoding = eqx.field(static=True)

    def __call__(self, label: Int[Array, ""], index: Int[Array, ""]) -> Float[Array, "height width channels"]:
        ids = generate(self.model, label, self.options, key=jr.fold_in(self.key, index))
        return self.tokenizer.decode(ids)


def draw_maskgit(
    model: MaskedModel, tokenizer: Any, labels: Int[np.ndarray, " n"], options: MaskedDecoding, key: PRNGKeyArray
) -> Float[np.ndarray, "n height width channels"]:
    """An image in [-1, 1] of each label. Image i depends on the key, i and its label alone, not on how many are
    drawn.
    """
    draw = _Draw(model, tokenizer, key, options)
    return batched(draw, labels, np.arange(len(labels), dtype=np.int32), batch_size=250)


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
