"""Losses that training shares."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen.nn.linear import times_rows


def cross_entropy(logits: Float[Array, "*leading vocab"], targets: Int[Array, "*leading"]) -> Float[Array, "*leading"]:
    """-log softmax(logits)[target], in nats and float32 at least; a target outside [0, vocab) gives NaN."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    hit = jnp.take_along_axis(logits, targets[..., None], axis=-1, mode="fill")[..., 0]
    hit = jnp.where(targets < 0, jnp.nan, hit)
    return jax.nn.logsumexp(logits, axis=-1) - hit


def projected_cross_entropy(
    x: Float[Array, "seq dim"],
    table: Float[Array, "vocab dim"],
    targets: Int[Array, " seq"],
    *,
    bias: Float[Array, " vocab"] | None = None,
    chunk: int = 256,
) -> Float[Array, " seq"]:
    """`cross_entropy(x @ table.T + bias, targets)` that never holds the logits of more than some tokens.

    The logits of a large vocabulary are most of a language model's memory. Here those of `chunk` tokens at a time are
    made, and made again in the backward pass. Products accumulate, and logits are, in float32 at least.

    Args:
        x: the last hidden states.
        table: the head's weight.
        targets: the ids that should follow.
        bias: the head's.
        chunk: tokens at a time; a sequence of no more is done at once.
    """

    def losses(x: Array, targets: Array) -> Array:
        logits = times_rows(x, table, wide=True)
        return cross_entropy(logits if bias is None else logits + bias.astype(logits.dtype)[None], targets)

    seq = len(targets)
    if seq <= chunk:
        return losses(x, targets)
    short = -seq % chunk
    x, targets = jnp.pad(x, ((0, short), (0, 0))), jnp.pad(targets, (0, short))
    step = jax.checkpoint(lambda _, part: (None, losses(*part)), prevent_cse=False)
    _, found = jax.lax.scan(step, None, (x.reshape(-1, chunk, x.shape[-1]), targets.reshape(-1, chunk)))
    return found.reshape(-1)[:seq]
