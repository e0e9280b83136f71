"""Samples of models of image tokens."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..evaluators.examples import Examples


class Draw(eqx.Module):
    """An image in [-1, 1] of a label, for `train.evaluators.stream.Stream`.

    Its arguments are (model, tokenizer, key) and an example with `label`. Image i depends on the key, i and its label
    alone.

    Args:
        sampler: (model, label, key=) -> ids of the tokens.
    """

    sampler: Callable[..., Any]

    def __call__(
        self, tree: tuple[Any, Any, PRNGKeyArray], example: dict[str, Array]
    ) -> Float[Array, "height width channels"]:
        model, tokenizer, key = tree
        return tokenizer.decode(self.sampler(model, example["label"], key=jr.fold_in(key, example["index"])))


def labelled(labels: Int[np.ndarray, " n"]) -> Examples:
    """Examples of which each is a label."""
    return Examples.of(250, label=labels.astype(np.int32))
