"""Losses of 20 steps of StyleGAN2 beside the same arithmetic in PyTorch (tests/oracles/_gan_torch.py), from the same
weights, on the same images, latents and noise: `python -m bench.models.gan.curves`, where PyTorch is installed.

A step moves the generator by the non-saturating loss, then the discriminator by its loss and R1, each with its own
Adam. Writes bench/results/cpu/gan_curves.json with both curves and their largest relative difference.
"""

import json
import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqxgen.configs import StyleGAN2Config
from eqxgen.losses.adversarial import objective
from eqxgen.losses.penalties import slopes, zero_centred
from eqxgen.models import StyleGAN2Discriminator, StyleGAN2Generator
from tests.oracles import _gan_torch as nets
from train.params.paths import leaves

STEPS, BATCH, SIDE, GAMMA = 20, 8, 8, 0.1
ADAM = {"b1": 0.0, "b2": 0.99}
RATE = 2.5e-3
CONFIG = StyleGAN2Config(latent_dim=16, mapping=2, width=128, max_width=16, discriminator="residual", group=4)
RESULT = pathlib.Path(__file__).parents[2] / "results" / "cpu" / "gan_curves.json"
LOSSES = objective("non_saturating")


def batches() -> list[dict[str, np.ndarray]]:
    """Images with a bright square, labels, latents of both turns."""
    rng, found = np.random.default_rng(0), []
    for _ in range(STEPS):
        images = -0.8 + 0.1 * rng.normal(size=(BATCH, SIDE, SIDE, 1))
        labels = np.arange(BATCH) % 4
        for image, label in zip(images, labels):
            image[4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1.5
        latents = rng.normal(size=(2, BATCH, CONFIG.latent_dim))
        found.append(
            {
                "images": images.astype(np.float32),
                "labels": labels,
                "first": latents[0].astype(np.float32),
                "second": latents[1].astype(np.float32),
            }
        )
    return found


def noises() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(side, side)).astype(np.float32) for side in (4, 8, 8)]


def ours(generator: Any, discriminator: Any, data: list) -> list[tuple[float, float]]:
    """Losses of both players in our training."""
    noise, adam = tuple(map(jnp.asarray, noises())), optax.adam(RATE, **ADAM)

    def made(generator: Any, latents: Any, labels: Any) -> Any:
        def one(latent: Any, label: Any) -> Any:
            style = generator.style(latent, label)
            return generator.synthesis(jnp.broadcast_to(style, (generator.layers, len(style))), noise=noise)

        return jax.vmap(one)(latents, labels)

    @eqx.filter_jit
    def step(generator: Any, discriminator: Any, states: Any, batch: Any) -> Any:
        def first(generator: Any) -> Any:
            fakes = made(generator, batch["first"], batch["labels"])
            return jnp.mean(LOSSES.generator(discriminator(fakes, batch["labels"]), None))

        value, grads = eqx.filter_value_and_grad(first)(generator)
        updates, one = adam.update(grads, states[0])
        generator = eqx.apply_updates(generator, updates)

        def second(discriminator: Any) -> Any:
            fakes = made(generator, batch["second"], batch["labels"])
            judge = lambda images: (discriminator(images, batch["labels"]), None)
            real, _, gradient = slopes(judge, batch["images"])
            losses = LOSSES.discriminator(real, judge(fakes)[0]) + GAMMA * zero_centred(gradient)
            return jnp.mean(losses)

        other, grads = eqx.filter_value_and_grad(second)(discriminator)
        updates, two = adam.update(grads, states[1])
        return generator, eqx.apply_updates(discriminator, updates), (one, two), (value, other)

    states, found = tuple(adam.init(eqx.filter(net, eqx.is_inexact_array)) for net in (generator, discriminator)), []
    for batch in data:
        generator, discriminator, states, values = step(generator, discriminator, states, batch)
        found.append((float(values[0]), float(values[1])))
    return found


def theirs(generator: Any, discriminator: Any, data: list) -> list[tuple[float, float]]:
    """Losses of both players in PyTorch's."""
    import torch
    from torch.nn import functional as f

    of = lambda net: {
        path: torch.tensor(np.asarray(leaf)).requires_grad_() for path, leaf in leaves(eqx.filter(net, eqx.is_array))
    }
    g, d = of(generator), of(discriminator)
    adams = [torch.optim.Adam(w.values(), RATE, (ADAM["b1"], ADAM["b2"])) for w in (g, d)]
    noise, found = [torch.tensor(x) for x in noises()], []
    judge = lambda x, labels: nets.judged(d, x, labels, group=CONFIG.group, skip=False)

    def made(latents: Any, labels: Any) -> Any:
        style = nets.style(g, torch.tensor(latents), labels)
        return nets.synthesis(g, style[:, None].repeat(1, 2 * 2, 1), noise)

    for batch in data:
        labels, images = torch.tensor(batch["labels"]), torch.tensor(batch["images"]).permute(0, 3, 1, 2)
        value = f.softplus(-judge(made(batch["first"], labels), labels)).mean()
        adams[0].zero_grad()
        value.backward()
        adams[0].step()
        x = images.clone().requires_grad_()
        real, fake = judge(x, labels), judge(made(batch["second"], labels).detach(), labels)
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        penalty = GAMMA / 2 * slope.square().sum((1, 2, 3))
        other = (f.softplus(-real) + f.softplus(fake) + penalty).mean()
        adams[1].zero_grad()
        other.backward()
        adams[1].step()
        found.append((value.item(), other.item()))
    return found


def main() -> None:
    """Both trainings; prints and keeps the result."""
    import torch

    keys = jax.random.split(jax.random.key(0))
    generator = StyleGAN2Generator(SIDE, 1, 4, CONFIG, key=keys[0])
    discriminator = StyleGAN2Discriminator(SIDE, 1, 4, CONFIG, key=keys[1])
    data = batches()
    curves = {name: run(generator, discriminator, data) for name, run in (("ours", ours), ("torch", theirs))}
    a, b = (np.asarray(curve) for curve in curves.values())
    difference = float(np.max(np.abs(a - b) / np.abs(b)))
    print(f"first {curves['ours'][0]}, last {curves['ours'][-1]}, largest relative difference {difference:.1e}")
    about = {"steps": STEPS, "batch": BATCH, "jax": jax.__version__, "torch": torch.__version__}
    result = {"about": about, "largest relative difference": difference, **curves}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
