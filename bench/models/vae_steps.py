"""Losses of 100 training steps of the 784-400-20 VAE beside PyTorch, from the same weights, on the same images and
noise: `python -m bench.models.vae_steps`, where PyTorch is installed.

Grey images with MNIST's shape, cross-entropy summed over pixels, Adam. Writes bench/results/cpu/vae_steps.json with
both curves and their largest relative difference; ends with an error where it is above 1e-3.
"""

import json
import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from eqxgen.configs import VAEConfig
from eqxgen.models import VAE

STEPS, BATCH, SIDE, RATE, NEAR = 100, 128, 28, 1e-3, 1e-3
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "vae_steps.json"
CONFIG = VAEConfig()


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images in [0, 1] and noise of every step: smooth blobs at random places."""
    rng, found = np.random.default_rng(0), []
    axis = np.arange(SIDE, dtype=np.float32)
    for _ in range(STEPS):
        row, column, width = (rng.uniform(low, high, (BATCH, 1, 1)) for low, high in ((6, 22), (6, 22), (2, 5)))
        distance = (axis[None, :, None] - row) ** 2 + (axis[None, None, :] - column) ** 2
        image = np.exp(-distance / (2 * width**2)).astype(np.float32)
        found.append((image, rng.normal(size=(BATCH, CONFIG.latent_dim)).astype(np.float32)))
    return found


def ours(model: VAE, data: list) -> list[float]:
    """Losses of our training."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    adam = optax.adam(RATE)

    def mean_loss(arrays: Any, image: Any, noise: Any) -> jax.Array:
        net = eqx.combine(arrays, static)

        def loss(image: jax.Array, noise: jax.Array) -> jax.Array:
            posterior = net.encode(image)
            return posterior.divergence() - net.log_likelihood(image, posterior.at(noise))

        return jnp.mean(jax.vmap(loss)(2 * image[..., None] - 1, noise))

    @jax.jit
    def step(arrays: Any, state: Any, *batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(mean_loss)(arrays, *batch)
        updates, state = adam.update(grads, state, arrays)
        return optax.apply_updates(arrays, updates), state, value

    state, losses = adam.init(arrays), []
    for image, noise in data:
        arrays, state, value = step(arrays, state, image, noise)
        losses.append(float(value))
    return losses


def theirs(model: VAE, data: list) -> list[float]:
    """Losses of PyTorch's training from our weights."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, linear, relu

    encoder, decoder = model.encoder, model.decoder
    layers = (*encoder.dense, encoder.head, *decoder.dense, decoder.head)
    leaves = [torch.tensor(np.asarray(x), requires_grad=True) for layer in layers for x in (layer.weight, layer.bias)]
    into, moments, out, last = zip(leaves[::2], leaves[1::2])
    adam, losses = torch.optim.Adam(leaves, lr=RATE), []
    for image, noise in data:
        x, eps = torch.from_numpy(image.reshape(BATCH, -1)), torch.from_numpy(noise)
        mean, log_variance = linear(relu(linear(x, *into)), *moments).chunk(2, dim=-1)
        logits = linear(relu(linear(mean + torch.exp(0.5 * log_variance) * eps, *out)), *last)
        divergence = -0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp())
        loss = (binary_cross_entropy_with_logits(logits, x, reduction="sum") + divergence) / BATCH
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    """The race; prints and keeps the result."""
    import torch

    model, data = VAE(SIDE, SIDE, 1, CONFIG, key=jr.key(0)), batches()
    curves = {"ours": ours(model, data), "PyTorch": theirs(model, data)}
    difference = max(abs(a - b) / b for a, b in zip(*curves.values()))
    print(f"first {curves['ours'][0]:.3f}, last {curves['ours'][-1]:.3f}, difference {difference:.1e}")
    about = {"steps": STEPS, "batch": BATCH, "jax": jax.__version__, "torch": torch.__version__}
    found = {"about": about, "largest relative difference": difference} | curves
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if difference > NEAR:
        raise SystemExit(f"the largest relative difference is {difference:.1e}, above {NEAR}")


if __name__ == "__main__":
    main()
