"""Train steps of StyleGAN2 and R3GAN at 32 pixels beside the same nets in PyTorch's eager mode, float32, on
random images: both players' turns with Adam and averaged weights, and the penalties that are due.

Ours are the compiled steps of `train.gan`. PyTorch's StyleGAN2 scales activations in place of a kernel for each
example, as the published training does. A call is a whole cycle of the penalty: StyleGAN2's R1 is due at every
sixteenth step, R3GAN's R1 and R2 at each.
"""

import dataclasses
import functools
import math
from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from bench.race import OURS, Makers, Side
from eqxgen.configs import R3GANConfig, StyleGAN2Config
from train import gan
from train.engine.step import Setup, make_step, sharded_state
from train.parallel import make_mesh
from train.params.paths import leaves
from train.tasks.facts import ImageFacts

CLASSES = 10
STYLEGAN2 = dataclasses.replace(StyleGAN2Config.cifar(), latent_dim=64, max_width=64)
R3GAN = R3GANConfig(widths=(64, 64, 64, 64), groups=(8, 8, 8, 8), blocks=(1, 1, 1, 1))
SMALL = {
    "stylegan2": dataclasses.replace(STYLEGAN2, latent_dim=8, max_width=8, group=4),
    "r3gan": R3GANConfig(latent_dim=8, widths=(8, 8), groups=(2, 2), blocks=(1, 1), label_dim=4),
}


def makers(family: str, torch_name: str, batch: int, tiny: bool) -> Makers:
    """Both sides."""
    sizes = SMALL[family] if tiny else {"stylegan2": STYLEGAN2, "r3gan": R3GAN}[family]
    facts = ImageFacts((8, 8, 3) if tiny else (32, 32, 3), CLASSES)
    if family == "stylegan2":
        changes: dict[str, Any] = {"stylegan2": sizes, "augmentation": "none", "target": 0.0}
        config = dataclasses.replace(gan.PRESETS["cifar10-stylegan2-ada"], batch_size=batch, **changes)
    else:
        changes = {"r3gan": sizes, "augmentation": "none", "probability": 0.0, "ramp": 0.0}
        config = dataclasses.replace(gan.PRESETS["cifar10-r3gan"], batch_size=batch, **changes)
    return {
        OURS: functools.partial(_ours, config, facts),
        torch_name: functools.partial(_torch_eager, config, facts),
    }


def _drawn(config: gan.Config, facts: ImageFacts) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.uniform(-1, 1, (config.batch_size, *facts.shape)).astype(np.float32),
        "label": (np.arange(config.batch_size) % CLASSES).astype(np.int32),
    }


def _ours(config: gan.Config, facts: ImageFacts) -> Side:
    """Steps of the recipe, which keep their state between calls."""
    program = gan.RECIPE.program(config, facts)
    setup = Setup.of(config, program, make_mesh(), on_cpu=True)
    state, key = [sharded_state(setup, jr.key(0))], jr.key(1)
    lazy = [name for name in program.turns if program.turns[name].every > 1]
    steps = [make_step(setup)]
    if lazy:
        steps.append(make_step(setup, tuple(name for name in program.turns if name not in lazy)))
    batch = jax.tree.map(jnp.asarray, _drawn(config, facts))
    batch |= {"index": jnp.arange(config.batch_size), "weight": jnp.ones(config.batch_size)}

    def call() -> jax.Array:
        metrics: dict[str, jax.Array] = {}
        for number in range(config.penalty.every):
            state[0], metrics = steps[min(number, 1)]((batch, key), state[0])
            jax.block_until_ready(metrics)
        return metrics["loss"]

    return Side(call)


def _torch_eager(config: gan.Config, facts: ImageFacts) -> Side:
    """PyTorch's steps of the same nets."""
    import torch
    from torch.nn import functional as F

    from tests.oracles import _gan_torch as nets

    def scaled(x: Any, weight: Any, styles: Any, *, demodulate: bool = True, up: bool = False) -> Any:
        kernel, border = nets.oihw(weight), weight.shape[0] // 2
        x = x * styles[:, :, None, None]
        if up:
            x, kernel, border = nets.filtered(x, up=2, pads=(3, 2), gain=4.0), kernel.flip(2, 3), 0
        y = F.conv2d(x, kernel, padding=border)
        if not demodulate:
            return y
        squares = styles.square() @ weight.square().sum((0, 1))
        return y * (squares + 1e-8).rsqrt()[:, :, None, None]

    of = lambda tree: {
        path: torch.tensor(np.asarray(leaf)).requires_grad_() for path, leaf in leaves(eqx.filter(tree, eqx.is_array))
    }
    g, d = map(of, (make(jr.key(i)) for i, make in enumerate(gan.nets(config, facts))))
    averaged = [w.detach().clone() for w in g.values()]
    rate = config.optim
    adams = [torch.optim.Adam(w.values(), rate.learning_rate, (rate.beta1, rate.beta2), rate.epsilon) for w in (g, d)]
    drawn, latent_dim = _drawn(config, facts), getattr(config, config.family).latent_dim
    reals = torch.from_numpy(drawn["image"]).permute(0, 3, 1, 2).contiguous()
    labels, weights, count = torch.from_numpy(drawn["label"]).long(), config.penalty, config.batch_size
    convolutions = sum(".convs." in name and name.endswith(".strength") for name in g)
    sides = [2 ** (2 + (place + 1) // 2) for place in range(convolutions)]

    def made() -> Any:
        latents = torch.randn(count, latent_dim)
        if config.family == "r3gan":
            return nets.r3gan_image(g, latents, labels, config.r3gan.groups)
        style = nets.style(g, latents, labels)
        noise = [torch.randn(count, 1, side, side) for side in sides]
        return nets.synthesis(g, style[:, None].expand(-1, convolutions + 1, -1), noise, clamp=0.0)

    def judge(images: Any) -> Any:
        if config.family == "r3gan":
            return nets.r3gan_logit(d, images, labels, config.r3gan.groups)
        return nets.judged(d, images, labels, group=config.stylegan2.group, skip=False, clamp=0.0)

    def penalty(images: Any, logits: Any, gamma: float) -> Any:
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gamma / 2 * slope.square().sum((1, 2, 3)).mean()

    def moved(which: int, loss: Any) -> float:
        adams[which].zero_grad(set_to_none=True)
        loss.backward(inputs=list((g, d)[which].values()))
        adams[which].step()
        return loss.item()

    def step(number: int) -> float:
        paired, lazy = config.objective == "relativistic", weights.every > 1
        logits = judge(made())
        moved(0, F.softplus((judge(reals) if paired else 0) - logits).mean())
        with torch.no_grad():
            for own, value in zip(averaged, g.values()):
                own.lerp_(value, 1e-3)
            fakes = made()
        x, y = (images.clone().requires_grad_(not lazy) for images in (reals, fakes))
        real, fake = judge(x), judge(y)
        loss = F.softplus(fake - real) if paired else F.softplus(-real) + F.softplus(fake)
        loss = loss.mean()
        if not lazy:
            loss = loss + penalty(x, real, weights.r1) + penalty(y, fake, weights.r2)
        value = moved(1, loss)
        if lazy and number == 0:
            x = reals.clone().requires_grad_()
            moved(1, weights.every * penalty(x, judge(x), weights.r1))
        return value

    def call() -> float:
        with mock.patch.object(nets, "modulated", scaled):
            values = [step(number) for number in range(weights.every)]
        if not math.isfinite(values[-1]):
            raise FloatingPointError("PyTorch's losses are not finite")
        return values[-1]

    return Side(call, lambda value: None)
