"""Small convolutional classifier, whose classes and features the sample metrics use."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import Convolution, Dropout, GroupNorm, Projection, _check
from eqxgen.rng import RNG


class ConvNet(eqx.Module):
    """Two convolutions a level, a stride of 2 between levels, mean over positions, a hidden layer.

    Args:
        channels: of the image.
        classes: number of labels.
        width: channels of the first level, doubled at each; a multiple of 8.
        levels: number of times that the image is halved.
        features: size of the hidden layer, the features of the Fréchet distance.
        dropout: rate before the last projection.
    """

    convs: tuple[Convolution, ...]
    norms: tuple[GroupNorm, ...]
    hidden: Projection
    head: Projection
    dropout: Dropout

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        width: int = 32,
        levels: int = 2,
        features: int = 64,
        dropout: float = 0.2,
        key: PRNGKeyArray,
    ):
        _check.positive(channels=channels, classes=classes, width=width, levels=levels, features=features)
        _check.divides(groups=8, width=width)
        keys = RNG(key)
        convs, old = [Convolution(channels, width, key=next(keys))], width
        for level in range(levels):
            new = width * 2 ** (level + 1)
            convs += [Convolution(old, new, stride=2, key=next(keys)), Convolution(new, new, key=next(keys))]
            old = new
        self.convs = tuple(convs)
        self.norms = tuple(GroupNorm(conv.weight.shape[-1], 8) for conv in convs)
        self.hidden = Projection(old, features, key=next(keys))
        self.head = Projection(features, classes, key=next(keys))
        self.dropout = Dropout(dropout)

    def features(self, image: Float[Array, "height width channels"]) -> Float[Array, " features"]:
        """The hidden layer of an image in [-1, 1]."""
        x = image
        for conv, norm in zip(self.convs, self.norms):
            x = norm(conv(x), activation="silu")
        return jax.nn.silu(self.hidden(jnp.mean(x, axis=(0, 1))))

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, " classes"]:
        """Logits of an image in [-1, 1]."""
        return self.head(self.dropout(self.features(image), key=key, inference=inference))
