"""Train steps: models against `jax.nn`'s attention with plain norms and PyTorch, the engine against transformers."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from bench.gpu.steps import FULL, contenders, on_cpu, rates_of, tokens_of
from bench.race import Side
from eqxgen.configs import DiTConfig, GPTConfig, MAGEConfig, MaskGITConfig, MaskRatio
from eqxgen.losses.mage import mage_loss
from eqxgen.models import MAGE
from train import gpt
from train.engine.host_memory import keep_freed_memory
from train.engine.step import Setup, make_step, sharded_state
from train.parallel import make_mesh
from train.tasks.facts import TextFacts

ON_CPU = jax.default_backend() == "cpu"
SIZES = {"dim": 64, "depth": 4, "heads": 4, "hidden_dim": 256}
MODELS = {
    "DiT": (8, (8, 8, 4, 10), DiTConfig(**SIZES)),
    "GPT": (4, (65,), GPTConfig(**SIZES, context=128)),
    "MaskGIT": (8, (64, 32, 10), MaskGITConfig(**SIZES)),
}
VOCAB, BATCH, CONTEXT = 65, 12, 64


@pytest.mark.parametrize("name", MODELS if ON_CPU else FULL)
def bench_model(race: Callable, benchmark: Any, name: str) -> None:
    """Loss, gradients and AdamW on random data: float32 on a CPU, elsewhere bfloat16 inside."""
    batch, sizes, config = (MODELS if ON_CPU else FULL)[name]
    make, makers = contenders(batch, sizes, config, jnp.float32 if ON_CPU else jnp.bfloat16)
    found = race(on_cpu(makers) if ON_CPU else makers, f"train step {name}", settings={"batch": batch})
    if "ms" in found:
        rates = rates_of(found["ms"], make, batch * tokens_of(sizes, config))
        benchmark.extra_info |= {what: rate["ours"] for what, rate in rates.items()}


def bench_mage(race: Callable) -> None:
    """Loss and gradients of MAGE, whose encoder sees half of the tokens, against an encoder of all of them."""
    decoder = {f"decoder_{name}": value for name, value in (SIZES | {"depth": 2}).items()}
    model = eqx.filter_jit(MAGE)(64, 32, 0, MAGEConfig(**SIZES, **decoder), key=jr.key(0))
    ids, keys = jr.randint(jr.key(1), (8, 64), 0, 32), jr.split(jr.key(2), 8)

    def side(ratio: MaskRatio) -> Side:
        one = lambda model, ids, key: (
            mage_loss(model, ids, jnp.asarray(0), ratio=ratio, label_dropout=0.0, key=key).loss
        )
        total = lambda model, ids, keys: jnp.mean(jax.vmap(one, in_axes=(None, 0, 0))(model, ids, keys))
        slope = eqx.filter_jit(eqx.filter_value_and_grad(total))
        return Side(lambda: slope(model, ids, keys))

    makers = {"ours": lambda: side(MaskRatio()), "every token encoded": lambda: side(MaskRatio(least=0.0))}
    race(makers, "train step MAGE", settings={"batch": 8})


def bench_engine(race: Callable) -> None:
    """The whole update of `python -m train.gpt --preset nano-cpu`, with the transfer of its batch."""
    keep_freed_memory()
    ids = np.random.default_rng(0).integers(0, VOCAB, (BATCH, CONTEXT + 1)).astype(np.int32)
    race({"ours": lambda: in_engine(ids), "transformers": lambda: in_transformers(ids)}, "train step GPT, engine")


def in_engine(ids: np.ndarray) -> Side:
    config = gpt.PRESETS["nano-cpu"]
    setup = Setup.of(config, gpt.RECIPE.program(config, TextFacts(VOCAB, CONTEXT)), make_mesh(), on_cpu=ON_CPU)
    state = [sharded_state(setup, jr.key(0))]
    step, key = make_step(setup), jr.key(1)
    batch = {"ids": ids, "index": np.arange(BATCH, dtype=np.int32), "weight": np.ones(BATCH, np.float32)}

    def call() -> Any:
        state[0], metrics = step((jax.tree.map(jnp.asarray, batch), key), state[0])
        return jax.block_until_ready(metrics["loss"])

    return Side(call)


def in_transformers(ids: np.ndarray) -> Side:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    place = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {"n_embd": 128, "n_layer": 4, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=CONTEXT, use_cache=False, **sizes)).to(place)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)

    def call() -> float:
        window = torch.tensor(ids, device=place).long()
        logits = model(window[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), window[:, 1:].reshape(-1))
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        return loss.item()

    return Side(call)
