"""Losses of held-out examples."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PyTree

from eqxgen.losses.tokens import next_token_losses
from eqxgen.metrics import CrossEntropy, Mean

from ..config.evals import HELD_OUT, VALIDATION
from ..engine.recipe import Context, Loss
from .base import Evaluator
from .examples import Examples
from .stream import Stream


def held_out(
    loss: Loss, examples: Examples, parts: Callable[[PyTree], tuple[PyTree, PyTree]] = lambda model: (model, None)
) -> Evaluator:
    """`eval_loss`: the training loss of held-out examples without dropout, the i-th with the same draws at every call.

    Args:
        loss: of a batch.
        examples: arrays of a batch.
        parts: released model -> model and model state.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        mean = Mean()
        tree = *eqx.nn.inference_mode(parts(model)), frozen, jr.key(0)
        for total, weight in stream.map(_Loss(loss), tree, examples):
            mean = mean.add(total, weight)
        (mean,) = stream.total(mean)
        return {"eval_loss": mean.result()}

    return Evaluator(HELD_OUT, run)


def validation(examples: Examples) -> Evaluator:
    """`val_loss`, the mean cross-entropy in nats of each token of held-out windows without dropout, and
    `val_perplexity`.

    Args:
        examples: `ids`, windows that are a token longer than the model's context.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        loss = validation_loss(model, examples, stream)
        return {"val_loss": loss.result(), "val_perplexity": loss.perplexity()}

    return Evaluator(VALIDATION, run)


def validation_loss(model: PyTree, examples: Examples, stream: Stream) -> CrossEntropy:
    """The cross-entropy of a language model's next tokens; see `validation`."""
    metric = CrossEntropy()
    for losses in stream.map(_token_losses, eqx.nn.inference_mode(model), examples):
        metric = metric.update(losses)
    return stream.total(metric)[0]


class _Loss(eqx.Module):
    loss: Loss = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array]:
        model, state, frozen, key = tree
        batch = {name: array[None] for name, array in example.items()} | {"weight": jnp.ones(1)}
        sums = self.loss(model, batch, jr.fold_in(key, example["index"])[None], Context(state, frozen))
        return sums.loss, jnp.asarray(sums.weight)


def _token_losses(model: Any, example: dict[str, Array]) -> Array:
    return next_token_losses(model, example["ids"][:-1], example["ids"][1:])
