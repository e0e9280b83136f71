"""Losses of 20 training steps of `train.vqgan --net taming` with its discriminator beside taming transformers'
arithmetic in PyTorch, from the same weights on the same images: `python -m bench.models.tokenizer_curves`, where torch
and diffusers are installed and EQXGEN_TAMING names a checkout of github.com/CompVis/taming-transformers.

The tokenizer is diffusers' VQModel with the commitment on the right term, the discriminator and the losses are taming's
own: L1, adaptive weight, hinge from step 5, the discriminator after the tokenizer, Adam (0.5, 0.9). Both are computed
in float64: the hinge's gradient by the last bias is 0 at first, and Adam takes the sign of its rounding in float32.
Writes bench/results/cpu/tokenizer_curves.json with both players' curves and the largest relative difference.
"""

import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from eqxgen.configs import TamingConfig
from eqxgen.models import PatchDiscriminator
from eqxgen.pretrained import from_pretrained
from train import vqgan
from train.config.optim import OptimConfig
from train.engine.step import Inputs, Setup, make_step, sharded_state
from train.parallel import make_mesh
from train.tasks.facts import ImageFacts

STEPS, BATCH, SIDE, RATE, START = 20, 4, 16, 1e-4, 5
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "tokenizer_curves.json"
THEIRS = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 6,
    "num_vq_embeddings": 16,
    "vq_embed_dim": 5,
}
OURS = TamingConfig(widths=(8, 16), blocks=1, latent_dim=6, attention=(1,), groups=4, codes=16, code_dim=5)
OPTIM: dict[str, Any] = {
    "learning_rate": RATE,
    "warmup": 0,
    "decay": "constant",
    "beta1": 0.5,
    "beta2": 0.9,
    "weight_decay": 0.0,
    "clip": float("inf"),
}


def batches() -> list[np.ndarray]:
    """Smooth images in [-1, 1] of every step."""
    rng, found = np.random.default_rng(0), []
    at = np.linspace(0, 2 * np.pi, SIDE)
    for _ in range(STEPS):
        phase, rate = rng.uniform(0, 2 * np.pi, (2, BATCH, 1, 1, 3)), rng.uniform(0.5, 2, (2, BATCH, 1, 1, 3))
        waves = np.sin(rate[0] * at[None, :, None, None] + phase[0]) * np.cos(
            rate[1] * at[None, None, :, None] + phase[1]
        )
        found.append(waves)
    return found


def theirs(model: Any, loss: Any, data: list[np.ndarray]) -> dict[str, list[float]]:
    """Losses of both players in PyTorch, as taming's two optimisers take them."""
    import torch

    adam = lambda module: torch.optim.Adam(module.parameters(), lr=RATE, betas=(0.5, 0.9))
    generator, critic = adam(model), adam(loss.discriminator)
    curves: dict[str, list[float]] = {"tokenizer": [], "discriminator": []}
    for number, images in enumerate(data):
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        for player, optimiser in enumerate((generator, critic)):
            latents = model.encode(x).latents
            quantized, distance, _ = model.quantize(latents)
            made = model.decoder(model.post_quant_conv(quantized))
            value, _ = loss(distance, x, made, player, number, last_layer=model.decoder.conv_out.weight)
            for each in (generator, critic):
                each.zero_grad()
            if value.requires_grad:
                value.backward()
                optimiser.step()
            curves["discriminator" if player else "tokenizer"].append(value.item())
    return curves


def ours(start: tuple[Any, Any], data: list[np.ndarray]) -> dict[str, list[float]]:
    """Losses of the recipe from these players."""
    values: dict[str, Any] = {
        "net": "taming",
        "taming": OURS,
        "pixel_loss": "l1",
        "entropy": 0.0,
        "adversarial": 0.8,
        "adversarial_form": "hinge",
        "adversarial_start": START,
        "adaptive": True,
        "alternate": True,
        "critic": "patch",
        "critic_width": 8,
        "critic_layers": 2,
        "data_start": False,
        "restart_every": 0,
    }
    rules = {"optim": OptimConfig(**OPTIM), "discriminator": vqgan.DiscriminatorConfig(**OPTIM)}
    config = vqgan.Config(steps=STEPS, batch_size=BATCH, precision="float64", **values, **rules)
    program = vqgan.program(config, ImageFacts((SIDE, SIDE, 3), 10))
    players = {"tokenizer": start[0](program.init(jr.key(0))["tokenizer"]), "discriminator": start[1]}
    program = dataclasses.replace(program, init=lambda key: players)
    setup = Setup.of(config, program, make_mesh("", jax.devices()[:1]), on_cpu=True)
    state, step = sharded_state(setup, jr.key(0)), make_step(setup, ("main", "critic"))
    curves: dict[str, list[float]] = {"tokenizer": [], "discriminator": []}
    for images in data:
        index, weight = np.arange(BATCH, dtype=np.int32), np.ones(BATCH)
        state, metrics = step(Inputs({"image": images, "index": index, "weight": weight}, jr.key(1)), state)
        curves["tokenizer"].append(float(metrics["loss"]))
        curves["discriminator"].append(float(metrics["critic_loss"]))
    return curves


def tokenizer_of(published: Any) -> Any:
    """(our tokenizer) -> the same with the published parts."""
    where = lambda t: (t.encoder.net, t.encoder.after, t.quantizer.codebook, t.decoder.before, t.decoder.net)
    parts = (published.encoder, published.after, published.quantizer.codebook, published.before, published.decoder)
    return lambda tokenizer: eqx.tree_at(where, tokenizer, parts)


def discriminator_of(module: Any) -> PatchDiscriminator:
    """Our discriminator with the weights of taming's."""
    weights = {name: jnp.asarray(x.detach().numpy()) for name, x in module.named_parameters()}
    model = PatchDiscriminator(3, width=8, layers=2, key=jr.key(0))
    kernel = lambda number: weights[f"main.{number}.weight"].transpose(2, 3, 1, 0)
    parts = {
        "stem.weight": (lambda m: m.stem.weight, kernel(0)),
        "stem.bias": (lambda m: m.stem.bias, weights["main.0.bias"]),
        "head.weight": (lambda m: m.head.weight, kernel(8)),
        "head.bias": (lambda m: m.head.bias, weights["main.8.bias"]),
    }
    for i in range(2):
        parts[f"convs.{i}"] = (lambda m, i=i: m.convs[i].weight, kernel(2 + 3 * i))
        parts[f"scale.{i}"] = (lambda m, i=i: m.norms[i].scale, weights[f"main.{3 + 3 * i}.weight"])
        parts[f"bias.{i}"] = (lambda m, i=i: m.norms[i].bias, weights[f"main.{3 + 3 * i}.bias"])
    for where, array in parts.values():
        model = eqx.tree_at(where, model, array)
    return model


def main() -> None:
    """Both races; prints and keeps the result."""
    jax.config.update("jax_enable_x64", True)
    import torch
    from diffusers import VQModel

    sys.path.insert(0, os.environ["EQXGEN_TAMING"])
    stub: Any = types.ModuleType("taming.modules.losses.lpips")  # needs a download; its weight is 0 here
    stub.LPIPS = torch.nn.Identity
    sys.modules["taming.modules.losses.lpips"] = stub
    from taming.modules.losses.vqperceptual import VQLPIPSWithDiscriminator

    torch.manual_seed(0)
    model = VQModel(**THEIRS)
    model.quantize.legacy = False
    model.quantize.embedding.weight.data.normal_()
    options = {"perceptual_weight": 0.0, "disc_ndf": 8, "disc_num_layers": 2, "disc_weight": 0.8}
    loss = VQLPIPSWithDiscriminator(disc_start=START, **options)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        start = tokenizer_of(from_pretrained(folder)), discriminator_of(loss.discriminator)
    model, loss = model.double(), loss.double()
    data = batches()
    found = {"ours": ours(start, data), "taming": theirs(model, loss, data)}
    apart = {
        player: max(abs(a - b) / max(abs(b), 1e-2) for a, b in zip(found["ours"][player], found["taming"][player]))
        for player in ("tokenizer", "discriminator")
    }
    print(json.dumps(apart))
    RESULT.write_text(json.dumps({"steps": STEPS, "largest_relative_difference": apart, "curves": found}) + "\n")


if __name__ == "__main__":
    main()
