"""Transformations of logits, and the draw of a token: pure functions of one position."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import Sampling

NEVER = -jnp.inf


def penalised(logits: Float[Array, " vocab"], seen: Bool[Array, " vocab"], penalty: float) -> Float[Array, " vocab"]:
    """Logits of seen tokens, divided by the penalty where positive and multiplied where negative (Keskar et al. 2019,
    section 4.1).
    """
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def top_k(logits: Float[Array, " vocab"], k: int) -> Float[Array, " vocab"]:
    """-inf for all but the k largest and those equal to the k-th; a k above the vocabulary's size keeps all."""
    least = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][-1]
    return jnp.where(logits >= least, logits, NEVER)


def top_p(logits: Float[Array, " vocab"], p: float) -> Float[Array, " vocab"]:
    """-inf for all but the fewest largest whose probabilities sum to p; the largest is always kept (Holtzman et al.
    2019).
    """
    order = jnp.argsort(-logits)
    probs = jax.nn.softmax(logits)[order]
    before = jnp.cumsum(probs) - probs  # sum over the likelier tokens
    keep = jnp.zeros(logits.shape, bool).at[order].set((before < p) | (jnp.arange(len(probs)) == 0))
    return jnp.where(keep, logits, NEVER)


def min_p(logits: Float[Array, " vocab"], p: float) -> Float[Array, " vocab"]:
    """-inf for tokens less likely than p times the likeliest (Nguyen et al. 2024, section 3)."""
    return jnp.where(logits >= jnp.max(logits) + jnp.log(p), logits, NEVER)


def adjusted(logits: Float[Array, " vocab"], sampling: Sampling, seen: Bool[Array, " vocab"]) -> Float[Array, " vocab"]:
    """Logits after penalty, temperature (if above 0), top_k, top_p and min_p, in this order."""
    logits = logits.astype(jnp.float32)
    if sampling.repetition_penalty != 1:
        logits = penalised(logits, seen, sampling.repetition_penalty)
    if sampling.temperature > 0:
        logits = logits / sampling.temperature
    if sampling.top_k is not None:
        logits = top_k(logits, sampling.top_k)
    for rule, share in ((top_p, sampling.top_p), (min_p, sampling.min_p)):
        logits = logits if share is None else rule(logits, share)
    return logits


def draw(
    logits: Float[Array, " vocab"], sampling: Sampling, seen: Bool[Array, " vocab"], *, key: PRNGKeyArray
) -> Int[Array, ""]:
    """The next token; -1 if a logit is NaN, of which a draw would give an arbitrary token.

    Args:
        seen: tokens that occurred, for the penalty.
        key: unused at temperature 0.
    """
    logits = adjusted(logits, sampling, seen)
    drawn = jnp.argmax(logits) if sampling.temperature == 0 else jr.categorical(key, logits)
    return jnp.where(jnp.isnan(logits).any(), -1, drawn).astype(jnp.int32)
