"""The residual block of convolutional tokenizers."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.conv.convolution import Convolution
from eqxgen.nn.norm.fused import GroupNorm


class ResidualBlock(eqx.Module):
    """Norm, swish and convolution, twice, added to the input; a 1x1 convolution projects the input where the channels
    change.

    The block of image tokenizers, with group norm of epsilon 1e-6: MaskGIT's has no bias in any convolution, the one of
    taming transformers and latent diffusion has biases.

    Args:
        in_channels, out_channels: sizes of the last axis.
        groups: of both group norms, at most.
        group_width: channels of a group, at least: a norm of c channels has min(groups, c / group_width) groups.
        bias: adds a bias to every convolution.
        branch: where the channels change, the 1x1 convolution is of the second convolution's output in place of the
            input, as in MaskGIT's published tokenizer.

    Raises:
        ValueError: a number violates its constraint; x is not one image of `in_channels`.
    """

    norms: tuple[GroupNorm, GroupNorm]
    convs: tuple[Convolution, Convolution]
    shortcut: Convolution | None
    branch: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int = 32,
        group_width: int = 1,
        bias: bool = False,
        branch: bool = False,
        key: PRNGKeyArray,
    ):
        keys = jax.random.split(key, 3)
        norm = lambda channels: GroupNorm(channels, max(1, min(groups, channels // group_width)), epsilon=1e-6)
        self.norms = norm(in_channels), norm(out_channels)
        self.convs = (
            Convolution(in_channels, out_channels, bias=bias, key=keys[0]),
            Convolution(out_channels, out_channels, bias=bias, key=keys[1]),
        )
        self.shortcut = (
            None
            if in_channels == out_channels
            else Convolution(out_channels if branch else in_channels, out_channels, kernel=1, bias=bias, key=keys[2])
        )
        self.branch = branch

    def __call__(
        self, x: Float[Array, "height width in_channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "height width out_channels"]:
        _check.image(x, in_channels=self.norms[0].channels)
        h = x
        for norm, conv in zip(self.norms, self.convs):
            h = conv(norm(h, activation="silu"))
        return h + (x if self.shortcut is None else self.shortcut(h if self.branch else x))
