"""Run by test_parallel.py in a process of its own: one update on 1, 2, 4 and 8 virtual devices, printed as JSON."""

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
from train.parallel import init_state, make_mesh, make_step, replicated, split

F32 = jnp.dtype("float32")


def programs():
    sizes = MaskGITConfig(dim=16, depth=2, heads=2, hidden_dim=24, dropout=0.1, placement="pre")
    yield "maskgit", maskgit.program(maskgit.Config(model=sizes), 9, 7, 3), {"ids": 7, "label": 3}
    sizes = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=5, codes=7)
    config = vqgan.Config(model=sizes, adversarial=0.1, data=DataConfig(), optim=OptimConfig())
    yield "vqgan", vqgan.program(config, (8, 8, 1)), {"image": None}


def batch_of(program, tops):
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.uniform(-1, 1, (16, *shape)).astype(dtype)
        if tops[name] is None
        else rng.integers(tops[name], size=(16, *shape)).astype(dtype)
        for name, (shape, dtype) in program.shapes.items()
    }
    return arrays | {"index": np.arange(16, dtype=np.int32)}


def relative(first, second):
    """Largest difference between two trees, relative to the largest number."""
    pairs = list(zip(jax.tree.leaves(eqx.filter(first, eqx.is_array)), jax.tree.leaves(eqx.filter(second, eqx.is_array))))
    top = max(float(np.max(np.abs(np.asarray(b)))) for _, b in pairs)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs) / top


def alike(tree):
    """Whether every device holds the same bits."""
    arrays = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    return all(np.array_equal(np.asarray(s.data), np.asarray(x.addressable_shards[0].data)) for x in arrays for s in x.addressable_shards)


def main():
    results = []
    for name, program, tops in programs():
        arrays, reference = batch_of(program, tops), None
        for count in (1, 2, 4, 8):
            mesh = make_mesh("", jax.devices()[:count])
            state = eqx.filter_shard(init_state(program.init(jr.key(0)), optax.sgd(1.0)), replicated(mesh))
            before = jax.tree.map(lambda x: np.asarray(x) if eqx.is_array(x) else x, state.model)
            batch = jax.device_put(arrays, split(mesh))
            state, metrics = make_step(program.loss, optax.sgd(1.0), mesh, F32, 0.9)((batch, jr.key(1)), state)
            jax.block_until_ready(state.step)
            update = jax.tree.map(lambda a, b: np.asarray(a) - b if eqx.is_array(a) else None, state.model, before)
            now = (update, {k: np.asarray(v) for k, v in metrics.items()})
            reference = reference or now
            rows = {key: abs(float(now[1][key]) - float(reference[1][key])) / (abs(float(reference[1][key])) + 1e-6) for key in now[1]}
            results.append(
                {
                    "program": name,
                    "devices": count,
                    "update": relative(now[0], reference[0]),
                    "metrics": rows,
                    "alike": alike(state),
                }
            )
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
