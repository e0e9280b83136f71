"""R9: a run's updates do not depend on how many devices share them.

  python -m bench.reliability.device_parity --folder NEW

Gradients on every mesh against one device's, in float64 and float32, and `--count` steps of SGD, whose devices must
agree after each. Every number type is computed in a process of its own with 8 virtual devices, since collectives of
those can hang and `jax_enable_x64` holds for a whole process.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax

from bench.reliability.common import ROOT, run
from bench.reliability.small import batch_of
from eqxgen.configs import GPTConfig, MAGEConfig, MaskGITConfig, VQGANConfig
from train import gpt, mage, maskgit, vqgan
from train.config.optim import EmaConfig, OptimConfig
from train.data import DataConfig
from train.engine.gradients import mean_gradients
from train.engine.step import Setup, make_step, sharded_state
from train.optim.ema import averages
from train.parallel import make_mesh, split
from train.precision import NoLossScale, Policy, StaticLossScale
from train.report.peak import flops_of
from train.tasks.facts import ImageFacts, TextFacts, TokenFacts

FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_warn_stuck_timeout_seconds=10 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=60"
)
LIMITS = {"float64": {"gradient": 1e-14, "parameters": 1e-14}, "float32": {"gradient": 1e-6, "parameters": 5e-7}}
AMPLIFIED = {"vqgan": 10.0}
"""Factor of a program's limit: assignments of temperature 0.01 multiply the rounding of distances by 100."""
SCALES = {"maskgit": StaticLossScale(2.0**10)}
"""A program's loss scale: a power of two, which changes no digit."""
ROWS = 16
# Mesh, micro-batches, examples that count; the first of as many examples is what the others must equal.
SHORT = {
    "maskgit": [("data=1", 1, 13), ("data=2,fsdp=2,model=2", 2, 13)],
    "gpt": [("data=1", 1, 13), ("fsdp=2,pipeline=2,context=2", 1, 13)],
    "experts": [("data=1", 1, 13), ("fsdp=2,expert=2,context=2", 1, 13)],
}
FULL = {
    "maskgit": [
        ("data=1", 1, 16),
        ("data=1", 2, 16),
        ("data=1", 4, 16),
        ("data=8", 1, 16),
        ("fsdp=8", 1, 16),
        ("data=4,model=2", 1, 16),
        ("data=2,fsdp=2,model=2", 4, 16),
        ("data=1", 1, 13),
        ("data=8", 2, 13),
        ("fsdp=8", 2, 13),
        ("data=2,fsdp=2,model=2", 2, 13),
        ("data=4,pipeline=2", 2, 13),
        ("fsdp=4,pipeline=2", 1, 13),
    ],
    "vqgan": [
        ("data=1", 1, 16),
        ("data=1", 4, 16),
        ("data=8", 1, 16),
        ("fsdp=8", 2, 16),
        ("data=1", 1, 13),
        ("data=1", 4, 13),
        ("data=8", 1, 13),
        ("data=2,fsdp=4", 2, 13),
    ],
    "mage": [("data=1", 1, 13), ("data=8", 1, 13), ("fsdp=8", 1, 13), ("data=2,fsdp=2,model=2", 1, 13)],
    **{
        name: [
            ("data=1", 1, 13),
            ("data=1", 2, 13),
            ("context=8", 1, 13),
            ("data=2,context=4", 1, 13),
            ("data=2,context=4", 2, 13),
            ("fsdp=4,context=2", 1, 13),
        ]
        for name in ("gpt", "gpt-ring", "experts")
    },
}
FULL["gpt"] += [
    ("data=4,pipeline=2", 1, 13),
    ("data=2,fsdp=2,pipeline=2", 2, 13),
    ("fsdp=2,pipeline=2,context=2", 1, 13),
]
FULL["experts"] += [
    ("expert=8", 1, 13),
    ("data=2,expert=4", 2, 13),
    ("fsdp=2,expert=4", 1, 13),
    ("data=2,fsdp=2,expert=2", 1, 13),
    ("fsdp=2,expert=2,context=2", 1, 13),
]
FULL["unlimited"] = [("data=1", 1, 13), ("fsdp=2,expert=4", 1, 13), ("fsdp=2,expert=2,context=2", 1, 13)]


def programs():
    # 1,024 entries and more are split, so that both kinds of parameters are there.
    sizes = MaskGITConfig(dim=32, depth=2, heads=2, hidden_dim=64, dropout=0.1, placement="pre")
    yield "maskgit", maskgit.RECIPE.program(maskgit.Config(model=sizes), TokenFacts((3, 3, 1), 3, 9, 7))
    sizes = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=5, codes=7)
    # Terms that are no sum over examples: the entropy of the mean assignment, the adaptive weight.
    config = vqgan.Config(model=sizes, adversarial=0.1, adaptive=True, data=DataConfig(), optim=OptimConfig())
    yield "vqgan", vqgan.program(config, ImageFacts((8, 8, 1), 10))
    # Negatives of the whole batch, gathered with their gradients.
    half = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "decoder_hidden_dim": 32}
    sizes = MAGEConfig(dim=32, depth=2, heads=2, hidden_dim=64, projection=8, **half)
    contrasted = mage.Config(model=sizes, contrast=0.5, shift=1)
    yield "mage", mage.RECIPE.program(contrasted, TokenFacts((3, 3, 1), 3, 9, 7))
    # Dropout of entries and of attention weights by the exchange of heads; a ring, which would drop other weights.
    sizes = GPTConfig(dim=32, depth=2, heads=8, kv_heads=4, context=16, dropout=0.1, positions="rotary")
    yield "gpt", language(sizes)
    yield "gpt-ring", language(dataclasses.replace(sizes, heads=1, kv_heads=1, attention_dropout=0.0))
    # Choices that overflow, noise of the router, losses of the whole sequence's routing; and all choices kept.
    learned = dataclasses.replace(sizes, positions="learned", experts=8, router_jitter=0.1)
    yield "experts", language(dataclasses.replace(learned, capacity_factor=0.8))
    yield "unlimited", language(learned)


def language(sizes):
    """A GPT on windows of as many tokens as its context."""
    return gpt.RECIPE.program(gpt.Config(model=sizes), TextFacts(7, sizes.context))


def relative(first, second):
    """Distance of two trees over the length of the second, both in float64."""
    vector = lambda tree: np.concatenate(
        [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]
    )
    return float(np.linalg.norm(vector(first) - vector(second)) / np.linalg.norm(vector(second)))


def alike(tree):
    """True where devices that hold the same part hold the same bits."""
    parts = {}
    for number, array in enumerate(jax.tree.leaves(eqx.filter(tree, eqx.is_array))):
        for shard in array.addressable_shards:
            part = parts.setdefault((number, str(shard.index)), np.asarray(shard.data))
            if not np.array_equal(part, np.asarray(shard.data)):
                return False
    return True


def held(tree):
    """The largest share of a tree's bytes that one device holds."""
    arrays = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    bytes_of = {}
    for array in arrays:
        for shard in array.addressable_shards:
            bytes_of[shard.device] = bytes_of.get(shard.device, 0) + shard.data.nbytes
    return max(bytes_of.values()) / sum(array.nbytes for array in arrays)


def compare(dtype, cases):
    """The rows of a table: each case's distance from one device's gradient, and what the devices then hold."""
    rows = []
    for name, program in programs():
        program, reference = in_type(program, dtype), {}
        for text, accumulate, count in cases.get(name, []):
            mesh = mesh_of(text)
            state = sharded_state(setup_of(program, mesh, dtype), jr.key(0))
            batch = jax.device_put(batch_of(program, ROWS, 0, count, dtype), split(mesh))

            def compute(model, batch, mesh=mesh, accumulate=accumulate, name=name, turn=program.turns["main"]):
                more = {"accumulate": accumulate, "whole": turn.whole, "scale": SCALES.get(name, NoLossScale())}
                return mean_gradients(turn.loss, model, batch, jr.key(1), mesh, Policy.parse(dtype), **more)

            grads, metrics, _ = jax.block_until_ready(eqx.filter_jit(compute)(state.model, batch))
            values = {key: float(value) for key, value in metrics.items()}
            first = reference.setdefault(count, (grads, values))
            off = {key: abs(values[key] - first[1][key]) / (abs(first[1][key]) + 1e-6) for key in values}
            row = {
                "program": name,
                "mesh": text,
                "accumulate": accumulate,
                "examples": count,
                "gradient": relative(grads, first[0]),
            }
            row["operations"] = flops_of(compute, state.model, batch)
            rows.append(
                row
                | {"metrics": max(off.values()), "alike": alike(grads), "held": held((state.model, state.opt_state))}
            )
            print(dtype, rows[-1], file=sys.stderr, flush=True)
    return rows


def trained(dtype, steps):
    """After as many steps of SGD: the largest difference of a parameter over the largest parameter, and whether the
    devices agreed at each.
    """
    name, program = next(iter(programs()))
    program = in_type(program, dtype)
    rows, first = [], None
    for text in ("data=1", "data=8", "data=2,fsdp=2,model=2"):
        mesh = mesh_of(text)
        setup = setup_of(program, mesh, dtype)
        state, step = sharded_state(setup, jr.key(0)), make_step(setup)
        batch, agreed, losses = jax.device_put(batch_of(program, ROWS, 0, 13, dtype), split(mesh)), True, []
        for _ in range(steps):
            state, metrics = step((batch, jr.key(1)), state)
            losses.append(float(metrics["loss"]))
            agreed = agreed and alike(state)
        leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(eqx.filter(state.model, eqx.is_array))]
        first = first or leaves
        off = max(float(np.max(np.abs(a - b))) for a, b in zip(leaves, first)) / max(
            float(np.max(np.abs(a))) for a in first
        )
        rows.append(
            {"program": name, "mesh": text, "steps": steps, "parameters": off, "loss": losses[-1], "alike": agreed}
        )
        print(dtype, rows[-1], file=sys.stderr, flush=True)
    return rows


def in_type(program, dtype):
    """The program with parameters of a type."""
    cast = lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x
    return dataclasses.replace(program, init=lambda key: jax.tree.map(cast, program.init(key)))


def setup_of(program, mesh, dtype):
    optimisers = dict.fromkeys(program.players, optax.sgd(0.1))
    return Setup(program, optimisers, averages(EmaConfig(), ROWS), mesh, Policy.parse(dtype))


def mesh_of(text):
    return make_mesh(text, jax.devices()[: 1 if text == "data=1" else 8])


def table(dtype, steps, long=False):
    """The rows of one number type, from a process of its own; without steps only gradients, of the short table unless
    the long one is asked for.
    """
    env = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    line = [sys.executable, "-m", "bench.reliability.device_parity", "child", dtype, str(steps), str(long)]
    done = subprocess.run(
        line, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, timeout=3000 if steps or long else 280, check=True
    )
    return json.loads(done.stdout)


def child(dtype, steps, long):
    jax.config.update("jax_enable_x64", dtype == "float64")
    json.dump(
        {
            "gradients": compare(dtype, FULL if steps or long else SHORT),
            "steps": trained(dtype, steps) if steps else [],
        },
        sys.stdout,
    )


def measure(count: int, folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for dtype in LIMITS:
        rows = table(dtype, count)
        result[f"{dtype}_gradient"] = max(
            row["gradient"] / AMPLIFIED.get(row["program"], 1) for row in rows["gradients"]
        )
        result[f"{dtype}_parameters"] = max(row["parameters"] for row in rows["steps"])
        result[f"{dtype}_devices_agree"] = all(row["alike"] for row in [*rows["gradients"], *rows["steps"]])
        result[f"{dtype}_rows"] = rows
    kept = {
        dtype: all(result[f"{dtype}_{name}"] <= limit for name, limit in limits.items())
        for dtype, limits in LIMITS.items()
    }
    return {"reached": all(kept.values()) and all(result[f"{dtype}_devices_agree"] for dtype in LIMITS), **result}


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True")
    else:
        run("R9", __doc__ or "", 100, measure)
