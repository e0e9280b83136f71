"""Run by test_clip.py in a process of its own on 8 virtual devices; prints JSON: for both objectives of `train.clip` and
each mesh the largest difference of the loss and its gradients from those on one device, relative to their largest
entry. The towers are matrices, so that the losses take the time.
"""

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from bench.reliability.small import batch_of
from train import clip
from train.engine.gradients import mean_gradients
from train.parallel import make_mesh, split
from train.precision import Policy
from train.tasks.facts import PairFacts

ROWS, COUNT = 16, 13
MESHES = {"data=1": 1, "data=2": 2, "data=8": 8, "data=2,fsdp=4": 8}
FACTS = PairFacts((4, 4, 1), 10, 17, vocab=9, text=4, end=8)


class Matrices(eqx.Module):
    image: Array
    text: Array
    logit_scale: Array
    logit_bias: Array

    def image_features(self, image: Array, *, key: Any) -> Array:
        return self.image @ (image.reshape(-1) + 0.1 * jr.normal(key, (16,), image.dtype))

    def text_features(self, ids: Array) -> Array:
        return jnp.sum(self.text[ids], axis=0)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    net = Matrices(jr.normal(jr.key(0), (5, 16)), jr.normal(jr.key(1), (9, 5)), jnp.asarray(1.3), jnp.asarray(-2.0))
    found: dict[str, dict[str, float]] = {}
    for objective in ("infonce", "siglip"):
        core = clip.program(clip.Config(objective=objective, batch_size=ROWS, backbone="conv"), FACTS)
        batch = batch_of(core, ROWS, 0, COUNT, "float64")
        numbers = {}
        for text, count in MESHES.items():
            mesh = make_mesh(text, jax.devices()[:count])
            run = eqx.filter_jit(lambda net, batch, mesh=mesh, core=core: mean_gradients(
                core.loss, net, batch, jr.key(1), mesh, Policy.parse("float64", on_cpu=True)
            ))  # fmt: skip
            grads, metrics, _ = jax.block_until_ready(run(net, jax.device_put(batch, split(mesh))))
            numbers[text] = [np.asarray(x) for x in jax.tree.leaves((grads, metrics))]
        apart = lambda x, y: float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), 1e-3))
        found[objective] = {text: max(map(apart, other, numbers["data=1"])) for text, other in numbers.items()}
        found[objective]["gradient"] = float(min(np.max(np.abs(x)) for x in numbers["data=1"][:3]))
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
