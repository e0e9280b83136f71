"""Train steps of BERT on masked words beside transformers' of the same sizes and weights in PyTorch's eager mode,
float32: loss, gradients and Adam on random tokens, a fifth of them padding, with dropout.

Ours projects the chosen places alone to the vocabulary, which transformers' projects at every place.
"""

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
from eqxgen.configs import BERTConfig
from eqxgen.models import BERTMaskedLM
from eqxgen.pretrained.bert import to_pretrained
from train.evaluators.masked import gap_losses

VOCAB, RATE, IGNORED = 8000, 1e-4, -100
CONFIG = BERTConfig(dim=256, depth=4, heads=4, context=128)
SMALL = BERTConfig(dim=16, depth=2, heads=2, context=16)


def makers(torch_name: str, batch: int, tiny: bool) -> Makers:
    """Both sides, from equal weights."""
    config, vocab = (SMALL, 50) if tiny else (CONFIG, VOCAB)
    return {
        OURS: functools.partial(_ours, config, vocab, batch),
        torch_name: functools.partial(_torch_eager, config, vocab, batch),
    }


def drawn(config: BERTConfig, vocab: int, batch: int) -> dict[str, np.ndarray]:
    """Rows of tokens with their chosen places, 15 % of the real tokens."""
    rng, context = np.random.default_rng(0), config.context
    real = context * 4 // 5
    places = np.stack([rng.permutation(real)[: max(1, round(0.15 * real))] for _ in range(batch)])
    ids = rng.integers(5, vocab, (batch, context))
    ids[:, real:] = 0
    found = {"ids": ids, "types": np.zeros_like(ids), "length": np.full(batch, real), "places": places}
    found["targets"] = np.take_along_axis(ids, places, 1)
    return {name: array.astype(np.int32) for name, array in found.items()}


def _model(config: BERTConfig, vocab: int) -> BERTMaskedLM:
    return eqx.filter_jit(BERTMaskedLM)(vocab, config, key=jr.key(0))


def _ours(config: BERTConfig, vocab: int, batch: int) -> Side:
    """Our step, which keeps its state between calls."""
    arrays, static = eqx.partition(_model(config, vocab), eqx.is_inexact_array)
    rows, adam = jax.tree.map(jnp.asarray, drawn(config, vocab, batch)), optax.adam(RATE)

    def mean_loss(arrays: Any, keys: Any) -> jax.Array:
        return jnp.mean(jax.vmap(functools.partial(gap_losses, eqx.combine(arrays, static)))(rows, keys)[0])

    return stepping(*update_of(mean_loss, arrays, adam, batch))


def _torch_eager(config: BERTConfig, vocab: int, batch: int) -> Side:
    """The step of transformers' model of the same sizes and weights."""
    import torch
    from transformers import BertForMaskedLM

    with tempfile.TemporaryDirectory() as folder:
        to_pretrained(_model(config, vocab), folder)
        model = BertForMaskedLM.from_pretrained(folder).train()
    adam = torch.optim.Adam(model.parameters(), lr=RATE)
    rows = {name: torch.from_numpy(array).long() for name, array in drawn(config, vocab, batch).items()}
    mask = (torch.arange(config.context)[None] < rows["length"][:, None]).long()
    labels = torch.full_like(rows["ids"], IGNORED).scatter(1, rows["places"], rows["targets"])

    def call() -> float:
        loss = model(rows["ids"], attention_mask=mask, token_type_ids=rows["types"], labels=labels).loss
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return loss.item()

    return Side(call, lambda value: None)
