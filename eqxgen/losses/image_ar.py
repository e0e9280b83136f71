"""Loss of class-conditional autoregressive models of image tokens (Sun et al. 2024, arXiv:2406.06525)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.models.image_ar import ImageAR
from eqxgen.rng import RNG


class ImageARLoss(NamedTuple):
    """Sums over the tokens of one image.

    Attributes:
        loss: cross-entropy in nats.
        correct: number of tokens whose likeliest code is the true one.
    """

    loss: Float[Array, ""]
    correct: Float[Array, ""]


def image_ar_loss(
    model: ImageAR,
    ids: Int[Array, " tokens"],
    label: Int[Array, ""],
    *,
    label_dropout: float = 0.1,
    shuffled: Float[Array, ""] | None = None,
    key: PRNGKeyArray,
) -> ImageARLoss:
    """Training loss of one example.

    Args:
        model: in training mode.
        ids: tokens of the example.
        label: its class.
        label_dropout: probability that the null label replaces the label.
        shuffled: probability of a random order instead of row by row (Yu et al. 2024, arXiv:2411.00776, which lowers it
            from 1 to 0 in training); None: always row by row.
        key: of the label dropout, the order and the model's dropout.

    Raises:
        ValueError: `label_dropout` is given with a model that has no null label, or `shuffled` with one that does not
            know the token to come.
    """
    keys = RNG(key)
    dropped = jr.uniform(next(keys)) < label_dropout
    if label_dropout:
        if model.null_label is None:
            raise ValueError(f"label_dropout must be 0 for a model without a null label: got {label_dropout}")
        label = jnp.where(dropped, model.null_label, label)
    model_key, order = next(keys), None
    if shuffled is not None:
        rows = jnp.arange(model.tokens)
        order = jnp.where(jr.uniform(next(keys)) < shuffled, jr.permutation(next(keys), rows), rows)
    logits = model(ids, label, order=order, key=model_key)
    wanted = ids if order is None else ids[order]
    hit = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[:, None], axis=-1)
    return ImageARLoss(-jnp.sum(hit), jnp.sum(jnp.argmax(logits, axis=-1) == wanted).astype(jnp.float32))
