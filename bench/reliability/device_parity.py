"""Run by test_parallel.py in a process of its own: updates on meshes of 8 virtual devices against those of one, printed as JSON.

`python tests/devices.py float64` computes in double precision.
"""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from eqxgen.configs import MaskGITConfig, VQGANConfig
from train import maskgit, vqgan
from train.config import OptimConfig
from train.data import DataConfig
from train.parallel import gradients, make_mesh, make_step, sharded_state, split

ROWS = 16
# Mesh, micro-batches, examples that count; the first is what the others must equal.
CASES = {
    "maskgit": [
        ("data=1", 1, 16),
        ("data=1", 4, 16),
        ("data=8", 1, 16),
        ("data=8", 2, 16),
        ("fsdp=8", 1, 16),
        ("data=2,fsdp=2,model=2", 2, 16),
        ("data=4,model=2", 1, 16),
        ("data=1", 1, 13),
        ("data=2,fsdp=4", 2, 13),
    ],
    "vqgan": [("data=1", 1, 16), ("data=8", 1, 16), ("fsdp=8", 1, 16), ("data=1", 1, 13), ("data=8", 1, 13)],
}


def programs():
    # 1,024 entries and more are split, so that both kinds of parameters are there.
    sizes = MaskGITConfig(dim=32, depth=2, heads=2, hidden_dim=64, dropout=0.1, placement="pre")
    yield "maskgit", maskgit.program(maskgit.Config(model=sizes), 9, 7, 3), {"ids": 7, "label": 3}
    sizes = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=5, codes=7)
    config = vqgan.Config(model=sizes, adversarial=0.1, data=DataConfig(), optim=OptimConfig())
    yield "vqgan", vqgan.program(config, (8, 8, 1)), {"image": None}


def batch_of(program, tops, count, dtype):
    """Rows of which the first `count` are examples; the others hold something too, which must not matter."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.uniform(-1, 1, (ROWS, *shape)).astype(dtype if kind == "float32" else kind)
        if tops[name] is None
        else rng.integers(tops[name], size=(ROWS, *shape)).astype(kind)
        for name, (shape, kind) in program.shapes.items()
    }
    weight = (np.arange(ROWS) < count).astype(dtype)
    if count < ROWS:  # other values in the rows that only fill up
        arrays = {name: np.where(weight.reshape(-1, *[1] * (x.ndim - 1)) > 0, x, x[:1]) for name, x in arrays.items()}
    return arrays | {"index": np.arange(ROWS, dtype=np.int32), "weight": weight}


def relative(first, second):
    """Distance of two trees over the length of the second, both in float64."""
    flat = [np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]) for tree in (first, second)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]))


def alike(tree):
    """Whether devices that hold the same part hold the same bits."""
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


def main(dtype):
    jax.config.update("jax_enable_x64", dtype == "float64")
    results = []
    for name, program, tops in programs():
        init = lambda key, program=program: jax.tree.map(
            lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, program.init(key)
        )
        reference = {}
        for text, accumulate, count in CASES[name]:
            mesh = make_mesh(text, jax.devices()[: 1 if text == "data=1" else 8])
            state = sharded_state(init, optax.sgd(1.0), mesh, jr.key(0))
            batch = jax.device_put(batch_of(program, tops, count, dtype), split(mesh))

            @eqx.filter_jit
            def compute(model, batch, mesh=mesh, accumulate=accumulate, loss=program.loss):
                return gradients(loss, model, batch, jr.key(1), mesh, jnp.dtype(dtype), accumulate)

            grads, metrics = jax.block_until_ready(compute(state.model, batch))
            now = (grads, {key: float(value) for key, value in metrics.items()})
            first = reference.setdefault(count, now)
            if dtype == "float32":
                state, _ = make_step(program.loss, optax.sgd(1.0), mesh, jnp.dtype(dtype), 0.9, accumulate)((batch, jr.key(1)), state)
                jax.block_until_ready(state.step)
            results.append(
                {
                    "program": name,
                    "mesh": text,
                    "accumulate": accumulate,
                    "count": count,
                    "gradient": relative(now[0], first[0]),
                    "metrics": {key: abs(now[1][key] - first[1][key]) / (abs(first[1][key]) + 1e-6) for key in now[1]},
                    "alike": alike(state),
                    "held": held((state.model, state.opt_state)),
                }
            )
            print(results[-1], file=sys.stderr, flush=True)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "float32")
