"""Train step of T5 beside transformers' of the same weights in PyTorch's eager mode, float32: cross-entropy of targets
with padding left out, gradients and Adam on random ids.
"""

import dataclasses
import functools
import tempfile
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from bench.race import OURS, Makers, Side
from bench.train_step import stepping, update_of
from eqxgen.configs import T5Config
from eqxgen.losses.tokens import cross_entropy
from eqxgen.models import T5
from eqxgen.pretrained.t5 import to_pretrained

RATE = 1e-4
SMALL = dataclasses.replace(T5Config.v1_1("small"), dropout=0.0)
TINY = T5Config(dim=16, depth=2, heads=2, head_dim=8, hidden_dim=24, dropout=0.0, gated=True, activation="gelu_tanh")


def makers(torch_name: str, batch: int, tiny: bool) -> Makers:
    """Both sides, from equal weights: sources of 64 tokens, targets of 32."""
    sizes = (TINY, 40, batch, 6, 5) if tiny else (SMALL, 32128, batch, 64, 32)
    return {OURS: functools.partial(ours, *sizes), torch_name: functools.partial(torch_eager, *sizes)}


def drawn(batch: int, vocab: int, source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources and targets of several lengths; 0 fills up, 1 ends."""
    rng = np.random.default_rng(0)

    def rows(length: int) -> np.ndarray:
        ids, counts = rng.integers(2, vocab, (batch, length)), rng.integers(length // 2, length, batch)[:, None]
        places = np.arange(length)
        return np.where(places < counts, ids, np.where(places == counts, 1, 0)).astype(np.int32)

    return rows(source), rows(target)


def made(config: T5Config, vocab: int) -> T5:
    """The net of both."""
    return eqx.filter_jit(T5)(vocab, config, key=jr.key(0))


def ours(config: T5Config, vocab: int, batch: int, source: int, target: int) -> Side:
    """The step of our net, which keeps its state between calls."""
    arrays, static = eqx.partition(made(config, vocab), eqx.is_inexact_array)
    optimizer = optax.adam(RATE)
    given, wanted = map(jnp.asarray, drawn(batch, vocab, source, target))

    def one(net: T5, given: jax.Array, wanted: jax.Array) -> jax.Array:
        before = jnp.concatenate([jnp.zeros(1, wanted.dtype), wanted[:-1]])
        logits = net(given, before, mask=given != 0, inference=True)
        return jnp.sum(jnp.where(wanted != 0, cross_entropy(logits, wanted), 0.0))

    def mean_loss(arrays: Any, _: Any) -> jax.Array:
        net = eqx.combine(arrays, static)
        return jnp.sum(jax.vmap(lambda a, b: one(net, a, b))(given, wanted)) / jnp.sum(wanted != 0)

    return stepping(*update_of(mean_loss, arrays, optimizer, batch))


def torch_eager(config: T5Config, vocab: int, batch: int, source: int, target: int) -> Side:
    """The step of transformers' net of the same sizes and weights."""
    import torch
    from transformers import T5ForConditionalGeneration

    with tempfile.TemporaryDirectory() as folder:
        to_pretrained(made(config, vocab), folder)
        model = T5ForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").train()
    adam = torch.optim.Adam(model.parameters(), lr=RATE)
    given, wanted = (torch.from_numpy(ids).long() for ids in drawn(batch, vocab, source, target))
    labels = wanted.masked_fill(wanted == 0, -100)

    def call() -> float:
        loss = model(input_ids=given, attention_mask=given != 0, labels=labels, use_cache=False).loss
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return loss.item()

    return Side(call, lambda value: None)
