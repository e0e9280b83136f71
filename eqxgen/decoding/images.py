"""Decoding of autoregressive models of image tokens, by class (Sun et al. 2024, arXiv:2406.06525) or by text (Yu et al.
2022, arXiv:2206.10789).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.configs import ImageSampling
from eqxgen.decoding.logits import Rules, draw
from eqxgen.decoding.memory import decoding
from eqxgen.decoding.traced import NO_TOKEN, check_drawn, number
from eqxgen.nn import _check
from eqxgen.nn._mesh import on_mesh_of, varying
from eqxgen.protocols import ImageTokenModel

PLAIN = ImageSampling()
Condition = Int[Array, "..."]
"""A label, or a text (text,) as ids."""
Scorer = Callable[[Int[Array, " tokens"], Condition], Float[Array, ""]]
"""(ids of an image, condition) -> score, the higher the better: a classifier, a matching model of images and texts."""


class ImageRules(eqx.Module):
    """`ImageSampling` with its numbers as arrays: other numbers run the same program. A rule that is None is left out
    of it.

    Attributes:
        guidance: None for the conditional model alone.
        ramp: None for a constant guidance.
        first, last: token from which, and before which, the guidance holds.
        candidates: static.
    """

    draws: Rules
    guidance: Float[Array, ""] | None
    ramp: Float[Array, ""] | None
    first: Int[Array, ""]
    last: Int[Array, ""]
    candidates: int = eqx.field(static=True)

    @classmethod
    def of(cls, options: ImageSampling, tokens: int) -> "ImageRules":
        """The rules of a sampler's options.

        Raises:
            ValueError: the guidance ends after the tokens, or the options are of another kind.
        """
        if not isinstance(options, ImageSampling):
            raise ValueError(f"options must be an ImageSampling or ImageRules: got {type(options).__name__}")
        last = tokens if options.guidance_to is None else options.guidance_to
        for name, value in (("guidance_from", options.guidance_from), ("guidance_to", last)):
            if value > tokens:
                raise ValueError(f"decode.{name} must be at most the number of tokens, {tokens}: got {value}")
        guidance = number(options.guidance, neutral=1)
        first, last = (jnp.asarray(value, jnp.int32) for value in (options.guidance_from, last))
        ramp = number(options.guidance_ramp, neutral=0)
        return cls(Rules.of(options.draws), guidance, ramp, first, last, options.candidates)

    def guided(
        self, logits: Float[Array, "halves codes"], token: Int[Array, ""], progress: float | Float[Array, ""]
    ) -> Float[Array, " codes"]:
        """Logits `null + guidance * (given - null)` of a token inside the interval, those of the condition outside.

        Args:
            progress: from 0 at the first draw to 1 at the last, for the ramp.
        """
        if self.guidance is None:
            return logits[0]
        scale = self.guidance if self.ramp is None else 1 + (self.guidance - 1) * progress**self.ramp
        inside = (self.first <= token) & (token < self.last)
        return jnp.where(inside, logits[1] + scale * (logits[0] - logits[1]), logits[0])


def generate(
    model: ImageTokenModel,
    condition: _check.Ids,
    options: ImageSampling | ImageRules = PLAIN,
    *,
    scorer: Scorer | None = None,
    key: PRNGKeyArray,
) -> Int[Array, " tokens"]:
    """Ids of a new image of a class or a text, row by row, every token computed once.

    With guidance the condition and the null are a batch of two with a memory each. Their logits are guided first,
    then divided by the temperature and cut to `top_k` and `top_p`; the one code that is drawn extends both. Other
    numbers in `options` run the same compiled program, except `candidates`.

    Args:
        condition: the class, or the ids of the text; or the null, filled with `model.null_label`.
        options: of the draws, the guidance, and the number of candidates.
        scorer: judges the candidates; by default `evidence`.
        key: of all draws.

    Raises:
        ValueError: the condition is none of the model's, the guidance ends after the tokens, or guidance or `evidence`
            is asked of a model without a null label.
        FloatingPointError: the logits are NaN; inside a compiled program, ids are `NO_TOKEN`, -1, instead.
    """
    return sampled(_drawn, model, condition, options, scorer, key)


def sampled(
    drawn: Callable[[Any, Array, ImageRules, PRNGKeyArray], Array],
    model: Any,
    condition: _check.Ids,
    options: ImageSampling | ImageRules,
    scorer: Scorer | None,
    key: PRNGKeyArray,
) -> Int[Array, " tokens"]:
    """The best of the candidates of an order of tokens; see `generate`.

    Args:
        drawn: (model for decoding, condition, rules, key) -> ids of an image.
    """
    given, null = model.check_condition(condition), model.null_label
    rules = options if isinstance(options, ImageRules) else ImageRules.of(options, model.tokens)
    if rules.guidance is not None and null is None:
        raise ValueError(
            "guidance needs a model with a null label: give guidance=1 for one without, as with null=False"
        )
    if scorer is not None and rules.candidates == 1:
        raise ValueError("scorer needs candidates, of which decode.candidates is the number: got 1")
    if rules.candidates > 1 and scorer is None and null is None:
        raise ValueError("candidates need a scorer for a model without a null label: got none")
    with on_mesh_of(given, key):
        found = _generated(drawn, model, given, rules, scorer, key)
    check_drawn(found)
    return found


@eqx.filter_jit
def _generated(
    drawn: Callable[[Any, Array, ImageRules, PRNGKeyArray], Array],
    model: Any,
    condition: Array,
    rules: ImageRules,
    scorer: Scorer | None,
    key: PRNGKeyArray,
) -> Array:
    reader = decoding(model)
    if rules.candidates == 1:
        return drawn(reader, condition, rules, key)
    judge = scorer or (lambda ids, condition: evidence(model, ids, condition))
    found = jax.vmap(lambda key: drawn(reader, condition, rules, key))(jr.split(key, rules.candidates))
    scores = jax.vmap(lambda ids: jnp.asarray(judge(ids, condition)))(found)
    if scores.ndim != 1:
        raise ValueError(f"scorer must give one number: got shape {scores.shape[1:]}")
    return jnp.where(jnp.isnan(scores).any(), NO_TOKEN, found[jnp.argmax(scores)])


def _drawn(model: Any, condition: Array, rules: ImageRules, key: PRNGKeyArray) -> Array:
    halves, unseen = both(model, condition, rules), jnp.zeros(model.codes, bool)
    one = lambda logits, token: draw(
        rules.guided(logits.astype(jnp.float32), token, token / max(model.tokens - 1, 1)),
        rules.draws,
        unseen,
        key=jr.fold_in(key, token),
    )

    def step(memory: tuple[Array, Any], token: Array) -> tuple[tuple[Array, Any], Array]:
        logits, caches = memory
        code = one(logits, token)
        return eqx.filter_vmap(model.extend, in_axes=(None, 0))(jnp.maximum(code, 0), caches), code

    (logits, _), codes = jax.lax.scan(step, eqx.filter_vmap(model.start)(halves), jnp.arange(model.tokens - 1))
    return jnp.append(codes, one(logits, jnp.asarray(model.tokens - 1)))


def both(model: Any, condition: Condition, rules: ImageRules) -> Int[Array, "halves ..."]:
    """The condition, and with guidance the null after it."""
    if rules.guidance is None:
        return condition[None]
    return jnp.stack([condition, varying(jnp.full_like(condition, model.null_label), condition)])


def log_likelihood(model: ImageTokenModel, ids: _check.Ids, condition: _check.Ids) -> Float[Array, ""]:
    """Log-probability of an image's tokens, given its condition, in nats.

    Raises:
        ValueError: an id or the condition is none of the model's, or of another shape.
    """
    ids = _check.ids(ids, model.codes, "ids", "codes")
    log_prob = jax.nn.log_softmax(model(ids, model.check_condition(condition), inference=True))
    return jnp.sum(jnp.take_along_axis(log_prob, ids[:, None], axis=-1))


def evidence(model: ImageTokenModel, ids: _check.Ids, condition: _check.Ids) -> Float[Array, ""]:
    """Log-odds of an image's tokens with its condition against those without: the model as its own classifier.

    Raises:
        ValueError: the model has no null label, or an id or the condition is none of the model's.
    """
    if model.null_label is None:
        raise ValueError("evidence needs a model with a null label: train one with label dropout")
    condition = model.check_condition(condition)
    null = jnp.full_like(condition, model.null_label)
    return log_likelihood(model, ids, condition) - log_likelihood(model, ids, null)
