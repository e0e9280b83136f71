"""Losses of 200 training steps beside diffusers' UNet2DModel and DiTTransformer2DModel, from the same weights, on the
same images, noise and steps: `python -m bench.models.curves`, where diffusers is installed.

Tiny nets on digits-like images: the mean square error of the noise (Ho et al. 2020, equation 14), Adam. Writes
bench/results/cpu/diffusion_curves.json with both curves and their largest relative difference.
"""

import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqxgen.pretrained import from_pretrained

STEPS, BATCH, SIDE, RATE = 200, 8, 8, 1e-3
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "diffusion_curves.json"
UNET = {
    "sample_size": SIDE,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
DIT = {
    "sample_size": SIDE,
    "in_channels": 1,
    "out_channels": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 3,
    "patch_size": 2,
    "num_embeds_ada_norm": 4,
}


def batches() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Noised images, noise, steps and labels of every training step: bright bars of two rows or columns."""
    rng, found = np.random.default_rng(0), []
    share = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for _ in range(STEPS):
        image, label = -np.ones((BATCH, SIDE, SIDE, 1), np.float32), rng.integers(0, 4, BATCH)
        for one, kind, at in zip(image, label, rng.integers(0, SIDE - 1, BATCH)):
            turned = one if kind % 2 else one.swapaxes(0, 1)
            turned[at : at + 2] = 1.0 if kind < 2 else 0.5
        noise, time = rng.normal(size=image.shape).astype(np.float32), rng.integers(0, 1000, BATCH)
        kept = share[time][:, None, None, None].astype(np.float32)
        found.append((np.sqrt(kept) * image + np.sqrt(1 - kept) * noise, noise, time, label))
    return found


def theirs(model: Any, labelled: bool, data: list) -> list[float]:
    """Losses of PyTorch's training."""
    import torch

    adam, losses = torch.optim.Adam(model.parameters(), lr=RATE), []
    for noised, noise, time, label in data:
        nchw = lambda x: torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        more = {"class_labels": torch.from_numpy(label)} if labelled else {}
        said = model(nchw(noised), timestep=torch.from_numpy(time), **more).sample
        loss = torch.nn.functional.mse_loss(said, nchw(noise))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses


def ours(model: Any, labelled: bool, data: list) -> list[float]:
    """Losses of our training."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    adam = optax.adam(RATE)

    def mean_loss(arrays: Any, noised: Any, noise: Any, time: Any, label: Any) -> jax.Array:
        net = eqx.combine(arrays, static)
        call: Callable = lambda x, t, label: net(x, t, label if labelled else None, inference=True)
        return jnp.mean((jax.vmap(call)(noised, time, label) - noise) ** 2)

    @jax.jit
    def step(arrays: Any, state: Any, *batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(mean_loss)(arrays, *batch)
        updates, state = adam.update(grads, state, arrays)
        return optax.apply_updates(arrays, updates), state, value

    state, losses = adam.init(arrays), []
    for noised, noise, time, label in data:
        arrays, state, value = step(arrays, state, noised, noise, time.astype(np.float32), label)
        losses.append(float(value))
    return losses


def main() -> None:
    """Both races; prints and keeps the result."""
    import diffusers
    import torch

    data, found = batches(), {}
    for name, kind, config in (("UNet2DModel", "UNet2DModel", UNET), ("DiT", "DiTTransformer2DModel", DIT)):
        torch.manual_seed(0)
        model = getattr(diffusers, kind)(**config)
        others = list(getattr(model, "transformer_blocks", []))[1:]
        for block in others:  # published files repeat the embeddings of the first block
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
        model.eval()  # no dropout, and no dropping of labels
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            net = from_pretrained(folder)
        for block in others:  # and our net has one of them
            block.norm1.emb = model.transformer_blocks[0].norm1.emb
        curves = {"ours": ours(net, name == "DiT", data), "diffusers": theirs(model, name == "DiT", data)}
        difference = max(abs(a - b) / b for a, b in zip(*curves.values()))
        found[name] = {"largest relative difference": difference} | curves
        print(name, f"first {curves['ours'][0]:.5f}, last {curves['ours'][-1]:.5f}, difference {difference:.1e}")
    about = {"steps": STEPS, "batch": BATCH, "jax": jax.__version__, "torch": torch.__version__}
    about["diffusers"] = diffusers.__version__
    RESULT.write_text(json.dumps({"about": about} | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
