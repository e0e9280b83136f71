"""Beam search: the likeliest continuation of a prompt among a fixed number of candidates."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Integer

from eqxgen.decoding.memory import LanguageModel, Memory, check_prompts, decoding, read


def beam_search(
    model: LanguageModel, prompt: Integer[np.ndarray, " start"], length: int, beams: int
) -> tuple[Int32[np.ndarray, " length"], float]:
    """The likeliest continuation among `beams` candidates kept at each step, and its log probability in nats.

    Args:
        prompt: one or more tokens; with `length` more at most `model.context`.
        length: tokens to add.
        beams: candidates; 1 is greedy decoding.

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
    ids, score = _search(model, read(model, [np.asarray(prompt, np.int32)]), length, beams)
    return np.asarray(ids), float(score)


@eqx.filter_jit
def _search(model: Any, memory: Memory, length: int, beams: int) -> tuple[Int[Array, " length"], Float[Array, ""]]:
    copies = lambda x: jnp.broadcast_to(x, (beams, *x.shape[1:])) if eqx.is_array(x) else x
    logits, cache = jax.tree.map(copies, (memory.logits, memory.cache))
    arrays, rest = eqx.partition(cache, eqx.is_array)
    scores = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # the candidates are equal at first: only one counts

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
