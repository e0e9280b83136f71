"""R10: the loss scale does what a plain machine says it does, and an overflow anywhere changes nothing anywhere.

python -m bench.reliability.loss_scale           10,000 events, every replica in turn; writes R10.json
python -m bench.reliability.loss_scale --short   fewer events, two replicas: the suite's
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from bench.reliability.common import RESULTS, ROOT, about, write
from bench.reliability.device_parity import FLAGS
from train.checkpoint import Checkpoints
from train.config.optim import EmaConfig
from train.engine.recipe import Program, Sums
from train.engine.step import Setup, make_step, sharded_state
from train.optim.ema import averages
from train.parallel import make_mesh, split
from train.precision import DynamicLossScale, Policy, Skipped, check_skipped, guarded_update

INTERVAL = 5
REPLICAS = 8


@dataclasses.dataclass
class Machine:
    """A dynamic loss scale in plain Python."""

    scale: float = 2.0**16
    good: int = 0
    total: int = 0
    consecutive: int = 0
    updates: int = 0

    def see(self, finite: bool) -> None:
        if not finite:
            self.scale, self.good = max(self.scale / 2, 2.0**-14), 0
            self.total, self.consecutive = self.total + 1, self.consecutive + 1
            return
        self.consecutive, self.updates, self.good = 0, self.updates + 1, self.good + 1
        if self.good == INTERVAL:
            self.scale, self.good = min(self.scale * 2, 2.0**24), 0


def drawn(count: int) -> np.ndarray:
    """Random events, true where all was finite; the share of overflows changes, so that both ends of the scale are
    reached.
    """
    rng = np.random.default_rng(0)
    share = np.repeat(rng.choice([0.0, 0.02, 0.2, 0.6, 1.0], size=-(-count // 100)), 100)[:count]
    return rng.random(count) >= share


def event(carry, finite):
    """One guarded update with a gradient of one, or of infinity."""
    weights, scale, skipped = carry
    grads = {"w": jnp.where(finite, 1.0, jnp.inf) * scale.factor}
    weights, scale, skipped, _ = guarded_update(lambda g, w: w + g["w"], grads, jnp.float32(0), weights, scale, skipped)
    return (weights, scale, skipped), (scale.factor, scale.good_steps, skipped.total, skipped.consecutive, weights)


def start():
    return jnp.float32(0), DynamicLossScale(interval=INTERVAL), Skipped()


def events(count: int) -> dict:
    """Number of events that end otherwise than in the machine: in one scan; step by step under jit; through a
    checkpoint.
    """
    flags = drawn(count)
    machine, wanted = Machine(), []
    for flag in flags:
        machine.see(bool(flag))
        wanted.append((machine.scale, machine.good, machine.total, machine.consecutive, machine.updates))
    wanted = np.asarray(wanted)
    scanned = jax.jit(lambda carry, flags: jax.lax.scan(event, carry, flags))
    wrong = lambda found, rows: int(
        np.sum(np.any(np.stack([np.asarray(x, np.float64) for x in found], axis=1) != rows, axis=1))
    )

    _, found = scanned(start(), flags)
    one, carry, single = jax.jit(event), start(), []
    for flag in flags[: count // 10]:
        carry, seen = one(carry, flag)
        single.append(seen)
    with tempfile.TemporaryDirectory() as folder:
        half = count // 2
        carry, _ = scanned(start(), flags[:half])
        for checkpoints in saved(Path(folder), half, carry):
            restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, carry))
    _, resumed = scanned(restored[0], flags[half:])
    return {
        "events": count,
        "overflows": int(np.sum(~flags)),
        "lowest_scale": float(wanted[:, 0].min()),
        "highest_scale": float(wanted[:, 0].max()),
        "differing_in_scan": wrong(found, wanted),
        "differing_under_jit": wrong(zip(*single), wanted[: len(single)]),
        "differing_after_checkpoint": wrong(resumed, wanted[half:]),
    }


def saved(folder: Path, step: int, state):
    """The checkpoints of a state, closed and opened again."""
    checkpoints = Checkpoints(folder / "checkpoints", 1)
    checkpoints.save(step, state)
    checkpoints.close()
    checkpoints = Checkpoints(folder / "checkpoints", 1)
    yield checkpoints
    checkpoints.close()


def limit(limit: int) -> dict:
    """After how many steps of permanent NaN the run ends, what it says, and whether the weights are what they were."""
    carry, step = start(), 0
    one = jax.jit(lambda carry: event((carry[0], carry[1], carry[2]), jnp.bool_(False))[0])
    try:
        for step in range(1, 10 * limit):
            carry = one(carry)
            check_skipped(carry[2], carry[1], {"w": carry[0]}, limit=limit, step=step)
    except FloatingPointError as error:
        return {
            "limit": limit,
            "raised_at_step": step,
            "message": str(error),
            "weights_unchanged": float(carry[0]) == 0,
        }
    return {"limit": limit, "raised_at_step": None}


class Layer(eqx.Module):
    """A model of one layer."""

    weight: jax.Array
    bias: jax.Array


def squares(model, batch, keys, axis):
    """Summed squared error of each example."""
    x = batch["x"].astype(model.weight.dtype)
    errors = jnp.sum((x @ model.weight + model.bias[None] - batch["y"].astype(x.dtype)) ** 2, axis=-1).astype(
        jnp.float32
    )
    return Sums(batch["weight"] @ errors, jnp.sum(batch["weight"]), {})


def bits(tree) -> list[bytes]:
    """Every shard of every array."""
    arrays = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    return [np.asarray(shard.data).tobytes() for x in arrays for shard in x.addressable_shards]


def replicas(positions: range) -> list[dict]:
    """One infinity in one replica's data: what changed, on any device, for each replica and precision."""
    rng = np.random.default_rng(0)
    good = {
        "x": rng.uniform(-1, 1, (2 * REPLICAS, 3)).astype(np.float32),
        "y": rng.uniform(-1, 1, (2 * REPLICAS, 2)).astype(np.float32),
        "index": np.arange(2 * REPLICAS, dtype=np.int32),
        "weight": np.ones(2 * REPLICAS, np.float32),
    }
    mesh = make_mesh()
    rate = optax.linear_schedule(0.1, 0.0, 100)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.scale_by_learning_rate(rate))
    init = lambda key: Layer(jr.normal(key, (3, 2)), jnp.zeros(2))
    rows = []
    for precision in ("float32", "bfloat16", "float16"):
        ema = averages(EmaConfig(decay=0.9), 2 * REPLICAS)
        setup = Setup(Program.of(init, squares, {}), {"model": tx}, ema, mesh, Policy.parse(precision))
        step = make_step(setup)
        for position in positions:
            bad = good | {"x": good["x"].copy()}
            bad["x"][2 * position + 1, 1] = np.inf
            state = sharded_state(setup, jr.key(0))
            for _ in range(20):  # in which a float16 scale comes down
                state, _ = step((jax.device_put(good, split(mesh)), jr.key(1)), state)
            parts = {
                "parameters": state.model,
                "average": state.ema,
                "optimiser": state.opt_state["model"][:2],
                "schedule": state.opt_state["model"][2],
            }
            before, factor = {name: bits(part) for name, part in parts.items()}, float(state.scale["main"].factor)
            counters = int(state.step), int(state.skipped["main"].total)
            state, metrics = step((jax.device_put(bad, split(mesh)), jr.key(1)), state)
            parts = {
                "parameters": state.model,
                "average": state.ema,
                "optimiser": state.opt_state["model"][:2],
                "schedule": state.opt_state["model"][2],
            }
            now = bits((state.step, state.scale, state.skipped))
            rows.append(
                {
                    "precision": precision,
                    "replica": position,
                    **{f"{name}_unchanged": bits(part) == before[name] for name, part in parts.items()},
                    "steps": int(state.step) - counters[0],
                    "skipped": int(metrics["skipped"]) - counters[1],
                    "scale_ratio": float(state.scale["main"].factor) / factor,
                    "replicas_agree": all(len(set(now[i : i + REPLICAS])) == 1 for i in range(0, len(now), REPLICAS)),
                }
            )
            state, metrics = step((jax.device_put(good, split(mesh)), jr.key(1)), state)
            rows[-1]["goes_on"] = (
                bits(state.model) != before["parameters"] and int(metrics["skipped"]) == counters[1] + 1
            )
    return rows


def measure(short: bool) -> dict:
    """Everything; the replicas in a process of their own with virtual devices, whose collectives can hang."""
    env = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    line = [sys.executable, "-m", "bench.reliability.loss_scale", "--child", *(["--short"] if short else [])]
    done = subprocess.run(line, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, timeout=240, check=True)
    return {
        "machine": events(1000 if short else 10_000),
        "permanent_nan": limit(50),
        "replicas": json.loads(done.stdout),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer events, two replicas")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        json.dump(replicas(range(0, REPLICAS, 5 if options.short else 1)), sys.stdout)
        return
    begin = time.perf_counter()
    result = measure(options.short)
    if options.short:
        print(json.dumps(result, indent=2))
    else:
        write(RESULTS / "R10.json", {"figure": "R10", **result, **about(begin)})


if __name__ == "__main__":
    main()
