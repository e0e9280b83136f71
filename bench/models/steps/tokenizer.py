"""Train steps of the digits and MNIST presets of `train.vqgan` beside the same net in PyTorch's eager mode, float32,
from equal weights: squared error of the pixels, codebook and commitment, gradients and Adam on random images.

Neither has the discriminator or the entropy of the assignments.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from bench.race import OURS, Makers, Side
from bench.train_step import stepping, update_of
from eqxgen.configs import VQGANConfig
from eqxgen.models import VQGAN
from eqxgen.nn import Convolution, GroupNorm, ResidualBlock
from train import vqgan

RATE = 1e-3
SIDES = {"digits": 8, "mnist": 28}
SMALL = VQGANConfig(width=4, multipliers=(1, 2), blocks=1, latent_dim=3, codes=5)


def makers(preset: str, torch_name: str, batch: int, tiny: bool) -> Makers:
    """Both sides, from equal weights."""
    config, side = (SMALL, 4) if tiny else (vqgan.PRESETS[preset].model, SIDES[preset])
    return {
        OURS: functools.partial(_ours, config, side, batch),
        torch_name: functools.partial(_torch_eager, config, side, batch),
    }


def _model(config: VQGANConfig, side: int) -> VQGAN:
    return eqx.filter_jit(VQGAN)(side, side, 1, config, key=jr.key(0))


def _drawn(side: int, batch: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (batch, side, side, 1)).astype(np.float32)


def _ours(config: VQGANConfig, side: int, batch: int) -> Side:
    """Our step, which keeps its state between calls."""
    arrays, static = eqx.partition(_model(config, side), eqx.is_inexact_array)
    images, adam = jnp.asarray(_drawn(side, batch)), optax.adam(RATE)

    def mean_loss(arrays: Any, _: Any) -> jax.Array:
        again, quantized = jax.vmap(eqx.combine(arrays, static))(images)
        return jnp.mean((again - images) ** 2) + jnp.mean(quantized.distance)

    return stepping(*update_of(mean_loss, arrays, adam, batch))


def _torch_eager(config: VQGANConfig, side: int, batch: int) -> Side:
    """PyTorch's step of the same net."""
    import torch
    from torch.nn import functional as F

    leaves: list[Any] = []

    def tensor(x: jax.Array) -> Any:
        own = np.array(x if x.ndim < 4 else jnp.transpose(x, (3, 2, 0, 1)))  # kernels as (out, in, height, width)
        leaves.append(torch.from_numpy(np.ascontiguousarray(own)).requires_grad_())
        return leaves[-1]

    model: Any = jax.tree.map(lambda x: tensor(x) if eqx.is_inexact_array(x) else x, _model(config, side))
    images = torch.from_numpy(_drawn(side, batch)).permute(0, 3, 1, 2).contiguous()
    adam = torch.optim.Adam(leaves, lr=RATE)

    def convolved(layer: Convolution, x: Any) -> Any:
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.padding)  # pyright: ignore[reportArgumentType]

    def normed(layer: GroupNorm, x: Any) -> Any:
        return F.silu(F.group_norm(x, layer.groups, layer.scale, layer.bias, layer.epsilon))  # pyright: ignore

    def block(layer: ResidualBlock, x: Any) -> Any:
        h = x
        for norm, conv in zip(layer.norms, layer.convs):
            h = convolved(conv, normed(norm, h))
        return h + (x if layer.shortcut is None else convolved(layer.shortcut, x))

    def run(blocks: tuple[ResidualBlock, ...], x: Any) -> Any:
        return functools.reduce(lambda x, layer: block(layer, x), blocks, x)

    def call() -> float:
        encoder, decoder, codes = model.encoder, model.decoder, model.quantizer.codebook
        x = convolved(encoder.stem, images)
        for i, level in enumerate(encoder.levels):
            x = run(level, F.avg_pool2d(x, 2) if i else x)
        z = convolved(encoder.head, normed(encoder.norm, run(encoder.middle, x)))
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        with torch.no_grad():
            ids = torch.cdist(flat, codes).argmin(1)
        chosen = codes[ids].reshape(z.shape[0], *z.shape[2:], -1).permute(0, 3, 1, 2)
        distance = F.mse_loss(chosen, z.detach()) + config.commitment * F.mse_loss(z, chosen.detach())
        x = run(decoder.middle, convolved(decoder.stem, z + (chosen - z).detach()))
        for i, level in enumerate(decoder.levels):
            x = run(level, convolved(decoder.ups[i - 1], F.interpolate(x, scale_factor=2)) if i else x)
        again = convolved(decoder.head, normed(decoder.norm, x))
        loss = F.mse_loss(again, images) + distance
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return loss.item()

    return Side(call, lambda value: None)
