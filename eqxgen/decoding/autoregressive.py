"""Autoregressive decoding: language models token by token, from a memory of fixed size."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, Int32, Integer, PRNGKeyArray

from eqxgen.configs import Sampling
from eqxgen.decoding.logits import draw
from eqxgen.decoding.memory import LanguageModel, Memory, check_prompts, decoding, merged, read

PLAIN = Sampling()
"""Draws from the model's own distribution."""


def stream(
    model: LanguageModel,
    prompts: Sequence[Integer[np.ndarray, " _"]],
    sampling: Sampling = PLAIN,
    *,
    key: PRNGKeyArray,
) -> Iterator[Int32[np.ndarray, " n"]]:
    """Endless stream of the tokens after each prompt, one token of each at a time.

    Every token is computed once until the context is full. Then the last half of the sequence is read again and
    decoding continues from there, since the positions of a learned table cannot shift by one. Sequence i depends on its
    prompt, the key and i alone.

    Args:
        prompts: one or more, each of 1 to `model.context` tokens.
        sampling: options of the draws.
        key: of all draws.

    Raises:
        ValueError: a prompt is empty, longer than the context, or has an id out of range.
        FloatingPointError: the logits are NaN.
    """
    check_prompts(model, prompts)
    return _stream(decoding(model), [np.asarray(prompt, np.int32) for prompt in prompts], sampling, key)


def _stream(model: Any, prompts: list[np.ndarray], sampling: Sampling, key: PRNGKeyArray) -> Iterator[np.ndarray]:
    texts = [list(prompt) for prompt in prompts]
    counts = np.array([len(prompt) for prompt in prompts])
    keys = jax.vmap(functools.partial(jr.fold_in, key))(jnp.arange(len(prompts)))
    memory = read(model, prompts)
    step = 0
    while True:
        if model.context is not None and (full := counts >= model.context).any():
            kept = max(model.context // 2, 1)
            again = read(
                model,
                [np.array(text[-kept:], np.int32) if old else np.zeros(0, np.int32) for text, old in zip(texts, full)],
            )
            memory = merged(memory, again, full)
            counts[full] = kept
        drawn, memory = _step((model, keys, np.int32(step)), memory, sampling)
        ids = np.asarray(drawn)
        if (ids < 0).any():
            raise FloatingPointError("the model's logits are not numbers: its weights, or a prompt's ids, are damaged")
        yield ids
        for text, token in zip(texts, ids.tolist()):
            text.append(token)
        counts += 1
        step += 1


def generate(
    model: LanguageModel,
    prompts: Sequence[Integer[np.ndarray, " _"]],
    length: int,
    sampling: Sampling = PLAIN,
    *,
    key: PRNGKeyArray,
) -> Int32[np.ndarray, "n length"]:
    """The first `length` tokens of `stream`."""
    if length < 1:
        raise ValueError(f"length must be at least 1: got {length}")
    tokens = stream(model, prompts, sampling, key=key)
    return np.stack([next(tokens) for _ in range(length)], axis=1)


@eqx.filter_jit(donate="all-except-first")
def _step(given: tuple[Any, Any, Any], memory: Memory, sampling: Sampling) -> tuple[Int[Array, " n"], Memory]:
    model, keys, step = given

    def one(logits, cache, seen, key):
        token = draw(logits, sampling, seen, key=jr.fold_in(key, step))
        logits, cache = model.extend(jnp.maximum(token, 0)[None], cache)
        return token, Memory(logits.astype(jnp.float32), cache, seen.at[token].set(True, mode="drop"))

    return eqx.filter_vmap(one)(memory.logits, memory.cache, memory.seen, keys)
