"""Cross-entropy of tokens, and of the next token of a language model, with or without experts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.nn import _check
from eqxgen.nn.linear import times_rows
from eqxgen.protocols import RoutedModel, TokenModel


def cross_entropy(logits: Float[Array, "*leading vocab"], targets: Int[Array, "*leading"]) -> Float[Array, "*leading"]:
    """-log softmax(logits)[target], in nats and float32 at least; a target outside [0, vocab) gives NaN.

    Raises:
        ValueError: there is not an integer target for each row of logits.
    """
    targets = jnp.asarray(_check.integers(targets, "targets"))
    if logits.ndim == 0 or logits.shape[:-1] != targets.shape:
        raise ValueError(f"targets must be one for each row of logits, {logits.shape[:-1]}: got {targets.shape}")
    logits = widen(logits)
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
    """`cross_entropy(x @ table.T + bias, targets)` with the logits of at most `chunk` tokens in memory.

    The logits of a large vocabulary are most of a language model's memory. Those of `chunk` tokens at a time are
    computed, and recomputed in the backward pass. Products accumulate in float32 at least.

    Args:
        x: the last hidden states.
        table: weight of the output projection.
        targets: ids, one for each state.
        bias: of the output projection.
        chunk: tokens at a time; a sequence of no more is one chunk.
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


def next_token_losses(
    model: TokenModel,
    ids: Int[Array, " seq"],
    targets: Int[Array, " seq"],
    *,
    key: PRNGKeyArray | None = None,
    inference: bool | None = None,
) -> Float[Array, " seq"]:
    """Cross-entropy of each target in nats, without all logits in memory at once.

    Args:
        model: in training or inference mode.
        ids: tokens of one sequence.
        targets: the token after each.
        key: of dropout.
        inference: no dropout, if true.
    """
    weight, bias = model.unembedding
    return projected_cross_entropy(model.hidden(ids, key=key, inference=inference), weight, targets, bias=bias)


def routed_losses(
    model: RoutedModel, ids: Int[Array, " seq"], targets: Int[Array, " seq"], *, key: PRNGKeyArray | None = None
) -> tuple[Float[Array, " seq"], dict[str, Float[Array, " blocks"]]]:
    """`next_token_losses` of a model with experts in training, and numbers of each of its blocks: `balance_loss`,
    `z_loss`, `overflow`, the share of choices that were dropped, and `expert_load`, that of the fullest expert as a
    multiple of an even share.
    """
    weight, bias = model.unembedding
    x, routing = model.routed(ids, key=key)
    choices, experts = jnp.sum(routing.load, 1), routing.load.shape[1]
    numbers = {
        "balance_loss": routing.balance_loss,
        "z_loss": routing.z_loss,
        "overflow": routing.overflow / choices,
        "expert_load": jnp.max(routing.load, 1) * experts / choices,
    }
    return projected_cross_entropy(x, weight, targets, bias=bias), numbers
