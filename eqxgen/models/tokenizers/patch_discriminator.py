"""PatchGAN: a discriminator of overlapping patches (Isola et al. 2017, arXiv:1611.07004, appendix 6.1.2), in the form
of taming transformers (Esser et al. 2021, arXiv:2012.09841), `NLayerDiscriminator`.
"""

import itertools

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.nn import ActNorm, BatchNorm, BatchNormState, Convolution, _check
from eqxgen.rng import RNG

SLOPE = 0.2
NORMS = ("batch", "act")
_weights = jax.nn.initializers.normal(0.02)


class PatchDiscriminator(eqx.Module):
    """A map of logits of an image, positive for real. Convolutions of 4x4: one of stride 2 without a norm, `layers - 1`
    of stride 2, one of stride 1, each with a norm, and one of stride 1 to a single channel.

    With batch norm the batch is the axis `batch` of `jax.vmap`; convolutions before a batch norm have no bias.

    Args:
        channels: of the image.
        width: channels of the first convolution; doubled by each, at most eightfold.
        layers: convolutions with stride 2.
        norm: batch, or act (`ActNorm`, which `started` initialises on a batch).

    Raises:
        ValueError: a number is out of its range; an image is too small for the convolutions.
    """

    stem: Convolution
    convs: tuple[Convolution, ...]
    norms: tuple[BatchNorm | ActNorm, ...]
    head: Convolution

    def __init__(self, channels: int, *, width: int = 64, layers: int = 3, norm: str = "batch", key: PRNGKeyArray):
        _check.positive(channels=channels, width=width, layers=layers)
        _check.one_of("norm", norm, NORMS)
        keys = RNG(key)
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        conv = lambda before, after, stride, bias: Convolution(
            before, after, kernel=4, stride=stride, padding=1, bias=bias, init=_weights, key=next(keys)
        )
        self.stem = conv(channels, width, 2, True)
        self.convs = tuple(
            conv(before, after, 2 if i < layers - 1 else 1, norm == "act")
            for i, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.norms = tuple(_norm(norm, after, key=next(keys)) for after in widths[1:])
        self.head = conv(widths[-1], 1, 1, True)

    def init_state(self) -> tuple[BatchNormState, ...]:
        """Running statistics of the batch norms; empty for others."""
        return tuple(norm.init_state() for norm in self.norms if isinstance(norm, BatchNorm))

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        state: tuple[BatchNormState, ...],
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "rows columns"], tuple[BatchNormState, ...]]:
        """Logits of an image in [-1, 1], in float32 at least, and the state after its batch.

        Args:
            state: see `init_state`.
            weight: of the image in the statistics: 0 for padding, else 1.
            key: not used; every model has it.
            inference: normalises by the running statistics, if true.
        """
        x, after = jax.nn.leaky_relu(self.stem(image), SLOPE), []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = conv(x)
            if isinstance(norm, BatchNorm):
                x, found = norm(x, state[i], weight=weight, inference=inference)
                after.append(found)
            else:
                x = norm(x)
            x = jax.nn.leaky_relu(x, SLOPE)
        logits = self.head(x)[..., 0]
        return widen(logits), tuple(after)

    def started(self, images: Float[Array, "batch height width channels"]) -> "PatchDiscriminator":
        """With each `ActNorm` initialised on a batch, one after another; a batch norm stays."""
        x, norms = jax.nn.leaky_relu(jax.vmap(self.stem)(images), SLOPE), []
        if isinstance(self.norms[0], BatchNorm):
            return self
        for conv, norm in zip(self.convs, self.norms):
            x = jax.vmap(conv)(x)
            norms.append(norm.started(x) if isinstance(norm, ActNorm) else norm)
            x = jax.nn.leaky_relu(jax.vmap(norms[-1])(x), SLOPE)
        return eqx.tree_at(lambda model: model.norms, self, tuple(norms))


def _norm(kind: str, channels: int, *, key: PRNGKeyArray) -> BatchNorm | ActNorm:
    if kind == "act":
        return ActNorm(channels)
    scale = 1 + 0.02 * jr.normal(key, (channels,))
    return eqx.tree_at(lambda norm: norm.scale, BatchNorm(channels), scale)
