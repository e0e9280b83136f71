"""U-Net of Pax's example of denoising diffusion (github.com/NTT123/pax, examples/denoising_diffusion), which is that of
the first version of denoising-diffusion-pytorch.

A block is a convolution, a group norm and Mish. Two blocks with the time between them make a residual block. Each
level has two of these and linear attention. A level on the way up gets the result of its twin, concatenated, but for
the first level, whose result is not read.

Differences: an optional class, added to the vector of the time. Biases are zero at initialisation, those of projections
too; weights are normal with variance 1 / fan-in, as in Pax.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import PaxUNetConfig
from eqxgen.models.denoisers.unet import check_image
from eqxgen.nn import MLP, Convolution, ConvolutionTranspose, GroupNorm, LayerNorm, SinusoidalEmbedding, _check
from eqxgen.nn.activation import Activation
from eqxgen.nn.attention.self_attention import join_heads, split_heads
from eqxgen.nn.embed.noise import ClassEmbedding
from eqxgen.nn.linear import Projection
from eqxgen.rng import RNG

_kernel = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")
_matrix = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)
_mish = Activation("mish")


class ConvBlock(eqx.Module):
    """Convolution, group norm, Mish."""

    convs: Convolution
    norm: GroupNorm

    def __init__(self, in_channels: int, channels: int, groups: int, *, key: PRNGKeyArray):
        self.convs = Convolution(in_channels, channels, init=_kernel, key=key)
        self.norm = GroupNorm(channels, groups, epsilon=1e-5)

    def __call__(self, x: Array) -> Array:
        return _mish(self.norm(self.convs(x)))


class TimedBlock(eqx.Module):
    """Two blocks, a projection of the time's vector added between them, and the input added at the end."""

    before: ConvBlock
    after: ConvBlock
    modulation: Projection
    shortcut: Convolution | None

    def __init__(self, in_channels: int, channels: int, config: PaxUNetConfig, *, key: PRNGKeyArray):
        keys = RNG(key)
        self.before = ConvBlock(in_channels, channels, config.groups, key=next(keys))
        self.after = ConvBlock(channels, channels, config.groups, key=next(keys))
        self.modulation = Projection(config.width, channels, init=_matrix, key=next(keys))
        changed = in_channels != channels
        self.shortcut = Convolution(in_channels, channels, kernel=1, init=_kernel, key=next(keys)) if changed else None

    def __call__(self, x: Array, time: Array) -> Array:
        h = self.after(self.before(x) + self.modulation(_mish(time))[None, None])
        return h + (x if self.shortcut is None else self.shortcut(x))


class KeyAttention(eqx.Module):
    """Attention of a cost linear in the pixels: keys are normalised over the pixels, queries are taken as they are.

    Shen et al. 2018 (arXiv:1812.01243) normalise the queries too.
    """

    qkv: Projection  # outputs in the order of `SelfAttention`
    out: Projection
    heads: int = eqx.field(static=True)

    def __init__(self, dim: int, heads: int, head_dim: int, *, key: PRNGKeyArray):
        keys = RNG(key)
        self.qkv = Projection(dim, 3 * heads * head_dim, bias=False, init=_matrix, key=next(keys))
        self.out = Projection(heads * head_dim, dim, init=_matrix, key=next(keys))
        self.heads = heads

    def __call__(self, x: Float[Array, "seq dim"]) -> Float[Array, "seq dim"]:
        q, k, v = split_heads(self.qkv(x), self.heads, self.out.in_dim // self.heads)
        weights = jax.nn.softmax(widen(k), axis=0)
        context = jnp.einsum("khd,khv->hdv", weights, widen(v))
        return self.out(join_heads(jnp.einsum("qhd,hdv->qhv", widen(q), context).astype(x.dtype)))


class AttendedBlocks(eqx.Module):
    """Two residual blocks and attention: after both, or between them in the middle of the net."""

    blocks: tuple[TimedBlock, TimedBlock]
    norm: LayerNorm
    attention: KeyAttention
    between: bool = eqx.field(static=True)

    def __init__(
        self, in_channels: int, channels: int, config: PaxUNetConfig, *, between: bool = False, key: PRNGKeyArray
    ):
        keys = RNG(key)
        self.blocks = (
            TimedBlock(in_channels, channels, config, key=next(keys)),
            TimedBlock(channels, channels, config, key=next(keys)),
        )
        self.norm = LayerNorm(channels)
        self.attention = KeyAttention(channels, config.heads, config.head_dim, key=next(keys))
        self.between = between

    def __call__(self, x: Array, time: Array) -> Array:
        x = self.blocks[0](x, time)
        if self.between:
            return self.blocks[1](self._attended(x), time)
        return self._attended(self.blocks[1](x, time))

    def _attended(self, x: Array) -> Array:
        return x + self.attention(rearrange(self.norm(x), "h w c -> (h w) c")).reshape(x.shape)


class Down(eqx.Module):
    """A level, and the convolution that halves its result, which the last has not."""

    level: AttendedBlocks
    step: Convolution | None

    def __call__(self, x: Array, time: Array) -> tuple[Array, Array]:
        """The image at the next size, and that of the level."""
        x = self.level(x, time)
        return (x if self.step is None else self.step(jnp.pad(x, ((0, 1), (0, 1), (0, 0))))), x


class Up(eqx.Module):
    """A level, and the transposed convolution that doubles its result."""

    level: AttendedBlocks
    step: ConvolutionTranspose

    def __call__(self, x: Array, kept: Array, time: Array) -> Array:
        return self.step(self.level(jnp.concatenate([x, kept], -1), time))


class PaxUNet(eqx.Module):
    """A prediction for a noised image.

    Args:
        channels: of the images.
        classes: number of labels; None for a net without classes, as in the example.
        config: the sizes.
    """

    time: MLP
    labels: ClassEmbedding | None
    downs: tuple[Down, ...]
    middle: AttendedBlocks
    ups: tuple[Up, ...]
    after: ConvBlock
    head: Convolution
    channels: int = eqx.field(static=True)
    classes: int | None = eqx.field(static=True)
    config: PaxUNetConfig = eqx.field(static=True)

    def __init__(self, channels: int, classes: int | None, config: PaxUNetConfig, *, key: PRNGKeyArray):
        _check.positive(channels=channels, **({} if classes is None else {"classes": classes}))
        keys, widths = RNG(key), config.widths
        self.time = MLP(config.width, activation="mish", init=_matrix, key=next(keys))
        self.labels = None if classes is None else ClassEmbedding(classes, config.width, key=next(keys))
        halved = lambda width: Convolution(width, width, stride=2, padding=0, init=_kernel, key=next(keys))
        self.downs = tuple(
            Down(AttendedBlocks(old, new, config, key=next(keys)), halved(new) if i + 1 < len(widths) else None)
            for i, (old, new) in enumerate(zip((channels, *widths), widths))
        )
        self.middle = AttendedBlocks(widths[-1], widths[-1], config, between=True, key=next(keys))
        self.ups = tuple(
            Up(
                AttendedBlocks(2 * old, new, config, key=next(keys)),
                ConvolutionTranspose(new, new, kernel=4, stride=2, init=_kernel, key=next(keys)),
            )
            for new, old in reversed([*itertools.pairwise(widths)])
        )
        self.after = ConvBlock(widths[0], widths[0], config.groups, key=next(keys))
        self.head = Convolution(widths[0], channels, kernel=1, init=_kernel, key=next(keys))
        self.channels, self.classes, self.config = channels, classes, config

    @property
    def null_label(self) -> int | None:
        """The label of no class; None for a net without classes."""
        return self.classes

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        time: Float[Array, ""],
        label: _check.Ids | None = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width channels"]:
        """In float32 at least.

        Args:
            x: the noised image.
            time: the step, from 0 to 999 in the example.
            label: in [0, classes), or `null_label`; None for a net without classes.
            key, inference: not used; every model has them.

        Raises:
            ValueError: x has another number of channels or a side that `config.factor` does not divide; a label is
                missing, superfluous or out of range (inside a compiled program it gives NaN instead).
        """
        check_image(x, self.channels, self.config.factor)
        vector, kept = self._vector(time, label).astype(x.dtype), []
        for down in self.downs:
            x, result = down(x, vector)
            kept.append(result)
        x = self.middle(x, vector)
        for up in self.ups:
            x = up(x, kept.pop(), vector)
        return widen(self.head(self.after(x)))

    def _vector(self, time: Array, label: _check.Ids | None) -> Array:
        if (label is None) != (self.labels is None):
            raise ValueError(
                f"label must be {'given' if label is None else 'None'}: the net has classes={self.classes}"
            )
        vector = self.time(SinusoidalEmbedding(self.config.width, shift=1)(time))
        return vector if self.labels is None or label is None else vector + self.labels(label)
