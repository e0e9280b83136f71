"""StyleGAN2's modulated 3x3 convolution with all gradients: activations scaled, beside a kernel for each example in JAX
and, as PyTorch's implementations do it, in groups.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from bench.layers.contenders import normal, tensor
from bench.machine import full
from bench.race import PHASES, Side, jax_side, torch_side
from eqxgen.models.gan.modulated import EPSILON, modulated_convolution
from eqxgen.nn.conv.convolution import convolve

SIZES = {"8x16x64": (8, 16, 64), "32x16x64": (32, 16, 64), "32x32x32": (32, 32, 32)}
"""Batch, side and channels."""


@pytest.mark.parametrize("size", SIZES if full() else ["8x16x64"])
def bench_modulated_convolution(race: Callable, size: str) -> None:
    """Forward and backward."""
    batch, side, channels = SIZES[size]
    x, weight = normal(batch, side, side, channels), normal(3, 3, channels, channels)
    style = 1 + 0.1 * normal(batch, channels)
    scaled = jax.vmap(modulated_convolution, (0, None, 0))

    def per_example(x: jax.Array, weight: jax.Array, style: jax.Array) -> jax.Array:
        kernel = weight * style[None, None, :, None]
        kernel = kernel * jax.lax.rsqrt(jnp.sum(kernel**2, axis=(0, 1, 2), keepdims=True) + EPSILON)
        return convolve(x, kernel, padding=(1, 1))

    side_of = lambda function: jax_side(function, x, weight, style, phase=PHASES[2], cotangent=jnp.ones_like(x))
    makers = {
        "ours": lambda: side_of(scaled),
        "kernels": lambda: side_of(jax.vmap(per_example, (0, None, 0))),
        "torch": lambda: in_groups(x, weight, style),
    }
    race(makers, f"modulated convolution {size}")


def in_groups(x: jax.Array, weight: jax.Array, style: jax.Array) -> Side:
    """PyTorch's grouped convolution of kernels for each example."""
    import numpy as np
    import torch

    batch, side, _, channels = x.shape
    inputs = [tensor(x), torch.tensor(np.array(weight)).permute(3, 2, 0, 1).contiguous(), torch.tensor(np.array(style))]
    inputs = [array.requires_grad_() for array in inputs]

    def call() -> torch.Tensor:
        images, kernel, scale = inputs
        kernels = kernel[None] * scale[:, None, :, None, None]
        kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + EPSILON).rsqrt()
        y = torch.nn.functional.conv2d(
            images.reshape(1, -1, side, side), kernels.reshape(-1, channels, 3, 3), padding=1, groups=batch
        )
        return y.reshape(batch, channels, side, side)

    return torch_side(call, inputs, torch.ones(batch, channels, side, side), PHASES[2])
