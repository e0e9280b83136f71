"""Loss of autoregressive models of image tokens, by class (Sun et al. 2024, arXiv:2406.06525) or by text (Yu et al.
2022, arXiv:2206.10789).
"""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.losses.masked import checked
from eqxgen.nn import _check
from eqxgen.nn._call import given
from eqxgen.protocols import ImageTokenModel
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
    model: ImageTokenModel,
    ids: _check.Ids,
    condition: _check.Ids,
    *,
    label_dropout: float = 0.1,
    shuffled: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray,
) -> ImageARLoss:
    """Training loss of one example.

    Args:
        model: in training mode.
        ids: tokens of the example.
        condition: its class, or the ids of its text.
        label_dropout: probability that the null replaces the condition.
        shuffled: probability of a random order instead of row by row (Yu et al. 2024, arXiv:2411.00776, which lowers it
            from 1 to 0 in training); None: always row by row.
        key: of the null, the order and the model's dropout.

    Raises:
        ValueError: `label_dropout` is given with a model that has no null label, or `shuffled` with one that takes no
            order; a probability is out of its range, or an id or the condition is none of the model's.
    """
    _check.probability(label_dropout=label_dropout)
    if isinstance(shuffled, int | float):
        _check.probability(shuffled=shuffled)
    if shuffled is not None and "order" not in inspect.signature(type(model).__call__).parameters:
        raise ValueError(f"shuffled must be None for a {type(model).__name__}, which takes no order: got {shuffled}")
    ids, condition = checked(model, ids, condition)
    keys = RNG(key)
    dropped = jr.uniform(next(keys)) < label_dropout
    if label_dropout:
        if model.null_label is None:
            raise ValueError(f"label_dropout must be 0 for a model without a null label: got {label_dropout}")
        condition = jnp.where(dropped, model.null_label, condition)
    model_key, order = next(keys), None
    if shuffled is not None:
        rows = jnp.arange(model.tokens)
        order = jnp.where(jr.uniform(next(keys)) < shuffled, jr.permutation(next(keys), rows), rows)
    logits = model(ids, condition, key=model_key, **given(order=order))
    wanted = ids if order is None else ids[order]
    hit = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[:, None], axis=-1)
    return ImageARLoss(-jnp.sum(hit), jnp.sum(jnp.argmax(logits, axis=-1) == wanted).astype(jnp.float32))
