"""Run by test_toolkit.py in a process of its own: steps of one's own on 8 virtual devices against one, in float64,
printed as JSON.
"""

import json
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from eqxgen.nn import Projection
from train.engine.ddp import ddp, gradients, replicate, unreplicate
from train.parallel import make_mesh

ROWS = 16


def model_and_batch():
    wide = lambda x: x.astype(jnp.float64)
    model = jax.tree.map(wide, Projection(3, 2, key=jr.key(0)))
    x = np.random.default_rng(0).normal(size=(ROWS, 3))
    return model, {"x": x, "y": np.sin(x[:, :2])}


def step(model, batch, rate, key=None):
    @gradients
    def loss(model, batch):
        errors = jnp.sum((jnp.tanh(model(batch["x"])) - batch["y"]) ** 2, axis=-1)
        drawn = jnp.float64(0) if key is None else jr.uniform(key)
        return jnp.mean(errors), {
            "rows": jnp.int32(len(errors)),
            "mean": jnp.mean(errors),
            "drawn": drawn,
            "text": "kept",
        }

    (value, metrics), grads = loss(model, batch)
    return jax.tree.map(lambda p, g: p - rate * g, model, grads), grads, value, metrics


def relative(first, second):
    vector = lambda tree: np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])
    return float(np.linalg.norm(vector(first) - vector(second)) / np.linalg.norm(vector(second)))


def alike(tree):
    return all(len({np.asarray(s.data).tobytes() for s in x.addressable_shards}) == 1 for x in jax.tree.leaves(tree))


def message(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def main():
    jax.config.update("jax_enable_x64", True)
    model, batch = model_and_batch()
    one = ddp(step, mesh=make_mesh("", jax.devices()[:1]))(model, batch, 0.1)
    rows = []
    for check in (True, False):
        spread = ddp(step, check_vma=check)
        for how, call in {
            "by position": lambda spread=spread: spread(replicate(model), batch, 0.1),
            "by name": lambda spread=spread: spread(batch=batch, rate=0.1, model=replicate(model)),
            "not replicated": lambda spread=spread: spread(model, batch, rate=0.1),
        }.items():
            moved, grads, value, metrics = call()
            row = {
                "check_vma": check,
                "how": how,
                "gradient": relative(grads, one[1]),
                "model": relative(moved, one[0]),
            }
            row |= {
                "loss": relative(value, one[2]),
                "metrics": [int(metrics["rows"]), float(metrics["mean"] - value), metrics["text"]],
            }
            rows.append(row | {"alike": alike((moved, grads, value)), "devices": len(value.sharding.device_set)})
    key, old = jr.key(3), jr.PRNGKey(3)
    mean = lambda keys: float(np.mean([jr.uniform(k) for k in keys]))
    stack = jr.split(old, 8)
    spread = ddp(step)
    drawn = {
        "one key": float(spread(model, batch, 0.1, key=key)[3]["drawn"]) - mean([jr.fold_in(key, i) for i in range(8)]),
        "one old key": float(spread(model, batch, 0.1, old)[3]["drawn"]) - mean([jr.fold_in(old, i) for i in range(8)]),
        "a stack": float(spread(model, batch, 0.1, key=jr.split(key, 8))[3]["drawn"]) - mean(jr.split(key, 8)),
        "an old stack": float(spread(model, batch, 0.1, key=stack)[3]["drawn"]) - mean(stack),
    }
    errors = [
        message(lambda: spread(model, jax.tree.map(lambda x: x[:12], batch), 0.1)),
        message(lambda: spread(model, batch, 0.1, key=jr.split(key, 4))),
    ]
    back = unreplicate(replicate(model))
    placed = [len(x.sharding.device_set) for tree in (replicate(model), back) for x in jax.tree.leaves(tree)]
    compiled = sum(text.count("all-reduce(") for text in [_program(model, batch)])
    json.dump({"rows": rows, "drawn": drawn, "errors": errors, "placed": placed, "all_reduces": compiled}, sys.stdout)


def _program(model, batch):
    """The compiled text of a step without metrics."""

    def plain(model, batch):
        loss = lambda model, batch: jnp.mean(jax.vmap(model)(batch["x"]) ** 2)
        return gradients(loss, has_aux=False)(model, batch)

    run = ddp(plain)
    return jax.jit(lambda model, batch: run(model, batch)).lower(replicate(model), batch).compile().as_text()


if __name__ == "__main__":
    main()
