"""GPT on a CPU against PyTorch: a training step of nanoGPT's small model, and decoding of GPT-2 small; and compiling by
depth.

    python -m bench.models.gpt [--rounds 30] [--tokens 500]      needs torch and transformers

Both sides in one process with two threads and the engine's way with freed memory, which both gain from. Steps are
interleaved, and the ratio is the median of each round's. Each side decodes greedily from 32 tokens, for its number of
tokens a second in turn, twice; weights are drawn, as speed does not depend on them.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from bench.ops.norm import race
from eqxgen.configs import GPTConfig, Sampling
from eqxgen.decoding.autoregressive import stream
from eqxgen.models.gpt import GPT
from train import gpt
from train.engine.dryrun import abstract_update, lower
from train.engine.host_memory import keep_freed_memory
from train.engine.step import Setup, make_step, sharded_state
from train.parallel import make_mesh
from train.tasks.facts import TextFacts

OUT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "gpt.json"
VOCAB, BATCH, CONTEXT = 65, 12, 64
TARGETS = {"step": 0.7, "decoding": 1.3, "position": 1.2, "compiling": 1.3}


def our_step(ids: np.ndarray) -> Callable[[], None]:
    """The whole update of `python -m train.gpt`, with its batch's transfer."""
    config = gpt.PRESETS["nano-cpu"]
    core = gpt.RECIPE.program(config, TextFacts(VOCAB, CONTEXT))
    setup = Setup.of(config, core, make_mesh(), on_cpu=True)
    state = [sharded_state(setup, jr.key(0))]
    step, key = make_step(setup), jr.key(1)
    batch = {"ids": ids, "index": np.arange(BATCH, dtype=np.int32), "weight": np.ones(BATCH, np.float32)}

    def run() -> None:
        state[0], metrics = step(({name: jnp.asarray(array) for name, array in batch.items()}, key), state[0])
        metrics["loss"].block_until_ready()

    return run


def torch_step(ids: np.ndarray) -> Callable[[], None]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(2)
    sizes = {"n_embd": 128, "n_layer": 4, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=CONTEXT, use_cache=False, **sizes))
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)

    def run() -> None:
        window = torch.tensor(ids).long()
        logits = model(window[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), window[:, 1:].reshape(-1))
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        loss.item()

    return run


def decoding(tokens: int) -> dict[str, Any]:
    """Tokens a second of each side, and what a token takes at positions 100 and 900."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    prompt = np.arange(32, dtype=np.int32)
    ours = GPT(50257, GPTConfig.gpt2(), key=jr.key(0))
    theirs = GPT2LMHeadModel(GPT2Config()).eval()
    inputs = torch.tensor(prompt[None]).long()

    def decode(count: int) -> list[float]:
        text = stream(ours, [prompt], Sampling(temperature=0.0), key=jr.key(1))
        next(text)  # compiles, the first time
        times = []
        for _ in range(count - 1):
            begin = time.perf_counter()
            next(text)
            times.append(time.perf_counter() - begin)
        return times

    def generate(count: int) -> float:
        begin = time.perf_counter()
        with torch.no_grad():
            theirs.generate(inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
        return time.perf_counter() - begin

    decode(4), generate(4)
    rates: dict[str, list[float]] = {"ours": [], "transformers": []}
    for _ in range(2):
        rates["ours"].append((tokens - 1) / sum(decode(tokens)))
        rates["transformers"].append(tokens / generate(tokens))
    far = decode(900)
    at = {"ms at 100": 1000 * statistics.median(far[60:100]), "ms at 900": 1000 * statistics.median(far[850:890])}
    best = {name: max(values) for name, values in rates.items()}
    ratio = statistics.median(o / t for o, t in zip(*rates.values()))
    return (
        {"tokens_per_s": best, "rate_over_transformers": ratio}
        | at
        | {"900 over 100": at["ms at 900"] / at["ms at 100"]}
    )


def compiling(rounds: int = 3) -> dict[str, float]:
    """Seconds to lower and compile the train step of the smallest and the largest published size, for this machine and
    without any array.
    """
    times: dict[str, list[float]] = {"gpt2": [], "gpt2-xl": []}
    for _ in range(rounds):
        for name, seconds in times.items():
            config = dataclasses.replace(gpt.PRESETS[name], batch_size=8, precision="float32")
            core = gpt.RECIPE.program(config, TextFacts(50257, config.model.context))
            jax.clear_caches()
            begin = time.perf_counter()
            lower(*abstract_update(config, core, make_mesh())).compile()
            seconds.append(time.perf_counter() - begin)
    ratio = statistics.median(xl / small for small, xl in zip(*times.values()))
    return {f"{name} s": statistics.median(seconds) for name, seconds in times.items()} | {"xl over small": ratio}


def rounded(value: Any) -> Any:
    return {name: rounded(item) for name, item in value.items()} if isinstance(value, dict) else round(value, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=500)
    given = parser.parse_args()
    keep_freed_memory()
    ids = np.random.default_rng(0).integers(0, VOCAB, (BATCH, CONTEXT + 1)).astype(np.int32)
    runs = {"ours": our_step(ids), "torch": torch_step(ids)}
    race(runs, 3, 1)
    times = race(runs, given.rounds, 1)
    step = {
        "median_ms": {name: statistics.median(values) for name, values in times.items()},
        "ours_over_torch": statistics.median(o / t for o, t in zip(times["ours"], times["torch"])),
    }
    found = rounded({"step": step, "decoding": decoding(given.tokens), "compiling": compiling()})
    reached = {
        "step": found["step"]["ours_over_torch"] <= TARGETS["step"],
        "decoding": found["decoding"]["rate_over_transformers"] >= TARGETS["decoding"],
        "position": found["decoding"]["900 over 100"] <= TARGETS["position"],
        "compiling": found["compiling"]["xl over small"] <= TARGETS["compiling"],
    }
    import torch
    import transformers

    versions = {"jax": jax.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    about = versions | {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    OUT.write_text(
        json.dumps({"targets": TARGETS, "reached": reached, **found, "about": about}, indent=2) + "\n", encoding="utf-8"
    )
    print(OUT.read_text())


if __name__ == "__main__":
    main()
