"""The residual block of diffusion models' U-Nets."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.activation import Activation
from eqxgen.nn.conv.convolution import Convolution, conv_uniform
from eqxgen.nn.conv.resample import Taps, blur, downsample, enlarge, upsample
from eqxgen.nn.drop import Dropout
from eqxgen.nn.linear import Initializer, Projection
from eqxgen.nn.norm.fused import GroupNorm
from eqxgen.rng import RNG

_zeros = jax.nn.initializers.zeros
RESAMPLES = ("up", "down")


class ConditionedBlock(eqx.Module):
    """Norm, activation and convolution, twice, with a vector of time and class between, added to the input.

        h = conv(resample(activation(norm(x))))
        h = activation(norm(h) * (1 + scale) + shift)      or      activation(norm(h + shift))
        y = (resample(x) + conv(dropout(h))) * skip_scale

    Scale and shift are a projection of the condition, which is already activated. The second convolution is zero at
    initialisation. The input has a 1x1 convolution where the channels change, or with `project`.

    DDPM (Ho et al. 2020, arXiv:2006.11239, appendix B) has shifts alone. ADM (Dhariwal and Nichol 2021,
    arXiv:2105.05233, section 3) has scales too and resamples within blocks. DDPM++ and NCSN++ (Song et al. 2021,
    arXiv:2011.13456, appendix H) scale each sum by 1 / sqrt(2) and, with `project`, have a 1x1 convolution wherever
    they resample.

    Args:
        in_channels, out_channels: sizes of the last axis.
        condition_dim: size of the condition.
        norm: makes the norm of a number of channels.
        activation: by name; "swish" is fused into the norms.
        scaled: a scale beside the shift, after the norm.
        dropout: rate before the second convolution.
        resample: "up" doubles an image, "down" halves it.
        taps: of the filter of the resampling; (1, 1) is repetition and mean.
        project: a 1x1 convolution of the input of a block that resamples, too.
        skip_scale: factor of the sum.
        init: initializer of the kernels.

    Raises:
        ValueError: a number violates its constraint; x is not one image of `in_channels`, or cannot be halved.
    """

    norms: tuple[GroupNorm, GroupNorm]
    convs: tuple[Convolution, Convolution]
    modulation: Projection  # outputs: scale, if any, then shift
    shortcut: Convolution | None
    dropout: Dropout
    activation: Activation
    scaled: bool = eqx.field(static=True)
    resample: str | None = eqx.field(static=True)
    taps: tuple[float, ...] = eqx.field(static=True)
    skip_scale: float = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_dim: int,
        *,
        norm: Callable[[int], GroupNorm] = GroupNorm,
        activation: str = "swish",
        scaled: bool = True,
        dropout: float = 0.0,
        resample: str | None = None,
        taps: Taps = (1, 1),
        project: bool = False,
        skip_scale: float = 1.0,
        init: Initializer = conv_uniform,
        key: PRNGKeyArray,
    ):
        if resample is not None:
            _check.one_of("resample", resample, RESAMPLES)
        keys = RNG(key)
        self.norms = norm(in_channels), norm(out_channels)
        self.convs = (
            Convolution(in_channels, out_channels, init=init, key=next(keys)),
            Convolution(out_channels, out_channels, init=_zeros, key=next(keys)),
        )
        self.modulation = Projection(condition_dim, (2 if scaled else 1) * out_channels, key=next(keys))
        needed = in_channels != out_channels or (project and resample is not None)
        self.shortcut = Convolution(in_channels, out_channels, kernel=1, init=init, key=next(keys)) if needed else None
        self.dropout, self.activation = Dropout(dropout), Activation(activation)
        self.scaled, self.resample, self.taps = scaled, resample, tuple(float(tap) for tap in taps)
        self.skip_scale = float(skip_scale)

    def __call__(
        self,
        x: Float[Array, "height width in_channels"],
        condition: Float[Array, " condition_dim"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "out_height out_width out_channels"]:
        _check.image(x, in_channels=self.norms[0].channels)
        h = self.convs[0](resampled(activated(self.norms[0], x, self.activation), self.resample, self.taps))
        vector = self.modulation(condition)
        if self.scaled:
            scale, shift = jnp.split(vector, 2)
            h = activated(self.norms[1], h, self.activation, (shift, scale))
        else:
            h = activated(self.norms[1], h + vector[None, None], self.activation)
        h = self.convs[1](self.dropout(h, key=key, inference=inference))
        x = resampled(x, self.resample, self.taps)
        y = h + (x if self.shortcut is None else self.shortcut(x))
        return y if self.skip_scale == 1 else y * self.skip_scale


def activated(
    norm: GroupNorm, x: Array, activation: Activation, modulation: tuple[Array, Array] | None = None
) -> Array:
    """Norm and activation, in one pass where the kernel has it."""
    if activation.name == "swish":
        return norm(x, activation="silu", modulation=modulation)
    return activation(norm(x, modulation=modulation))


def resampled(x: Array, direction: str | None, taps: Taps) -> Array:
    """The image doubled, halved, or as it is."""
    if direction is None:
        return x
    plain = tuple(taps) == (1, 1)
    if direction == "up":
        return upsample(x) if plain else enlarge(x, taps)
    return downsample(x) if plain else blur(x, taps, stride=2)
