"""Decoding of masked token models (Chang et al. 2022, arXiv:2202.04200, section 3.2)."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Schedule = Callable[[Float[Array, ""], int], Float[Array, ""]]

# Each takes the progress r in [0, 1] and the number of tokens, and gives the share that is still masked: 1 at r = 0, 0 at r = 1.
_SCHEDULES: dict[str, Schedule] = {
    "cosine": lambda r, n: jnp.cos(jnp.pi / 2 * r),
    "linear": lambda r, n: 1 - r,
    "sqrt": lambda r, n: 1 - jnp.sqrt(r),
    "log": lambda r, n: -jnp.log2(jnp.maximum(r, 1 / n)) / math.log2(max(n, 2)),
    "exp": lambda r, n: 1 - jnp.exp2(-math.log2(max(n, 2)) * (1 - r)),
    "arccos": lambda r, n: jnp.arccos(jnp.clip(r, 0, 1)) / (jnp.pi / 2),
}
SCHEDULES = ("cosine", "linear", "power", "log", "exp", "sqrt", "arccos")


def mask_schedule(name: str) -> Schedule:
    """The mask schedule of some name: a function of the progress r in [0, 1] and the number of tokens that gives the masked share.

    The names are those of the original, `SCHEDULES`, with `sqrt` from the paper's comparison (its table 3) and `arccos` from
    Besnier and Chen 2023 (arXiv:2310.14400). `power` is 1 - r², and a number behind it is the exponent: `power3`, `power2.5`. Every one is
    1 at r = 0 and 0 at r = 1; the original's clip to at least 1e-6 is left out, because `masked_decode` counts whole tokens.

    Raises:
        ValueError: the name is unknown, or the exponent is not positive.
    """
    if name in _SCHEDULES:
        base = _SCHEDULES[name]
    elif name.startswith("power"):
        try:
            exponent = float(name.removeprefix("power") or 2)
        except ValueError:
            exponent = math.nan
        if not (math.isfinite(exponent) and exponent > 0):
            raise ValueError(f"the exponent of schedule 'power' must be a positive number, as in 'power2.5': got {name!r}")
        base = lambda r, n: 1 - r**exponent
    else:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}: got {name!r}")

    def schedule(r: Float[Array, ""], n: int) -> Float[Array, ""]:
        r = jnp.asarray(r, jnp.float32)
        # The ends are exact by definition; some formulas only come near them, as cos(π/2) in float32 and 1 - 2^(-log2 n) do.
        return jnp.where(r >= 1, 0.0, jnp.where(r <= 0, 1.0, jnp.clip(base(r, n), 0.0, 1.0)))

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
    ⌊n·schedule((t+1)/T)⌋ of them are then accepted: those with the highest log p + choice_temperature · (1 - (t+1)/T) · Gumbel noise. A
    token once accepted, and every token that was known, never changes; at least one is accepted at each step while any is masked.

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
    gamma = mask_schedule(schedule)
    start = jnp.sum(unknown)

    def step(tokens: Array, t: Array):
        draw_key, order_key = jr.split(jr.fold_in(key, t))
        masked = tokens == mask_id
        logits = predict(tokens).astype(jnp.float32)
        drawn = jnp.argmax(logits, axis=-1) if temperature == 0 else jr.categorical(draw_key, logits / temperature)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[:, None], axis=-1)[:, 0]
        progress = (t + 1) / steps
        confidence = log_prob + choice_temperature * (1 - progress) * jr.gumbel(order_key, (seq,))
        still = jnp.sum(masked)
        target = jnp.floor(start * gamma(progress, seq)).astype(still.dtype)
        # The original masks at least one token until its last step; to accept at least one at each serves few tokens and many steps alike.
        keep_masked = jnp.where(progress >= 1, 0, jnp.clip(target, 0, jnp.maximum(still - 1, 0)))
        rank = jnp.argsort(jnp.argsort(jnp.where(masked, confidence, jnp.inf)))  # 0 for the least sure of the masked ones
        accept = masked & (rank >= keep_masked)
        tokens = jnp.where(accept, drawn.astype(tokens.dtype), tokens)
        return tokens, tokens

    return jax.lax.scan(step, jnp.where(unknown, mask_id, tokens), jnp.arange(steps))[1]
