"""Memory of a language model over the tokens of several sequences, and reading of prompts into it."""

from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int32, Integer, PyTree

from eqxgen.nn._check import integers
from eqxgen.protocols import LanguageModel

CHUNK = 64
"""Tokens of a prompt that are read at a time: one compiled program for prompts of every length."""

Model = TypeVar("Model")
Prompt = Integer[ArrayLike, " _"] | list | tuple
"""Ids of a prompt: an array, or a list of integers."""


class Memory(eqx.Module):
    """State of `n` sequences, or of one.

    Attributes:
        logits: of the next token.
        cache: of the model.
        seen: tokens that occurred, for the repetition penalty.
    """

    logits: Float[Array, "*n vocab"]
    cache: PyTree
    seen: Bool[Array, "*n vocab"]


def check_prompts(model: LanguageModel, prompts: Sequence[Prompt] | np.ndarray) -> list[Int32[np.ndarray, " _"]]:
    """The prompts as arrays.

    Raises:
        ValueError: there is none, or one has not 1 to `model.context` ids of the vocabulary.
    """
    if len(prompts) == 0:
        raise ValueError("prompts must be one or more: got none")
    return [_checked(model, prompt, f"prompt {number}") for number, prompt in enumerate(prompts)]


def _checked(model: LanguageModel, prompt: Prompt, name: str) -> np.ndarray:
    ids = np.asarray(integers(prompt, name))
    if ids.ndim != 1 or len(ids) == 0:
        hint = "" if ids.ndim == 1 else "; prompts are a list, with a sequence (seq,) for each text"
        raise ValueError(f"{name} must be one or more ids: got shape {ids.shape}{hint}")
    if model.context is not None and len(ids) > model.context:
        raise ValueError(f"{name} must be at most context={model.context} tokens: got {len(ids)}; shorten it")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= model.vocab:
        raise ValueError(f"{name} must have ids in [0, vocab={model.vocab}): got {low} to {high}")
    return ids.astype(np.int32)


def decoding(model: Model) -> Model:
    """The model in inference mode, its stack of blocks unrolled where it has one: a scan would copy every block's
    weights at every token.
    """
    model = eqx.nn.inference_mode(model)
    return model.unrolled() if hasattr(model, "unrolled") else model  # pyright: ignore[reportAttributeAccessIssue]


def read(model: LanguageModel, prompts: Sequence[np.ndarray]) -> Memory:
    """The memory after the prompts, of which some may be empty."""
    n, longest = len(prompts), max(map(len, prompts))
    chunk = CHUNK if model.context is None else min(CHUNK, model.context)
    memory = _empty(model, n)
    for start in range(0, longest, chunk):
        parts = [prompt[start : start + chunk] for prompt in prompts]
        ids = np.stack([np.pad(part, (0, chunk - len(part))) for part in parts])
        memory = _prefill((model, ids, np.array([len(part) for part in parts], np.int32)), memory)
    return memory


@eqx.filter_jit
def _empty(model: Any, n: int) -> Memory:
    copies = lambda x: jnp.broadcast_to(x, (n, *x.shape)) if eqx.is_array(x) else x
    return Memory(jnp.zeros((n, model.vocab)), jax.tree.map(copies, model.cache()), jnp.zeros((n, model.vocab), bool))


@eqx.filter_jit(donate="all-except-first")
def _prefill(given: tuple[Any, Any, Any], memory: Memory) -> Memory:
    model, ids, counts = given

    def one(logits, cache, seen, ids, count):
        new, cache = model.extend(ids, cache, count=count)
        real = jnp.where(jnp.arange(len(ids)) < count, ids, len(seen))
        return Memory(
            jnp.where(count > 0, new.astype(logits.dtype), logits), cache, seen.at[real].set(True, mode="drop")
        )

    return eqx.filter_vmap(one)(memory.logits, memory.cache, memory.seen, ids, counts)


@eqx.filter_jit
def merged(memory: Memory, again: Memory, chosen: Bool[Array, " n"]) -> Memory:
    """The memory with the chosen sequences replaced by those of `again`; `seen` is kept."""
    pick = lambda new, old: (
        jnp.where(chosen.reshape(-1, *(1,) * (new.ndim - 1)), new, old) if eqx.is_array(new) else new
    )
    merged = jax.tree.map(pick, again, memory)
    return eqx.tree_at(lambda m: m.seen, merged, memory.seen)
