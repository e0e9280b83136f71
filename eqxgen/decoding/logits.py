"""Transformations of logits, and the draw of a token: pure functions of one position."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import Sampling
from eqxgen.decoding.traced import NO_TOKEN, bucket, number

NEVER = -jnp.inf
LEAST_TOP_K = 64
"""Every `top_k` up to this runs the same program."""


class Rules(eqx.Module):
    """Options of a draw as arrays: other numbers run the same program. A rule that is None is left out of it.

    Attributes:
        temperature: None for the likeliest token (greedy).
        most: static bound of `top_k`.
    """

    temperature: Float[Array, ""] | None
    top_k: Int[Array, ""] | None
    top_p: Float[Array, ""] | None
    min_p: Float[Array, ""] | None
    repetition_penalty: Float[Array, ""] | None
    most: int = eqx.field(static=True)

    @classmethod
    def of(cls, options: Sampling) -> "Rules":
        """The rules of a sampler's options."""
        k = options.top_k
        return cls(
            number(options.temperature, neutral=0),
            None if k is None else jnp.asarray(k, jnp.int32),
            number(options.top_p),
            number(options.min_p),
            number(options.repetition_penalty, neutral=1),
            0 if k is None else bucket(k, LEAST_TOP_K),
        )


def penalised(
    logits: Float[Array, " vocab"], seen: Bool[Array, " vocab"], penalty: float | int | Float[Array, ""]
) -> Float[Array, " vocab"]:
    """Logits of seen tokens, divided by the penalty where positive and multiplied where negative (Keskar et al. 2019,
    section 4.1).
    """
    scaled = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, jnp.minimum(scaled, jnp.finfo(logits.dtype).max), logits)


def tempered(
    logits: Float[Array, "*leading vocab"], temperature: float | int | Float[Array, ""]
) -> Float[Array, "*leading vocab"]:
    """Logits over a positive temperature, the largest of them 0: of however small a temperature, none overflows."""
    least = jnp.finfo(logits.dtype).tiny  # below it, processors take numbers for zero
    return (logits - jnp.max(logits, axis=-1, keepdims=True)) / jnp.maximum(temperature, least)


def top_k(logits: Float[Array, " vocab"], k: int | Int[Array, ""], most: int | None = None) -> Float[Array, " vocab"]:
    """-inf for all but the k largest and those equal to the k-th; a k above the vocabulary's size keeps all.

    Args:
        most: static bound of k where k is an array.
    """
    bound = min(int(k) if most is None else most, logits.shape[-1])
    least = jax.lax.top_k(logits, bound)[0][jnp.minimum(k, bound) - 1]
    return jnp.where(logits >= least, logits, NEVER)


def top_p(logits: Float[Array, " vocab"], p: float | int | Float[Array, ""]) -> Float[Array, " vocab"]:
    """-inf for all but the fewest largest whose probabilities sum to p; the largest is always kept (Holtzman et al.
    2019).
    """
    order = jnp.argsort(-logits)
    probs = jax.nn.softmax(logits)[order]
    before = jnp.cumsum(probs) - probs  # sum over the likelier tokens
    keep = jnp.zeros(logits.shape, bool).at[order].set((before < p) | (jnp.arange(len(probs)) == 0))
    return jnp.where(keep, logits, NEVER)


def min_p(logits: Float[Array, " vocab"], p: float | int | Float[Array, ""]) -> Float[Array, " vocab"]:
    """-inf for tokens less likely than p times the likeliest (Nguyen et al. 2024, section 3)."""
    return jnp.where(logits >= jnp.max(logits) + jnp.log(p), logits, NEVER)


def adjusted(
    logits: Float[Array, " vocab"], options: Sampling | Rules, seen: Bool[Array, " vocab"]
) -> Float[Array, " vocab"]:
    """Logits after penalty, temperature (if above 0, which makes the largest 0), top_k, top_p and min_p, in this
    order.
    """
    rules = options if isinstance(options, Rules) else Rules.of(options)
    logits = logits.astype(jnp.float32)
    if rules.repetition_penalty is not None:
        logits = penalised(logits, seen, rules.repetition_penalty)
    if rules.temperature is not None:
        logits = tempered(logits, rules.temperature)
    if rules.top_k is not None:
        logits = top_k(logits, rules.top_k, rules.most)
    for rule, share in ((top_p, rules.top_p), (min_p, rules.min_p)):
        logits = logits if share is None else rule(logits, share)
    return logits


def undrawable(logits: Float[Array, "*leading vocab"]) -> Bool[Array, "*leading"]:
    """True where logits are no distribution: one is NaN or infinite, or all are -inf."""
    return ~jnp.isfinite(jnp.max(logits, axis=-1))


def draw(
    logits: Float[Array, " vocab"], options: Sampling | Rules, seen: Bool[Array, " vocab"], *, key: PRNGKeyArray
) -> Int[Array, ""]:
    """The next token; `NO_TOKEN` (-1) of logits that are no distribution, of which a draw would be arbitrary.

    Args:
        seen: tokens that occurred, for the penalty.
        key: unused at temperature 0.
    """
    rules = options if isinstance(options, Rules) else Rules.of(options)
    found = adjusted(logits, rules, seen)
    drawn = jnp.argmax(found) if rules.temperature is None else jr.categorical(key, found)
    return jnp.where(undrawable(logits), NO_TOKEN, drawn).astype(jnp.int32)
