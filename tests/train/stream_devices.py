"""Run by test_evaluators.py in a process of its own: models sampled on 8 virtual devices in parts against one device,
and the memory of the compiled programs, printed as JSON.
"""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from eqxgen.configs import DiTConfig, ImageARConfig, ImageSampling, MaskedDecoding, MaskGITConfig, PartiConfig
from eqxgen.decoding import images
from eqxgen.decoding.masked import generate
from eqxgen.metrics import Accuracy, Moments
from eqxgen.models import ImageAR, MaskGIT, Parti
from tests.full import FULL
from train import diffusion
from train.evaluators import stream as module
from train.evaluators.stream import Examples, Stream
from train.parallel import make_mesh, place, split
from train.tasks import denoised
from train.tasks.draw import labelled
from train.tasks.facts import ImageFacts

MESHES = ("data=8", "fsdp=8", "data=2,fsdp=2,model=2") if FULL else ("fsdp=8", "data=2,fsdp=2,model=2")
SIZE, BATCH = 37, 16
CONFIG = MaskGITConfig(dim=32, depth=4, heads=4, hidden_dim=128, dropout=0.1, placement="pre")


def draw(tree, example):
    model, key = tree
    ids = generate(
        model, example["label"], MaskedDecoding(steps=3, guidance=2.0), key=jr.fold_in(key, example["index"])
    )
    return ids, example["index"]


def drawn(stream, tree, batch=BATCH):
    examples = Examples(SIZE, lambda numbers: {"label": (numbers % 10).astype(np.int32)}, batch)
    parts = list(stream.map(draw, tree, examples))
    ids, index = (np.concatenate(leaves) for leaves in zip(*parts))
    accuracy, moments = Accuracy(), Moments()
    for ids_of, _ in parts:
        accuracy = accuracy.update(ids_of[:, 0], ids_of[:, 1])
        moments = moments.update(ids_of.astype(np.float32))
    accuracy, moments = stream.total(accuracy, moments)
    together = stream.gather(draw, tree, examples)
    assert np.array_equal(ids, together[0])
    return {
        "in order": index.tolist() == list(range(SIZE)),
        "ids": ids.tolist(),
        "accuracy": accuracy.result(),
        "mean": moments.mean.tolist(),
    }


def denoised_by(stream):
    """Images of a diffusion model, by a sampler that draws noise."""
    preset, facts = diffusion.PRESETS["digits"], ImageFacts((8, 8, 1), 10, 17)
    config = dataclasses.replace(
        preset,
        dit=DiTConfig(dim=16, depth=1, heads=2, patch=4, learn_variance=False),
        sampling=dataclasses.replace(preset.sampling, steps=3, sampler="ddim", eta=1.0),
    )
    tree = denoised.tree_of(diffusion.model(config, facts)(jr.key(0)), None, diffusion.rules(config, facts), 0)
    return stream.gather(denoised.drawn, tree, labelled(np.arange(12) % 10)).ravel().tolist()


def decoded(tree, example):
    """Ids of two models that keep a memory of their blocks, which are put together before the first token."""
    (ar, parti), key = tree
    key = jr.fold_in(key, example["index"])
    text = (example["label"] + jnp.arange(5)) % 9
    options = ImageSampling(guidance=2.0)
    return jnp.concatenate(
        [images.generate(ar, example["label"], options, key=key), images.generate(parti, text, options, key=key)]
    )


def decoded_by(stream):
    sizes = {"dim": 32, "depth": 2, "heads": 4, "hidden_dim": 128}
    ar = ImageAR((2, 2), 17, 10, ImageARConfig(dropout=0.0, **sizes), key=jr.key(0))
    ar = eqx.tree_at(lambda model: model.head.weight, ar, jr.normal(jr.key(1), ar.head.weight.shape))  # zero at first
    parti = Parti((2, 2), 17, 9, PartiConfig(context=5, **sizes), key=jr.key(2))
    return stream.gather(decoded, ((ar, parti), jr.key(3)), labelled(np.arange(12) % 10)).tolist()


def memory(mesh, tree):
    """Bytes of arguments and temporaries on each device, in sizes of the whole model."""
    batch = {"label": np.zeros(BATCH, np.int32), "index": np.arange(BATCH, dtype=np.int32)}
    lowered = module.apply.lower(draw, place(tree, mesh), jax.device_put(batch, split(mesh)), mesh)
    found = lowered.compile().compiled.memory_analysis()
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(tree[0], eqx.is_array)))
    return {"arguments": found.argument_size_in_bytes / whole, "temporaries": found.temp_size_in_bytes / whole}


def main():
    tree = MaskGIT(16, 17, 10, CONFIG, key=jr.key(0)), jr.key(3)
    alone = make_mesh("", jax.devices()[:1])
    print(
        json.dumps(
            {
                "one": drawn(Stream(alone), tree),
                "one, in other batches": drawn(Stream(alone), tree, batch=5),
                **{name: drawn(Stream(make_mesh(name)), tree) for name in MESHES},
                "denoised": {"one": denoised_by(Stream(alone))}
                | {name: denoised_by(Stream(make_mesh(name))) for name in MESHES[-2:] if FULL},
                "decoded": [decoded_by(Stream(mesh)) for mesh in (alone, make_mesh(MESHES[-1]))],
                "memory": {name: memory(make_mesh(name), tree) for name in MESHES[:-1]} | {"one": memory(alone, tree)},
            }
        )
    )


if __name__ == "__main__":
    main()
