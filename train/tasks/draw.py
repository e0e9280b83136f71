"""Samples of models of image tokens."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from ..evaluators.examples import Examples


def drawn(tree: Any, example: dict[str, Array]) -> Float[Array, "height width channels"]:
    """An image in [-1, 1] of a label, for `train.evaluators.stream.Stream`; NaN where the model's logits are. Image i
    depends on the key, i and its label alone.

    Args:
        tree: (model, tokenizer, sampler, key). The sampler is (model, label, key=) -> ids of the tokens; its numbers
            are arrays, so that others run the same program.
        example: with `label`.
    """
    return _image(tree, example["label"], example["index"])


def drawn_by_text(tree: Any, example: dict[str, Array]) -> Float[Array, "height width channels"]:
    """As `drawn`, of an example with `text`."""
    return _image(tree, example["text"], example["index"])


def _image(tree: Any, condition: Array, index: Array) -> Float[Array, "height width channels"]:
    model, tokenizer, sampler, key = tree
    ids = sampler(model, condition, key=jr.fold_in(key, index))
    image = tokenizer.decode(jnp.maximum(ids, 0))
    return jnp.where((ids < 0).any(), jnp.nan, image)


def ids_by_text(tree: Any, example: dict[str, Array]) -> Int[Array, " tokens"]:
    """The ids alone, of an example with `text`; -1 where the model's logits are NaN.

    Args:
        tree: (model, sampler, key).
    """
    model, sampler, key = tree
    return sampler(model, example["text"], key=jr.fold_in(key, example["index"]))


def labelled(labels: Int[np.ndarray, " n"]) -> Examples:
    """Examples of which each is a label."""
    return Examples.of(250, label=labels.astype(np.int32))
