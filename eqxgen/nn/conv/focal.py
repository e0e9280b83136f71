"""Modulation of an image by local context, or by its mean."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.activation import ACTIVATIONS
from eqxgen.nn.conv.convolution import Convolution
from eqxgen.nn.drop import Dropout
from eqxgen.nn.linear import Projection
from eqxgen.rng import RNG


class FocalModulation(eqx.Module):
    """Focal modulation of one image `(height, width, dim)` (Yang et al. 2022, arXiv:2203.11926, equations 3 to 6).

    Depthwise convolutions in sequence gather context of growing width. Gates of each position weight these levels and
    the mean of the image; the projected sum multiplies the query of the position. Equal to transformers'
    `FocalNetModulation` with its default options.

    Args:
        dim: size of the last axis, kept.
        window: side of the first level's kernel; odd, so that the kernel is centred.
        level: number of convolutions.
        factor: growth of the kernel's side from level to level; even, so that the kernels are centred.
        bias: adds biases to the projections of the input and of the context; that of the output has one.
        dropout: rate on the output.

    Raises:
        ValueError: a number violates its constraint; x is not one image of that width; a key is missing in training
            with dropout.
    """

    project_in: Projection
    levels: tuple[Convolution, ...]
    context: Projection
    project_out: Projection
    dropout: Dropout
    dim: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        window: int = 3,
        level: int = 2,
        factor: int = 2,
        bias: bool = True,
        dropout: float = 0.0,
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim, window=window, level=level)
        _check.not_negative(factor=factor)
        if window % 2 == 0 or factor % 2:
            raise ValueError(
                f"window must be odd and factor even, for centred kernels: got window={window}, factor={factor}"
            )
        keys = RNG(key)
        self.project_in = Projection(dim, 2 * dim + level + 1, bias=bias, key=next(keys))
        sides = [window + factor * i for i in range(level)]
        self.levels = tuple(
            Convolution(dim, dim, kernel=side, groups=dim, bias=False, key=next(keys)) for side in sides
        )
        self.context = Projection(dim, dim, bias=bias, key=next(keys))
        self.project_out = Projection(dim, dim, key=next(keys))
        self.dropout = Dropout(dropout)
        self.dim = dim

    def __call__(
        self, x: Float[Array, "height width dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "height width dim"]:
        _check.image(x, dim=self.dim)
        gelu = ACTIVATIONS["gelu"]
        query, context, gates = jnp.split(self.project_in(x), (self.dim, 2 * self.dim), axis=-1)
        gathered = jnp.zeros_like(x)
        for i, level in enumerate(self.levels):
            context = gelu(level(context))
            gathered = gathered + context * gates[..., i : i + 1]
        gathered = gathered + gelu(jnp.mean(context, (0, 1), keepdims=True)) * gates[..., -1:]
        return self.dropout(self.project_out(query * self.context(gathered)), key=key, inference=inference)


class SqueezeExcitation(eqx.Module):
    """Each channel of an example `(*spatial, channels)` times a gate computed from the means of all channels (Hu et al.
    2018, arXiv:1709.01507).

        x * σ(W_2 relu(W_1 mean(x)))

    Args:
        channels: size of the last axis, kept.
        reduction: ratio of `channels` to the inner width; it divides `channels`. 16 in the paper.

    Raises:
        ValueError: a number violates its constraint; x has no spatial axis or another channel count.
    """

    squeeze: Projection
    excite: Projection
    channels: int = eqx.field(static=True)

    def __init__(self, channels: int, reduction: int = 16, *, key: PRNGKeyArray):
        _check.positive(channels=channels, reduction=reduction)
        _check.divides(reduction=reduction, channels=channels)
        squeeze_key, excite_key = jr.split(key)
        self.squeeze = Projection(channels, channels // reduction, key=squeeze_key)
        self.excite = Projection(channels // reduction, channels, key=excite_key)
        self.channels = channels

    def __call__(
        self, x: Float[Array, "*spatial channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*spatial channels"]:
        _check.some_spatial(x)
        _check.last_axis(x, "channels", self.channels)
        mean = jnp.mean(x, tuple(range(x.ndim - 1)))
        gate = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(mean))))
        return x * gate[(None,) * (x.ndim - 1)]
