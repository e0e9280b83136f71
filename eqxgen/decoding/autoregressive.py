"""Decoding of language models: token by token from a memory of fixed size, or by beams."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Integer, PRNGKeyArray, PyTree

from eqxgen.configs import Sampling
from eqxgen.decoding.logits import draw

CHUNK = 64
"""Tokens of a prompt that are read at a time: one compiled program for prompts of every length."""

PLAIN = Sampling()
"""Draws from the model's own distribution."""

Model = TypeVar("Model")


class LanguageModel(Protocol):
    """What is decoded: `eqxgen.models.gpt.GPT`, `eqxgen.models.rnn.RNN`, or one's own."""

    @property
    def vocab(self) -> int:
        """Number of tokens there are."""
        ...

    @property
    def context(self) -> int | None:
        """Tokens that the memory holds; None where it has no such limit."""
        ...

    def cache(self) -> PyTree:
        """The memory of no token yet."""
        ...

    def extend(self, ids: Array, cache: Any, *, count: Any = None) -> tuple[Array, Any]:
        """Logits of the token behind the first `count` of the new ones, and the memory with them in it."""
        ...


class _Memory(eqx.Module):
    """Of several sequences side by side, or of one of them."""

    logits: Float[Array, "*n vocab"]
    cache: PyTree
    seen: Bool[Array, "*n vocab"]


def stream(
    model: Any,
    prompts: Sequence[Integer[np.ndarray, " _"]],
    sampling: Sampling = PLAIN,
    *,
    key: PRNGKeyArray,
) -> Iterator[Int32[np.ndarray, " n"]]:
    """The tokens that follow some prompts, one of each at a time, without end.

    Nothing is computed twice while the context lasts. When a sequence fills it, the last half of it is read anew and
    decoding goes on from there: the positions of a learned table cannot move on by one. Sequence i depends on its
        prompt, the key and i alone, not on the others.

    Args:
        model: a `LanguageModel`.
        prompts: one or more, each of 1 to `model.context` tokens.
        sampling: how tokens are drawn.
        key: of all draws.

    Raises:
        ValueError: a prompt is empty, longer than the context, or has an id out of range.
        FloatingPointError: the model gives logits that are not numbers.
    """
    check_prompts(model, prompts)
    return _stream(decoding(model), [np.asarray(prompt, np.int32) for prompt in prompts], sampling, key)


def _stream(model: Any, prompts: list[np.ndarray], sampling: Sampling, key: PRNGKeyArray) -> Iterator[np.ndarray]:
    texts = [list(prompt) for prompt in prompts]
    counts = np.array([len(prompt) for prompt in prompts])
    keys = jax.vmap(functools.partial(jr.fold_in, key))(jnp.arange(len(prompts)))
    memory = _read(model, prompts)
    step = 0
    while True:
        if model.context is not None and (full := counts >= model.context).any():
            kept = max(model.context // 2, 1)
            again = _read(
                model,
                [np.array(text[-kept:], np.int32) if old else np.zeros(0, np.int32) for text, old in zip(texts, full)],
            )
            memory = _merged(memory, again, full)
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
    model: Any,
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


def beam_search(
    model: Any, prompt: Integer[np.ndarray, " start"], length: int, beams: int
) -> tuple[Int32[np.ndarray, " length"], float]:
    """The likeliest continuation that is found with `beams` candidates kept at each step, and its log probability in
    nats.

    Args:
        model: a `LanguageModel`.
        prompt: one or more tokens; with `length` more at most `model.context`.
        length: tokens to add.
        beams: candidates; with 1 it is greedy decoding.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_prompts(model, [prompt])
    if length < 1:
        raise ValueError(f"length must be at least 1: got {length}")
    if not 1 <= beams <= model.vocab:
        raise ValueError(f"beams must be from 1 to the vocabulary's {model.vocab}: got {beams}")
    if model.context is not None and len(prompt) + length > model.context:
        raise ValueError(
            f"prompt and length must be at most context={model.context} tokens together: got {len(prompt)} and {length}"
        )
    model = decoding(model)
    ids, score = _search(model, _read(model, [np.asarray(prompt, np.int32)]), length, beams)
    return np.asarray(ids), float(score)


def check_prompts(model: Any, prompts: Sequence[np.ndarray]) -> None:
    """Raises `ValueError` unless there is a prompt, and each has 1 to `model.context` ids of the vocabulary."""
    if not prompts:
        raise ValueError("prompts must be one or more: got none")
    for number, prompt in enumerate(prompts):
        if prompt.ndim != 1 or len(prompt) == 0:
            raise ValueError(f"prompt {number} must be one or more ids: got shape {prompt.shape}")
        if model.context is not None and len(prompt) > model.context:
            raise ValueError(
                f"prompt {number} must be at most context={model.context} tokens: got {len(prompt)}; shorten it"
            )
        if int(prompt.min()) < 0 or int(prompt.max()) >= model.vocab:
            raise ValueError(
                f"prompt {number} must have ids in [0, vocab={model.vocab}): got {int(prompt.min())} to "
                f"{int(prompt.max())}"
            )


def decoding(model: Model) -> Model:
    """The model without dropout, its blocks one by one where it can have them so: a stack would copy each one's weights
    at every token.
    """
    model = eqx.nn.inference_mode(model)
    return model.unrolled() if hasattr(model, "unrolled") else model  # pyright: ignore[reportAttributeAccessIssue]


def _read(model: Any, prompts: Sequence[np.ndarray]) -> _Memory:
    """The memory of some prompts, of which some may be empty."""
    n, longest = len(prompts), max(map(len, prompts))
    chunk = CHUNK if model.context is None else min(CHUNK, model.context)
    memory = _empty(model, n)
    for start in range(0, longest, chunk):
        parts = [prompt[start : start + chunk] for prompt in prompts]
        ids = np.stack([np.pad(part, (0, chunk - len(part))) for part in parts])
        memory = _prefill((model, ids, np.array([len(part) for part in parts], np.int32)), memory)
    return memory


@eqx.filter_jit
def _empty(model: Any, n: int) -> _Memory:
    copies = lambda x: jnp.broadcast_to(x, (n, *x.shape)) if eqx.is_array(x) else x
    return _Memory(jnp.zeros((n, model.vocab)), jax.tree.map(copies, model.cache()), jnp.zeros((n, model.vocab), bool))


@eqx.filter_jit(donate="all-except-first")
def _prefill(given: tuple[Any, Any, Any], memory: _Memory) -> _Memory:
    model, ids, counts = given

    def one(logits, cache, seen, ids, count):
        new, cache = model.extend(ids, cache, count=count)
        real = jnp.where(jnp.arange(len(ids)) < count, ids, len(seen))
        return _Memory(
            jnp.where(count > 0, new.astype(logits.dtype), logits), cache, seen.at[real].set(True, mode="drop")
        )

    return eqx.filter_vmap(one)(memory.logits, memory.cache, memory.seen, ids, counts)


@eqx.filter_jit(donate="all-except-first")
def _step(given: tuple[Any, Any, Any], memory: _Memory, sampling: Sampling) -> tuple[Int[Array, " n"], _Memory]:
    model, keys, step = given

    def one(logits, cache, seen, key):
        token = draw(logits, sampling, seen, key=jr.fold_in(key, step))
        logits, cache = model.extend(jnp.maximum(token, 0)[None], cache)
        return token, _Memory(logits.astype(jnp.float32), cache, seen.at[token].set(True, mode="drop"))

    return eqx.filter_vmap(one)(memory.logits, memory.cache, memory.seen, keys)


@eqx.filter_jit
def _merged(memory: _Memory, again: _Memory, chosen: Bool[Array, " n"]) -> _Memory:
    """The memory with some sequences' part replaced; what was seen stays seen."""
    pick = lambda new, old: (
        jnp.where(chosen.reshape(-1, *(1,) * (new.ndim - 1)), new, old) if eqx.is_array(new) else new
    )
    merged = jax.tree.map(pick, again, memory)
    return eqx.tree_at(lambda m: m.seen, merged, memory.seen)


@eqx.filter_jit
def _search(model: Any, memory: _Memory, length: int, beams: int) -> tuple[Int[Array, " length"], Float[Array, ""]]:
    copies = lambda x: jnp.broadcast_to(x, (beams, *x.shape[1:])) if eqx.is_array(x) else x
    logits, cache = jax.tree.map(copies, (memory.logits, memory.cache))
    arrays, rest = eqx.partition(cache, eqx.is_array)
    scores = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # all candidates are the same at first: one counts

    def step(carry, t):
        logits, arrays, scores, ids = carry
        together = scores[:, None] + jax.nn.log_softmax(logits, axis=-1)
        scores, best = jax.lax.top_k(together.reshape(-1), beams)
        parent, token = jnp.divmod(best, logits.shape[-1])
        ids = ids[parent].at[:, t].set(token.astype(ids.dtype))
        cache = eqx.combine(jax.tree.map(lambda x: x[parent], arrays), rest)
        logits, cache = eqx.filter_vmap(lambda token, cache: model.extend(token[None], cache))(token, cache)
        return (logits.astype(jnp.float32), eqx.filter(cache, eqx.is_array), scores, ids), None

    first = (logits, arrays, scores, jnp.zeros((beams, length), jnp.int32))
    (_, _, scores, ids), _ = jax.lax.scan(step, first, jnp.arange(length))
    return ids[0], scores[0]
