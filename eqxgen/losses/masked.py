"""Loss of masked token models (Chang et al. 2022, arXiv:2202.04200, section 3.1), and its weights in the view of masked
diffusion (Sahoo et al. 2024, arXiv:2406.07524).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.configs import WEIGHTINGS
from eqxgen.decoding.masked import Schedule, mask_schedule
from eqxgen.nn import _check
from eqxgen.protocols import MaskedModel
from eqxgen.rng import RNG


class MaskedLoss(NamedTuple):
    """Sums over the masked tokens of one example, so that a batch weighs each masked token alike on any number of
    devices.

    Attributes:
        loss: cross-entropy in nats.
        correct: number of tokens whose likeliest code is the true one.
        masked: number of masked tokens; with the weights of `mdlm`, of which `loss` and `correct` are sums, all tokens.
    """

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    masked: Float[Array, ""]


def masked_loss(
    model: MaskedModel,
    ids: _check.Ids,
    condition: _check.Ids,
    *,
    schedule: str = "cosine",
    label_smoothing: float = 0.1,
    label_dropout: float = 0.1,
    weighting: str = "none",
    key: PRNGKeyArray,
) -> MaskedLoss:
    """Training loss of one example.

    A share schedule(u), u uniform in [0, 1), of the tokens is masked, at least one.

    Args:
        model: in training mode.
        ids: tokens of the example.
        condition: its class, or the ids of its text.
        schedule: a name for `mask_schedule`.
        label_smoothing: weight of the uniform distribution in the target; 0.1 in the paper.
        label_dropout: probability that the null replaces the condition.
        weighting: `none`, the paper's; or `mdlm`, the weight |schedule'(u)| / share of each masked token. Without label
            smoothing, the mean of loss / masked is then a bound of the negative log-likelihood in nats per token, the
            same of every schedule (arXiv:2406.07524, equation 10).
        key: of the mask, the label dropout and the model's dropout.

    Raises:
        ValueError: `label_dropout` is given with a model that has no null label, the weighting is unknown, a
            probability or the smoothing is out of its range, or an id or the condition is none of the model's.
    """
    _check.one_of("weighting", weighting, WEIGHTINGS)
    _check.probability(label_dropout=label_dropout)
    _check.rate(label_smoothing=label_smoothing)
    ids, condition = checked(model, ids, condition)
    keys = RNG(key)
    share, u = mask_schedule(schedule, model.tokens), jr.uniform(next(keys))
    count = jnp.maximum(1, jnp.round(share(u) * model.tokens))
    rank = jnp.argsort(jnp.argsort(jr.uniform(next(keys), ids.shape)))
    masked = rank < count
    dropped = jr.uniform(next(keys)) < label_dropout
    if label_dropout:
        if model.null_label is None:
            raise ValueError(f"label_dropout must be 0 for a model without a null label: got {label_dropout}")
        condition = jnp.where(dropped, model.null_label, condition)
    logits = model(jnp.where(masked, model.mask_id, ids), condition, key=next(keys))
    log_prob = jax.nn.log_softmax(logits)
    hit = jnp.take_along_axis(log_prob, ids[:, None], axis=-1)[:, 0]
    cross_entropy = -(1 - label_smoothing) * hit - label_smoothing * jnp.mean(log_prob, axis=-1)
    correct = jnp.argmax(logits, axis=-1) == ids
    total = lambda x: jnp.sum(x).astype(jnp.float32)
    loss = MaskedLoss(jnp.sum(cross_entropy * masked), total(correct & masked), total(masked))
    if weighting == "none":
        return loss
    weight = _rate(share, u) * model.tokens / count
    return MaskedLoss(weight * loss.loss, weight * loss.correct, jnp.float32(model.tokens))


def checked(model: Any, ids: _check.Ids, condition: _check.Ids) -> tuple[Int[Array, " tokens"], Int[Array, "..."]]:
    """An example as arrays.

    Raises:
        ValueError: an id or the condition is none of the model's, or of another shape.
    """
    ids = _check.ids(ids, model.codes, "ids", "codes")
    _check.example(ids, name="ids", tokens=model.tokens)
    return ids, model.check_condition(condition)


def _rate(share: Schedule, u: Float[Array, ""]) -> Float[Array, ""]:
    """|schedule'(u)|, away from the ends, where some schedules are vertical."""
    return jnp.abs(jax.grad(share)(jnp.clip(u, 1e-6, 1 - 1e-6)))
