"""Attention over the pixels of an image."""

import math
from typing import Any

import equinox as eqx
import jax
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.attention.linear_attention import LinearAttention
from eqxgen.nn.attention.self_attention import SelfAttention
from eqxgen.nn.linear import Initializer, torch_uniform
from eqxgen.nn.norm.fused import GroupNorm


class PixelAttention(eqx.Module):
    """Group norm and attention over the pixels of one image, added to it: `(x + attention(norm(x))) * skip_scale`.

    The block of convolutional autoencoders and of the U-Nets of diffusion models (Ho et al. 2020, arXiv:2006.11239,
    appendix B).

    Args:
        channels: size of the last axis, kept.
        heads: number of heads; it divides `channels`.
        groups: of the norm; they divide `channels`.
        epsilon: of the norm.
        linear: `LinearAttention`, whose cost is linear in the number of pixels.
        skip_scale: factor of the sum.
        init, out_init: initializers of the first projection and of the last, by default the same.

    Raises:
        ValueError: a number violates its constraint; x is not one image of that many channels.
    """

    norm: GroupNorm
    attention: SelfAttention | LinearAttention
    skip_scale: float = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        *,
        groups: int = 32,
        epsilon: float = 1e-6,
        linear: bool = False,
        skip_scale: float = 1.0,
        init: Initializer = torch_uniform,
        out_init: Initializer | None = None,
        key: PRNGKeyArray,
    ):
        self.norm = GroupNorm(channels, groups, epsilon=epsilon)
        kind: Any = LinearAttention if linear else SelfAttention
        attention = kind(channels, heads, init=init, key=key)
        if out_init is not None:
            weight = out_init(jax.random.fold_in(key, 1), attention.out.weight.shape, attention.out.weight.dtype)
            attention = eqx.tree_at(lambda layer: layer.out.weight, attention, weight)
        self.attention, self.skip_scale = attention, float(skip_scale)

    def __call__(
        self, x: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "height width channels"]:
        _check.image(x, channels=self.norm.channels)
        y = x + self.attention(rearrange(self.norm(x), "h w c -> (h w) c")).reshape(x.shape)
        return y if math.isclose(self.skip_scale, 1.0) else y * self.skip_scale
