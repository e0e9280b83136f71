"""Autoregressive decoding: language models token by token, from a memory of fixed size."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, Int32, PRNGKeyArray

from eqxgen.configs import Sampling
from eqxgen.decoding.logits import Rules, draw
from eqxgen.decoding.memory import Memory, Prompt, check_prompts, decoding, merged, read
from eqxgen.decoding.stopping import Stop, stop_ids
from eqxgen.decoding.traced import NO_TOKEN, check_drawn
from eqxgen.nn import _check
from eqxgen.protocols import LanguageModel

PLAIN = Sampling()
"""Draws from the model's own distribution."""


def stream(
    model: LanguageModel,
    prompts: Sequence[Prompt] | np.ndarray,
    sampling: Sampling = PLAIN,
    *,
    stop: Stop = (),
    key: PRNGKeyArray,
) -> Iterator[Int32[np.ndarray, " n"]]:
    """Stream of the tokens after each prompt, one token of each at a time; without end, unless ids to stop at are
    given.

    Every token is computed once until the context is full. Then the last half of the sequence is read again and
    decoding continues from there, since the positions of a learned table cannot shift by one. Sequence i depends on its
    prompt, the key and i alone. Other numbers in `sampling`, and other ids in `stop`, run the same compiled program.

    Args:
        prompts: one or more, each of 1 to `model.context` tokens: lists or arrays of integers.
        sampling: options of the draws.
        stop: ids that end a sequence. Each is given as the sequence's last token; the tokens after it are `NO_TOKEN`,
            -1. The stream ends with its last sequence.
        key: of all draws.

    Raises:
        ValueError: a prompt is empty, longer than the context, or has an id that is no integer or out of range; or such
            an id is in `stop`.
        FloatingPointError: the logits are NaN.
    """
    texts = check_prompts(model, prompts)
    return _stream(decoding(model), texts, Rules.of(sampling), stop_ids(stop, model.vocab), key)


def _stream(
    model: Any, prompts: list[np.ndarray], rules: Rules, stop: np.ndarray, key: PRNGKeyArray
) -> Iterator[np.ndarray]:
    texts = [list(prompt) for prompt in prompts]
    counts = np.array([len(prompt) for prompt in prompts])
    live = np.ones(len(prompts), bool)
    keys = jax.vmap(functools.partial(jr.fold_in, key))(jnp.arange(len(prompts)))
    memory = read(model, prompts)
    for step in itertools.count():
        if model.context is not None and (full := live & (counts >= model.context)).any():
            kept = max(model.context // 2, 1)
            again = read(
                model,
                [np.array(text[-kept:], np.int32) if old else np.zeros(0, np.int32) for text, old in zip(texts, full)],
            )
            memory = merged(memory, again, full)
            counts[full] = kept
        drawn, memory = _step((model, keys, np.int32(step), rules), memory)
        ids = np.asarray(drawn)
        check_drawn(ids[live])
        yield np.where(live, ids, np.int32(NO_TOKEN))
        live = live & ~np.isin(ids, stop)
        if not live.any():
            return
        for text, token in zip(texts, ids.tolist()):
            text.append(token)
        counts += 1


def generate(
    model: LanguageModel,
    prompts: Sequence[Prompt] | np.ndarray,
    length: int,
    sampling: Sampling = PLAIN,
    *,
    stop: Stop = (),
    key: PRNGKeyArray,
) -> Int32[np.ndarray, "n length"]:
    """The first `length` tokens of `stream`. A sequence that has reached an id of `stop` is filled up with `NO_TOKEN`,
    -1; `eqxgen.decoding.stopping.lengths` counts the others.
    """
    _check.positive(length=length)
    tokens = list(itertools.islice(stream(model, prompts, sampling, stop=stop, key=key), length))
    ended = np.full_like(tokens[0], NO_TOKEN)
    return np.stack(tokens + [ended] * (length - len(tokens)), axis=1)


@eqx.filter_jit(donate="all-except-first")
def _step(given: tuple[Any, Any, Any, Rules], memory: Memory) -> tuple[Int[Array, " n"], Memory]:
    model, keys, step, rules = given

    def one(logits, cache, seen, key):
        token = draw(logits, rules, seen, key=jr.fold_in(key, step))
        logits, cache = model.extend(jnp.maximum(token, 0)[None], cache)
        return token, Memory(logits.astype(jnp.float32), cache, seen.at[token].set(True, mode="drop"))

    return eqx.filter_vmap(one)(memory.logits, memory.cache, memory.seen, keys)
