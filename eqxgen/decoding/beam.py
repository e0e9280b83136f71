"""Beam search: the likeliest continuation of a prompt among a fixed number of candidates."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from eqxgen.decoding.logits import NEVER, undrawable
from eqxgen.decoding.memory import Memory, Prompt, check_prompts, decoding, read
from eqxgen.decoding.stopping import Stop, stop_ids
from eqxgen.decoding.traced import NO_TOKEN, bucket, check_drawn
from eqxgen.protocols import LanguageModel

LEAST_LENGTH = 64
"""Every length up to this runs the same program."""


def beam_search(
    model: LanguageModel, prompt: Prompt, length: int, beams: int, *, stop: Stop = ()
) -> tuple[Int32[np.ndarray, " length"], float]:
    """The likeliest continuation among `beams` candidates kept at each step, and its log probability in nats.

    A candidate that reaches an id of `stop` is complete: it keeps its probability, and its place as long as the others
    are not likelier. The search ends when the likeliest is complete, as none can become likelier.

    Args:
        prompt: one or more tokens; with `length` more at most `model.context`.
        length: tokens to add, at most.
        beams: candidates; 1 is greedy decoding. Each number of them compiles a program; lengths share one for each
            power of two, and other ids in `stop` run the same.
        stop: ids that end a candidate, as its last token.

    Returns:
        `length` tokens, those after an id of `stop` `NO_TOKEN`, -1 (`eqxgen.decoding.stopping.lengths` counts the
        others); and their log probability.

    Raises:
        ValueError: an argument is out of its range.
        FloatingPointError: the logits are NaN.
    """
    (ids,) = check_prompts(model, [prompt])
    if length < 1:
        raise ValueError(f"length must be at least 1: got {length}")
    if not 1 <= beams <= model.vocab:
        raise ValueError(f"beams must be from 1 to the vocabulary's {model.vocab}: got {beams}")
    if model.context is not None and len(ids) + length > model.context:
        raise ValueError(
            f"prompt and length must be at most context={model.context} tokens together: got {len(ids)} and {length}"
        )
    ends = np.zeros(model.vocab, bool)
    ends[stop_ids(stop, model.vocab)] = True
    model, most = decoding(model), bucket(length, LEAST_LENGTH)
    found, score, damaged = _search(
        model, read(model, [ids]), jnp.asarray(length, jnp.int32), jnp.asarray(ends), beams, most
    )
    check_drawn(np.where(damaged, NO_TOKEN, 0))
    return np.asarray(found)[:length], float(score)


class _Candidates(eqx.Module):
    """The likeliest texts, the likeliest first, with the logits and memories (as arrays) of their next tokens."""

    logits: Float[Array, "beams vocab"]
    memories: Any
    scores: Float[Array, " beams"]
    ids: Int[Array, "beams most"]
    ended: Bool[Array, " beams"]
    damaged: Bool[Array, ""]


@eqx.filter_jit
def _search(
    model: Any, memory: Memory, length: Int[Array, ""], ends: Bool[Array, " vocab"], beams: int, most: int
) -> tuple[Int[Array, " most"], Float[Array, ""], Bool[Array, ""]]:
    copies = lambda x: jnp.broadcast_to(x, (beams, *x.shape[1:])) if eqx.is_array(x) else x
    logits, cache = jax.tree.map(copies, (memory.logits, memory.cache))
    arrays, rest = eqx.partition(cache, eqx.is_array)
    vocab = logits.shape[-1]
    alone = jnp.where(jnp.arange(vocab) == 0, 0.0, NEVER)  # the one continuation of a complete text

    def going(carry: tuple[Array, _Candidates]) -> Array:
        t, now = carry
        return (t < length) & ~now.ended[0] & ~now.damaged

    def step(carry: tuple[Array, _Candidates]) -> tuple[Array, _Candidates]:
        t, now = carry
        wrong = undrawable(now.logits)
        damaged = (wrong & ~now.ended & jnp.isfinite(now.scores)).any()
        gains = jnp.where(wrong[:, None], NEVER, jax.nn.log_softmax(now.logits, axis=-1))
        gains = jnp.where(now.ended[:, None], alone[None], gains)
        scores, best = jax.lax.top_k((now.scores[:, None] + gains).reshape(-1), beams)
        parent, token = jnp.divmod(best, vocab)
        over = now.ended[parent]
        ids = now.ids[parent].at[:, t].set(jnp.where(over, NO_TOKEN, token).astype(now.ids.dtype))
        cache = eqx.combine(jax.tree.map(lambda x: x[parent], now.memories), rest)
        logits, cache = eqx.filter_vmap(lambda token, cache: model.extend(token[None], cache))(token, cache)
        arrays = eqx.filter(cache, eqx.is_array)
        return t + 1, _Candidates(logits.astype(jnp.float32), arrays, scores, ids, over | ends[token], damaged)

    scores = jnp.where(jnp.arange(beams) == 0, 0.0, NEVER)  # the candidates are equal at first: only one counts
    none = jnp.full((beams, most), NO_TOKEN, jnp.int32)
    first = _Candidates(logits, arrays, scores, none, jnp.zeros(beams, bool), jnp.asarray(False))
    _, last = jax.lax.while_loop(going, step, (jnp.zeros((), jnp.int32), first))
    return last.ids[0], last.scores[0], last.damaged
