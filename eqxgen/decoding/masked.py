"""Decoding of masked token models (Chang et al. 2022, arXiv:2202.04200, section 3.2)."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import parse_schedule

Schedule = Callable[[Float[Array, ""]], Float[Array, ""]]


def mask_schedule(name: str, tokens: int) -> Schedule:
    """The mask schedule of some name: from the progress r in [0, 1] to the share of tokens that is still masked.

    cosine cos(πr/2) · linear 1 - r · power 1 - r² (`power3`: 1 - r³) · sqrt 1 - √r · log -log2(r) / log2(tokens) ·
    exp 1 - 2^(-log2(tokens) (1 - r)), the original's and those of its comparison (table 3) · arccos 2 arccos(r) / π
    (Besnier and Chen 2023, arXiv:2310.14400). Every one is 1 at r = 0 and 0 at r = 1; the original's clip to at least
    1e-6 is left out, because `masked_decode` counts whole tokens.

    Raises:
        ValueError: the name is unknown, or the exponent is not positive.
    """
    kind, exponent = parse_schedule(name)
    bits = math.log2(max(tokens, 2))
    share: Schedule = {
        "cosine": lambda r: jnp.cos(jnp.pi / 2 * r),
        "linear": lambda r: 1 - r,
        "power": lambda r: 1 - r**exponent,
        "sqrt": lambda r: 1 - jnp.sqrt(r),
        "log": lambda r: -jnp.log2(jnp.maximum(r, 2.0**-bits)) / bits,
        "exp": lambda r: 1 - jnp.exp2(-bits * (1 - r)),
        "arccos": lambda r: jnp.arccos(r) / (jnp.pi / 2),
    }[kind]

    def schedule(r: Float[Array, ""]) -> Float[Array, ""]:
        # The ends are exact by definition; some formulas only come near them, as cos(π/2) in float32 and 1 - 2^(-log2
        # n) do.
        return jnp.where(r >= 1, 0.0, jnp.where(r <= 0, 1.0, jnp.clip(share(jnp.clip(r, 0, 1)), 0.0, 1.0)))

    return schedule


def masked_decode(
    predict: Callable[[Int[Array, " seq"]], Float[Array, "seq codes"]],
    tokens: Int[Array, " seq"],
    unknown: Bool[Array, " seq"],
    *,
    mask_id: int,
    steps: int,
    schedule: str = "cosine",
    choice_temperature: float = 4.5,
    temperature: float = 1.0,
    key: PRNGKeyArray,
) -> Int[Array, "steps seq"]:
    """Fills the unknown tokens of one sequence in `steps` parallel guesses, the surest first.

    At step t of T every token that is still masked is drawn from the model. With n unknown tokens at the start, all but
    ⌊n·schedule((t+1)/T)⌋ of them are then accepted: those with the highest log p + choice_temperature · (1 - (t+1)/T) ·
    Gumbel noise. A token once accepted, and every token that was known, never changes; at least one is accepted at each
    step while any is masked.

    Args:
        predict: logits for a sequence in which masked tokens are `mask_id`.
        tokens: the sequence. What it holds where `unknown` does not matter.
        unknown: which tokens to fill: all for generation, a region for inpainting.
        mask_id: the id the model knows as masked.
        steps: number of guesses, from 1 to the number of tokens.
        schedule: a name for `mask_schedule`.
        choice_temperature: randomness of the order; 0 accepts by confidence alone. The original has 4.5.
        temperature: of the draws; 0 takes the likeliest token.
        key: of all draws.

    Returns:
        The sequence after each step, `mask_id` where it is still masked. The last row is the result and has none.

    Raises:
        ValueError: `steps` is not in [1, seq]; a temperature is negative; the schedule is unknown; shapes differ.
    """
    (seq,) = tokens.shape
    if unknown.shape != tokens.shape:
        raise ValueError(f"unknown must have the shape of tokens: got {unknown.shape} and {tokens.shape}")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= seq:
        raise ValueError(f"steps must be an integer from 1 to the number of tokens, {seq}: got {steps!r}")
    for name, value in {"choice_temperature": choice_temperature, "temperature": temperature}.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be at least 0: got {value}")
    share = mask_schedule(schedule, seq)
    start = jnp.sum(unknown)

    def step(tokens: Array, t: Array):
        draw_key, order_key = jr.split(jr.fold_in(key, t))
        masked = tokens == mask_id
        logits = predict(tokens).astype(jnp.float32)
        drawn = jnp.argmax(logits, axis=-1) if temperature == 0 else jr.categorical(draw_key, logits / temperature)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[:, None], axis=-1)[:, 0]
        progress = (t + 1).astype(jnp.float32) / steps
        confidence = log_prob + choice_temperature * (1 - progress) * jr.gumbel(order_key, (seq,))
        still = jnp.sum(masked)
        target = jnp.floor(start * share(progress) + 1e-4).astype(
            still.dtype
        )  # n - 1 of n in float32 may fall short of itself
        # The original masks at least one token until its last step; to accept at least one at each serves few tokens
        # and many steps alike.
        keep_masked = jnp.where(progress >= 1, 0, jnp.clip(target, 0, jnp.maximum(still - 1, 0)))
        rank = jnp.argsort(
            jnp.argsort(jnp.where(masked, confidence, jnp.inf))
        )  # 0 for the least sure of the masked ones
        accept = masked & (rank >= keep_masked)
        tokens = jnp.where(accept, drawn.astype(tokens.dtype), tokens)
        return tokens, tokens

    return jax.lax.scan(step, jnp.where(unknown, mask_id, tokens), jnp.arange(steps))[1]
