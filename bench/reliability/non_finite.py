"""R11: a number that is not finite, of any origin, is never written.

  python -m bench.reliability.non_finite           every case, and whole runs; writes R11.json
  python -m bench.reliability.non_finite --short   a third of the cases: the suite's

In a case NaN or infinity enters at one place and time; then parameters, averages, optimiser state and what a checkpoint
holds must be what they were, bit for bit, and the next step must go on. A parameter that is not finite itself is left
as it is, and the run ends at its limit. In a whole run the data of some steps are not finite, before the codebook is
placed on data and before dead codes are restarted among them.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import tempfile
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from bench.reliability.common import RESULTS, about, write
from bench.reliability.loss_scale import Layer, bits, saved, squares
from train.config.evals import Evaluation
from train.config.optim import EmaConfig
from train.engine.recipe import Program, Sums
from train.engine.step import Setup, make_step, sharded_state
from train.evaluators.base import Evaluator
from train.optim.ema import averages
from train.parallel import make_mesh
from train.precision import Policy, all_finite, check_skipped

ROWS, ACCUMULATE, LIMIT = 8, 4, 5
PLACES = ("data", "loss", "gradient", "parameter")
TIMES = ("first step", "mid-run", "last micro-batch")
FINITE = Evaluation("finite", ("finite",))
VALUES = {"NaN": np.nan, "infinity": np.inf}


@jax.custom_vjp
def spoilt(x, flag):
    """x, whose gradient is multiplied by a flag."""
    return x


spoilt.defvjp(lambda x, flag: (x, flag), lambda flag, g: (g * flag, None))


def loss(model, batch, keys, axis):
    """The squared error, with what a batch says added to the loss and multiplied into the gradient: 0 and 1 where all
    is well.
    """
    model = eqx.tree_at(lambda m: m.weight, model, spoilt(model.weight, batch["spoil_gradient"][0]))
    sums = squares(model, batch, keys, axis)
    return Sums(sums.loss + jnp.sum(batch["spoil_loss"]), sums.weight, sums.metrics)


def clean() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.uniform(-1, 1, (ROWS, 3)).astype(np.float32),
        "y": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "index": np.arange(ROWS, dtype=np.int32),
        "weight": np.ones(ROWS, np.float32),
        "spoil_loss": np.zeros(ROWS, np.float32),
        "spoil_gradient": np.ones(ROWS, np.float32),
    }


def spoil(batch, place: str, value: float, time: str):
    """The batch with the value in it; of accumulated micro-batches it is in the last, else in the first row."""
    row = ROWS - ROWS // ACCUMULATE if time == "last micro-batch" else 0
    name = {"data": "x", "loss": "spoil_loss", "gradient": "spoil_gradient"}[place]
    batch = batch | {name: batch[name].copy()}
    batch[name][row] = value
    return batch


@functools.cache
def program(precision: str, accumulate: int):
    """The setup of a small run, and its step; one device, since R10 has eight."""
    mesh = make_mesh("", jax.devices()[:1])
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(0.1, 0.0, 100)))
    core = Program.of(lambda key: Layer(jr.normal(key, (3, 2)), jnp.zeros(2)), loss, {})
    ema = averages(EmaConfig(decay=0.9), ROWS)
    setup = Setup(core, {"model": tx}, ema, mesh, Policy.parse(precision), accumulate)
    return setup, make_step(setup)


def case(place: str, time: str, value: str, precision: str) -> dict:
    setup, step = program(precision, ACCUMULATE if time == "last micro-batch" else 1)
    state = sharded_state(setup, jr.key(0))
    good, seen = clean(), lambda state: (state.model, state.ema, state.opt_state)
    for _ in range(0 if time == "first step" else 20):
        state, _ = step((good, jr.key(1)), state)
    batch = good
    if place == "parameter":
        state = eqx.tree_at(lambda s: s.model.weight, state, state.model.weight.at[1, 1].set(VALUES[value]))
    else:
        batch = spoil(good, place, VALUES[value], time)
    row = {"place": place, "time": time, "value": value, "precision": precision}
    before, planted = bits(seen(state)), place == "parameter"
    if planted:
        message, steps = "", 0
        while not message and steps < 2 * LIMIT:
            state, _ = step((batch, jr.key(1)), state)
            steps += 1
            try:
                check_skipped(
                    state.skipped["main"], state.scale["main"], state.model, limit=LIMIT, step=int(state.step)
                )
            except FloatingPointError as error:
                message = str(error)
        row |= {"ended_after": steps, "message": message}
    else:
        state, _ = step((batch, jr.key(1)), state)
    row["unchanged"] = bits(seen(state)) == before
    others = eqx.tree_at(lambda s: s.model.weight, state, jnp.zeros(())) if planted else state
    row["finite"] = bool(all_finite(others))
    with tempfile.TemporaryDirectory() as folder:
        for checkpoints in saved(Path(folder), int(state.step), state):
            restored = checkpoints.restore(state)
            row["checkpoint_holds_it"] = bits(restored[0]) == bits(state)
    if not planted:
        for _ in range(20):  # a float16 scale that has not yet come down may pass over some more
            state, _ = step((good, jr.key(1)), state)
        row["goes_on"] = (
            bits(seen(state)) != before and int(state.skipped["main"].consecutive) == 0 and bool(all_finite(state))
        )
    return row


def cases(short: bool) -> list[dict]:
    every = itertools.product(PLACES, TIMES, VALUES, ("float32", "float16"))
    every = [one for one in every if one[:2] != ("parameter", "last micro-batch")]
    few = lambda place, time, value, precision: (
        (value == "NaN") == (precision == "float32") and (value == "NaN" or time == "mid-run")
    )
    return [case(*one) for one in every if not short or few(*one)]


def whole_runs() -> list[dict]:
    """Recipes whose images are NaN in some steps, through the loop: what their files hold afterwards."""
    from safetensors.numpy import load_file

    from eqxgen.configs import VQGANConfig
    from train import vqgan
    from train.engine.fit import fit

    rows = []
    for spoilt_steps in ([0], [3], [0, 4, 5]):
        with tempfile.TemporaryDirectory() as folder:
            small = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=4, codes=16)
            values = {
                "steps": 8,
                "batch_size": 16,
                "log_every": 1,
                "restart_every": 4,
                "run_dir": f"{folder}/run",
                "model": small,
            }
            config = dataclasses.replace(vqgan.PRESETS["digits"], **values)
            task = vqgan.RECIPE.task(config, Path(folder))

            def batch(part, task=task, spoilt_steps=tuple(spoilt_steps)):
                arrays = task.batch(part)
                return {
                    name: np.where(part.step in spoilt_steps, np.nan, x).astype(x.dtype) for name, x in arrays.items()
                }

            with contextlib.redirect_stdout(io.StringIO()):
                # What the samples would look like is not what is asked here.
                plain = {
                    "show": lambda *_: None,
                    "evaluators": (Evaluator(FINITE, lambda model, *_: {"finite": float(all_finite(model))}),),
                }
                spoilt = dataclasses.replace(task, batch=batch, **plain)
                status = fit(
                    config, dataclasses.replace(vqgan.RECIPE, task=lambda config, folder, spoilt=spoilt: spoilt)
                )
            lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
            arrays = load_file(Path(folder, "run", "model.safetensors"))
            summary = json.loads(Path(folder, "run", "summary.json").read_text())
            rows.append(
                {
                    "recipe": "vqgan",
                    "spoilt_steps": spoilt_steps,
                    "status": status,
                    "skipped": lines[-1]["skipped"],
                    "steps": lines[-1]["step"],
                    "released_model_finite": all(bool(np.isfinite(x).all()) for x in arrays.values()),
                    "average_finite": summary["finite"] == 1,
                }
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a third of the cases, no whole runs")
    options = parser.parse_args()
    begin = time.perf_counter()
    result = {"cases": cases(options.short)}
    if options.short:
        print(json.dumps(result, indent=2))
    else:
        write(RESULTS / "R11.json", {"figure": "R11", **result, "whole_runs": whole_runs(), **about(begin)})


if __name__ == "__main__":
    main()
