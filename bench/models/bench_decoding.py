"""Decoding: a language model against transformers and against recomputed prefixes, late against early positions, and
masked tokens.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from bench.machine import full
from bench.race import Side
from eqxgen.configs import GPTConfig, ImageARConfig, ImageSampling, MaskedDecoding, MaskGITConfig, PartiConfig, Sampling
from eqxgen.decoding import images as images_of
from eqxgen.decoding.autoregressive import stream
from eqxgen.decoding.masked import masked_decode
from eqxgen.models.gpt import GPT
from eqxgen.models.image_ar import ImageAR
from eqxgen.models.maskgit import MaskGIT
from eqxgen.models.parti import Parti

PROMPT = np.arange(32, dtype=np.int32)
# Vocabulary and sizes; weights are random, as the time does not depend on them.
SMALL = (65, GPTConfig(dim=128, depth=4, heads=4, context=256))
VOCAB, CONFIG = (50257, GPTConfig.gpt2()) if full() else SMALL
TOKENS = 500 if full() else 64


@pytest.fixture(scope="module")
def model() -> GPT:
    return eqx.filter_jit(GPT)(VOCAB, CONFIG, key=jr.key(0))


def decode(model: GPT, count: int) -> list[float]:
    """Seconds of each token of a greedy stream."""
    text, times = stream(model, [PROMPT], Sampling(temperature=0.0), key=jr.key(1)), []
    for _ in range(count):
        begin = time.perf_counter()
        next(text)
        times.append(time.perf_counter() - begin)
    return times


def without_cache(model: GPT) -> Side:
    """Greedy tokens by a forward pass over the whole context for each."""

    @eqx.filter_jit
    def token(model: GPT, ids: jax.Array, last: jax.Array) -> jax.Array:
        return ids.at[last + 1].set(jnp.argmax(model(ids, inference=True)[last]).astype(ids.dtype))

    def call() -> jax.Array:
        ids = jnp.zeros(CONFIG.context, jnp.int32).at[: len(PROMPT)].set(PROMPT)
        for n in range(TOKENS):
            ids = token(model, ids, jnp.asarray(len(PROMPT) + n - 1))
        return ids

    return Side(call)


def in_transformers() -> Side:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": CONFIG.dim, "n_layer": CONFIG.depth, "n_head": CONFIG.heads, "n_positions": CONFIG.context}
    place = "cuda" if torch.cuda.is_available() else "cpu"
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, **sizes)).eval().to(place)
    inputs = torch.tensor(PROMPT[None], device=place).long()
    greedy = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}
    return Side(lambda: torch.no_grad()(model.generate)(inputs, **greedy).tolist())


def bench_gpt(race: Callable, benchmark: Any, model: GPT) -> None:
    makers = {"ours": lambda: Side(lambda: decode(model, TOKENS)), "transformers": in_transformers}
    if not full():
        makers["without a cache"] = lambda: without_cache(model)
    found = race(makers, f"decoding GPT {CONFIG.dim} wide", least=3, settings={"tokens": TOKENS})
    if "ms" in found:
        benchmark.extra_info["tokens/s"] = 1e3 * TOKENS / found["ms"]["ours"]


def bench_positions(race: Callable, model: GPT) -> None:
    """Median time of a token at the end of the context over that at the start."""
    count = CONFIG.context - len(PROMPT)
    window = count // 8
    decode(model, count)
    times = decode(model, count)
    late, early = (statistics.median(part) for part in (times[-window:], times[window : 2 * window]))
    makers = {"ours": lambda: Side(lambda: decode(model, window))}
    race(makers, f"decoding GPT {CONFIG.dim} wide", least=3, **{"late over early": late / early})


@pytest.mark.parametrize("steps", [1, 8])
def bench_masked(race: Callable, steps: int) -> None:
    """Images of 64 tokens, a batch of 16."""
    config = MaskGITConfig.base() if full() else MaskGITConfig(dim=64, depth=4, heads=4, hidden_dim=256)
    model = eqx.filter_jit(MaskGIT)(64, 128, 10, config, key=jr.key(0))

    def one(model: MaskGIT, label: jax.Array, key: jax.Array) -> jax.Array:
        options = MaskedDecoding(steps=steps)
        predict = lambda ids: model(ids, label, inference=True)
        blank = jnp.full(64, model.mask_id, jnp.int32)
        return masked_decode(predict, blank, blank >= 0, options, mask_id=model.mask_id, key=key)[-1]

    images = eqx.filter_jit(jax.vmap(one, in_axes=(None, 0, 0)))
    labels, keys = jnp.arange(16) % 10, jr.split(jr.key(1), 16)
    race(
        {"ours": lambda: Side(lambda: images(model, labels, keys))},
        f"decoding MaskGIT {config.dim} wide",
        settings={"images": 16},
    )


@pytest.mark.parametrize("name", ["ImageAR", "Parti"])
def bench_image_tokens(race: Callable, name: str) -> None:
    """Images of 64 tokens one by one: guided, a batch of 16; without guidance, one of twice as many. Parti's texts are
    of 12 tokens.
    """
    if name == "ImageAR":
        config = ImageARConfig.llamagen() if full() else ImageARConfig(dim=64, depth=4, heads=4, hidden_dim=256)
        model = eqx.filter_jit(ImageAR)((8, 8), 128, 10, config, key=jr.key(0))
    else:
        small = {"head_dim": 16, "hidden_dim": 256, "decoder_depth": 4}
        config = PartiConfig.parti() if full() else PartiConfig(64, 2, heads=4, **small)
        model = eqx.filter_jit(Parti)((8, 8), 128, 10, config, key=jr.key(0))

    def side(count: int, guidance: float) -> Side:
        rules = images_of.ImageRules.of(ImageSampling(guidance=guidance), 64)
        one = lambda model, label, key: images_of.generate(model, label, rules, key=key)
        draw = eqx.filter_jit(jax.vmap(one, in_axes=(None, 0, 0)))
        labels, keys = jnp.arange(count) % 10, jr.split(jr.key(1), count)
        given = labels if name == "ImageAR" else jnp.repeat(labels[:, None], 12, axis=1)
        return Side(lambda: draw(model, given, keys))

    makers = {"ours": lambda: side(16, 2.0), "twice the batch": lambda: side(32, 1.0)}
    race(makers, f"decoding {name} {config.dim} wide", settings={"images": 16})
