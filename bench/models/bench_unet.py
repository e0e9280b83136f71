"""Train step of DDPM's CIFAR-10 U-Net at batch 8 beside diffusers' of the same sizes in PyTorch's eager mode, float32:
loss, gradients and Adam on random images.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from bench.race import Side
from bench.train_step import stepping, update_of
from eqxgen.configs import UNetConfig
from eqxgen.models import UNet
from eqxgen.pretrained import to_pretrained
from train.engine.host_memory import keep_freed_memory

BATCH, SIDE, RATE = 8, 32, 2e-4
CONFIG = UNetConfig.ddpm(SIDE)


def bench_unet(race: Callable) -> None:
    """One step of both, in turn."""
    keep_freed_memory()
    makers = {"ours": lambda: ours(CONFIG, BATCH, SIDE), "torch eager": lambda: torch_eager(CONFIG, BATCH, SIDE)}
    race(makers, "train step cifar10 U-Net", settings={"batch": BATCH})


def drawn(batch: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, noise and steps."""
    rng = np.random.default_rng(0)
    image, noise = (rng.normal(size=(batch, side, side, 3)).astype(np.float32) for _ in range(2))
    return image, noise, rng.integers(0, 1000, batch)


def kept() -> np.ndarray:
    """Share of the image in a noised one, at each step."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def ours(config: UNetConfig, batch: int, side: int) -> Side:
    """The step of our net, which keeps its state between calls."""
    model = eqx.filter_jit(UNet)(3, None, config, key=jr.key(0))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    optimizer = optax.adam(RATE)
    image, noise, time = map(jnp.asarray, drawn(batch, side))
    share = jnp.asarray(kept(), jnp.float32)[time][:, None, None, None]

    def mean_loss(arrays: Any, keys: Any) -> jax.Array:
        net = eqx.combine(arrays, static)
        noised = jnp.sqrt(share) * image + jnp.sqrt(1 - share) * noise
        said = jax.vmap(lambda x, t, key: net(x, t, key=key))(noised, time.astype(jnp.float32), keys)
        return jnp.mean((said - noise) ** 2)

    return stepping(*update_of(mean_loss, arrays, optimizer, batch))


def torch_eager(config: UNetConfig, batch: int, side: int) -> Side:
    """The step of diffusers' net of the same sizes and weights."""
    import torch
    from diffusers import UNet2DModel

    with tempfile.TemporaryDirectory() as folder:
        to_pretrained(eqx.filter_jit(UNet)(3, None, config, key=jr.key(0)), folder, "unet")
        model = UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False).train()
    adam = torch.optim.Adam(model.parameters(), lr=RATE)
    image, noise, time = (torch.from_numpy(x) for x in drawn(batch, side))
    share = torch.from_numpy(kept()).float()[time][:, None, None, None]
    image, noise = (x.permute(0, 3, 1, 2).contiguous() for x in (image, noise))

    def call() -> float:
        noised = share.sqrt() * image + (1 - share).sqrt() * noise
        loss = torch.nn.functional.mse_loss(model(noised, time).sample, noise)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return loss.item()

    return Side(call, lambda value: None)
