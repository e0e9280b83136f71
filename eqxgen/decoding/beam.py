"""Beam search: the likeliest continuation of a prompt among a fixed number of candidates."""

import math
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
from eqxgen.nn import _check
from eqxgen.protocols import LanguageModel

LEAST_LENGTH = 64
"""Every length up to this runs the same program."""


def beam_search(
    model: LanguageModel, prompt: Prompt, length: int, beams: int, *, stop: Stop = (), length_penalty: float = 0.0
) -> tuple[Int32[np.ndarray, " length"], float]:
    """The best continuation among `beams` candidates kept at each step, and its log probability in nats.

    Candidates are compared by log probability / ((5 + n) / 6)**length_penalty, n being their tokens with the stop id
    (Wu et al. 2016, arXiv:1609.08144, equation 14, without the coverage of the source). A candidate that reaches an id
    of `stop` is complete: it keeps its score, and its place as long as the others' are not higher. The search ends when
    the best is complete and no other can become better.

    Args:
        prompt: one or more tokens; with `length` more at most `model.context`.
        length: tokens to add, at most.
        beams: candidates; 1 is greedy decoding. Each number of them compiles a program; lengths share one for each
            power of two, and other ids in `stop` run the same.
        stop: ids that end a candidate, as its last token.
        length_penalty: exponent, at least 0: 0 compares log probabilities, more favours longer texts. Others run the
            same program.

    Returns:
        `length` tokens, those after an id of `stop` `NO_TOKEN`, -1 (`eqxgen.decoding.stopping.lengths` counts the
        others); and their log probability.

    Raises:
        ValueError: an argument is out of its range.
        FloatingPointError: the logits are NaN.
    """
    (ids,) = check_prompts(model, [prompt])
    _check.positive(length=length, beams=beams)
    if not 1 <= beams <= model.vocab:
        raise ValueError(f"beams must be from 1 to the vocabulary's {model.vocab}: got {beams}")
    check_penalty(length_penalty)
    if model.context is not None and len(ids) + length > model.context:
        raise ValueError(
            f"prompt and length must be at most context={model.context} tokens together: got {len(ids)} and {length}"
        )
    ends = np.zeros(model.vocab, bool)
    ends[stop_ids(stop, model.vocab)] = True
    model, most = decoding(model), bucket(length, LEAST_LENGTH)
    rules = jnp.asarray(length, jnp.int32), jnp.asarray(ends), jnp.asarray(length_penalty, jnp.float32)
    found, score, damaged = _search(model, read(model, [ids]), *rules, beams, most)
    check_drawn(np.where(damaged, NO_TOKEN, 0))
    return np.asarray(found)[:length], float(score)


def check_penalty(length_penalty: float, name: str = "length_penalty") -> None:
    """Raises `ValueError` for an exponent of the length that is negative or not finite."""
    if not 0 <= length_penalty < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite: got {length_penalty}")


def searched(
    model: LanguageModel, first: int, length: int, beams: int, *, end: int, length_penalty: float = 0.0
) -> tuple[Int[Array, " length"], Float[Array, ""]]:
    """`beam_search` inside a compiled program, after one token `first` and up to one id `end`; with `jax.vmap` for
    several texts at once. NaN logits give `NO_TOKEN` alone.
    """
    model = decoding(model)
    logits, cache = model.extend(jnp.full((1,), first, jnp.int32), model.cache())
    memory = Memory(logits.astype(jnp.float32), cache, jnp.zeros(model.vocab, bool))
    memory = jax.tree.map(lambda x: x[None] if eqx.is_array(x) else x, memory)
    ends = jnp.arange(model.vocab) == end
    rules = jnp.asarray(length, jnp.int32), ends, jnp.asarray(length_penalty, jnp.float32)
    found, score, damaged = _search(model, memory, *rules, beams, length)
    return jnp.where(damaged, NO_TOKEN, found), score


class _Candidates(eqx.Module):
    """The likeliest texts, the likeliest first, with the logits and memories (as arrays) of their next tokens."""

    logits: Float[Array, "beams vocab"]
    memories: Any
    scores: Float[Array, " beams"]
    ids: Int[Array, "beams most"]
    lengths: Int[Array, " beams"]
    ended: Bool[Array, " beams"]
    damaged: Bool[Array, ""]


@eqx.filter_jit
def _search(
    model: Any,
    memory: Memory,
    length: Int[Array, ""],
    ends: Bool[Array, " vocab"],
    exponent: Float[Array, ""],
    beams: int,
    most: int,
) -> tuple[Int[Array, " most"], Float[Array, ""], Bool[Array, ""]]:
    copies = lambda x: jnp.broadcast_to(x, (beams, *x.shape[1:])) if eqx.is_array(x) else x
    logits, cache = jax.tree.map(copies, (memory.logits, memory.cache))
    arrays, rest = eqx.partition(cache, eqx.is_array)
    vocab = logits.shape[-1]
    alone = jnp.where(jnp.arange(vocab) == 0, 0.0, NEVER)  # the one continuation of a complete text

    penalty = lambda lengths: ((5.0 + lengths) / 6.0) ** exponent

    def going(carry: tuple[Array, _Candidates]) -> Array:
        t, now = carry
        best = jnp.max(jnp.where(now.ended, NEVER, now.scores / penalty(length)))  # what a longer text can reach
        over = now.ended[0] & (now.scores[0] / penalty(now.lengths[0]) >= best)
        return (t < length) & ~over & ~now.damaged

    def step(carry: tuple[Array, _Candidates]) -> tuple[Array, _Candidates]:
        t, now = carry
        wrong = undrawable(now.logits)
        damaged = (wrong & ~now.ended & jnp.isfinite(now.scores)).any()
        gains = jnp.where(wrong[:, None], NEVER, jax.nn.log_softmax(now.logits, axis=-1))
        gains = jnp.where(now.ended[:, None], alone[None], gains)
        scores = now.scores[:, None] + gains
        lengths = now.lengths + ~now.ended
        _, best = jax.lax.top_k((scores / penalty(lengths)[:, None]).reshape(-1), beams)
        parent, token = jnp.divmod(best, vocab)
        scores, over = scores.reshape(-1)[best], now.ended[parent]
        ids = now.ids[parent].at[:, t].set(jnp.where(over, NO_TOKEN, token).astype(now.ids.dtype))
        cache = eqx.combine(jax.tree.map(lambda x: x[parent], now.memories), rest)
        logits, cache = eqx.filter_vmap(lambda token, cache: model.extend(token[None], cache))(token, cache)
        arrays = eqx.filter(cache, eqx.is_array)
        over = over | ends[token]
        return t + 1, _Candidates(logits.astype(jnp.float32), arrays, scores, ids, lengths[parent], over, damaged)

    scores = jnp.where(jnp.arange(beams) == 0, 0.0, NEVER)  # the candidates are equal at first: only one counts
    none = jnp.full((beams, most), NO_TOKEN, jnp.int32)
    zeros = jnp.zeros(beams, jnp.int32)
    first = _Candidates(logits, arrays, scores, none, zeros, zeros.astype(bool), jnp.asarray(False))
    _, last = jax.lax.while_loop(going, step, (jnp.zeros((), jnp.int32), first))
    return last.ids[0], last.scores[0], last.damaged
