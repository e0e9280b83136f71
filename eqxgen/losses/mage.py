"""Loss of MAGE (Li et al. 2022, arXiv:2211.09117, section 3)."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import MaskRatio
from eqxgen.decoding.orders import check_grid
from eqxgen.losses.labels import smoothed_cross_entropy
from eqxgen.losses.masked import checked
from eqxgen.models.mage import MAGE
from eqxgen.nn import _check
from eqxgen.rng import RNG

PLAIN = MaskRatio()


class Masks(NamedTuple):
    """Tokens of an image that a training step hides.

    Attributes:
        kept: numbers of the tokens that the encoder sees, in order.
        masked: tokens that are masked or dropped, the targets of the loss.
    """

    kept: Int[Array, " kept"]
    masked: Bool[Array, " tokens"]


class MAGELoss(NamedTuple):
    """Numbers of one image.

    Attributes:
        loss: mean cross-entropy of the masked tokens in nats.
        correct: share of them whose likeliest code is the true one.
        masked: number of masked tokens.
        vector: that MAGE-C contrasts; None for a model without a projection.
    """

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    masked: Float[Array, ""]
    vector: Float[Array, " projection"] | None


def draw_ratio(ratio: MaskRatio, *, key: PRNGKeyArray) -> Float[Array, ""]:
    """A share of masked tokens: a normal draw of which what is outside [least, most] is drawn again."""
    low, high = ((end - ratio.mean) / ratio.deviation for end in (ratio.least, ratio.most))
    share = ratio.mean + ratio.deviation * jr.truncated_normal(key, low, high)
    return jnp.clip(share, ratio.least, ratio.most)


def draw_masks(tokens: int, ratio: MaskRatio = PLAIN, *, key: PRNGKeyArray) -> Masks:
    """Masks of one image: ⌈tokens · share⌉ tokens are masked, at least one, of which ⌈tokens · least⌉ are dropped."""
    _check.positive(tokens=tokens)
    ratio_key, order_key = jr.split(key)
    count = jnp.maximum(1, jnp.ceil(tokens * draw_ratio(ratio, key=ratio_key)))
    return masks_of(jr.uniform(order_key, (tokens,)), count, math.ceil(tokens * ratio.least))


def masks_of(noise: Float[Array, " tokens"], count: Float[Array, ""] | int, dropped: int) -> Masks:
    """Masks of the `count` tokens of the smallest noise, of which the first `dropped` are not seen."""
    order = jnp.argsort(noise)
    return Masks(jnp.sort(order[dropped:]), jnp.argsort(order) < count)


def mage_loss(
    model: MAGE,
    ids: _check.Ids,
    label: _check.Ids,
    masks: Masks | None = None,
    *,
    ratio: MaskRatio = PLAIN,
    label_smoothing: float = 0.1,
    label_dropout: float = 0.1,
    key: PRNGKeyArray | None = None,
) -> MAGELoss:
    """Training loss of one image; the mean over a batch is the loss of the original, whose images of a batch share one
    number of masked tokens.

    Args:
        model: in training mode.
        ids: tokens of the image.
        label: its class, or `model.null_label`.
        masks: by default drawn from `ratio`.
        ratio: of the drawn masks.
        label_smoothing: weight of the uniform distribution in the target; 0.1 in the original.
        label_dropout: probability that the null label replaces the label.
        key: of the masks, the label dropout and the model's dropout; not needed where none is drawn.

    Raises:
        ValueError: a key is needed and missing, a probability or the smoothing is out of its range, an id or the label
            is none of the model's, or the masks are of another number of tokens.
    """
    _check.probability(label_dropout=label_dropout)
    _check.rate(label_smoothing=label_smoothing)
    ids, label = checked(model, ids, label)
    if key is None and (masks is None or label_dropout):
        raise ValueError("key must be given where masks or null labels are drawn: got None")
    if masks is not None:
        _check.example(masks.masked, name="masks.masked", tokens=model.tokens)
    keys = iter(()) if key is None else RNG(key)
    masks = draw_masks(model.tokens, ratio, key=next(keys)) if masks is None else masks
    if label_dropout:
        label = jnp.where(jr.uniform(next(keys)) < label_dropout, model.null_label, label)
    hidden = jnp.where(masks.masked, model.mask_id, ids)
    encoder_key, decoder_key = (None, None) if key is None else (next(keys), next(keys))
    states = model.encoded(hidden, label, kept=masks.kept, key=encoder_key)
    logits = model.decoded(states, masks.masked, kept=masks.kept, key=decoder_key)
    losses, count = smoothed_cross_entropy(logits, ids, label_smoothing), jnp.sum(masks.masked)
    correct = jnp.sum((jnp.argmax(logits, axis=-1) == ids) & masks.masked)
    vector = None if model.projection is None else model.projected(states)
    return MAGELoss(
        losses @ masks.masked.astype(losses.dtype) / count, correct / count, count.astype(jnp.float32), vector
    )


def check_reach(reach: int, grid: tuple[int, int]) -> None:
    """Raises `ValueError` unless a move by the reach leaves some of the grid."""
    _check.not_negative(shift=reach)
    if reach >= min(grid):
        raise ValueError(
            f"shift must be below the shorter side of the grid of {grid[0]} x {grid[1]} tokens: got {reach}"
        )


def shifted(
    ids: Int[Array, " tokens"], grid: tuple[int, int], reach: int, *, key: PRNGKeyArray
) -> Int[Array, " tokens"]:
    """Tokens of a grid moved by up to `reach` places each way, the edges repeated: a view of an image for MAGE-C.

    Raises:
        ValueError: the grid does not have a cell for each token, or the reach is none of 0 to its shorter side less 1.
    """
    check_grid(len(ids), grid)
    check_reach(reach, grid)
    rows, columns = (jnp.arange(size) for size in grid)
    down, right = jr.randint(key, (2,), -reach, reach + 1)
    at = lambda places, by: jnp.clip(places + by, 0, len(places) - 1)
    return ids.reshape(grid)[at(rows, down)[:, None], at(columns, right)[None, :]].reshape(-1)
