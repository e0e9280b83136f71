"""Variational autoencoder (Kingma and Welling 2014, arXiv:1312.6114): an MLP, or convolutions before it.

The sizes are those of nets with published numbers: 784-400-20 of PyTorch's and Flax's examples, 784-200-200-50 with
tanh of IWAE (Burda et al. 2016, arXiv:1509.00519), Pax's convolutions. The decoder of a convolutional net maps the
latents to a grid of the first convolution's channels, doubles it by transposed convolutions with the encoder's channels
in reverse, and ends in a convolution; it has no hidden layers.

Differences: biases start at zero, and one learned variance is that of every pixel of a Gaussian likelihood (Rybkin et
al. 2021, arXiv:2006.13202).
"""

import itertools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import VAEConfig
from eqxgen.nn import Convolution, ConvolutionTranspose, Projection, _check
from eqxgen.nn.distributions import LOG_VARIANCE, Bernoulli, DiagonalGaussian, LogitLaplace, logit, squeezed
from eqxgen.rng import RNG

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.1),
}


class Encoder(eqx.Module):
    """Image to the moments of its latents: convolutions that halve, hidden layers, a projection."""

    convs: tuple[Convolution, ...]
    dense: tuple[Projection, ...]
    head: Projection
    activation: str = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, config: VAEConfig, *, key: PRNGKeyArray):
        keys, widths = RNG(key), (channels, *config.channels)
        self.convs = tuple(Convolution(old, new, stride=2, key=next(keys)) for old, new in itertools.pairwise(widths))
        sizes = (height * width * widths[-1] // config.factor**2, *config.hidden)
        self.dense = tuple(Projection(old, new, key=next(keys)) for old, new in itertools.pairwise(sizes))
        self.head = Projection(sizes[-1], 2 * config.latent_dim, key=next(keys))
        self.activation = config.activation

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, " doubled"]:
        act, x = ACTIVATIONS[self.activation], image
        for conv in self.convs:
            x = act(conv(x))
        x = x.reshape(-1)
        for layer in self.dense:
            x = act(layer(x))
        return self.head(x)


class Decoder(eqx.Module):
    """Latents to the numbers of a distribution of each pixel, `per_value` for each channel."""

    dense: tuple[Projection, ...]
    ups: tuple[ConvolutionTranspose, ...]
    head: Projection | Convolution
    shape: tuple[int, int, int] = eqx.field(static=True)
    grid: tuple[int, int, int] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, per_value: int, config: VAEConfig, *, key: PRNGKeyArray):
        keys, wide = RNG(key), config.channels
        self.shape, self.activation = (height, width, per_value * channels), config.activation
        self.grid = (height // config.factor, width // config.factor, wide[0] if wide else 0)
        sizes = (config.latent_dim, *((math.prod(self.grid),) if wide else config.hidden[::-1]))
        self.dense = tuple(Projection(old, new, key=next(keys)) for old, new in itertools.pairwise(sizes))
        widths = (*wide[:1], *wide[::-1])
        self.ups = tuple(
            ConvolutionTranspose(old, new, stride=2, output_padding=1, key=next(keys))
            for old, new in itertools.pairwise(widths)
        )
        last = self.shape[-1]
        self.head = (
            Convolution(widths[-1], last, key=next(keys))
            if wide
            else Projection(sizes[-1], math.prod(self.shape), key=next(keys))
        )

    def __call__(self, latents: Float[Array, " latent_dim"]) -> Float[Array, "height width numbers"]:
        act, x = ACTIVATIONS[self.activation], latents
        for layer in self.dense:
            x = act(layer(x))
        x = x.reshape(self.grid) if self.ups else x
        for up in self.ups:
            x = act(up(x))
        return self.head(x).reshape(self.shape)


class VAE(eqx.Module):
    """Variational autoencoder of images of one shape.

    Args:
        height, width, channels: of the images.
        config: the sizes.

    Raises:
        ValueError: a size is below 1, or the convolutions do not halve the sides to whole numbers.
    """

    encoder: Encoder
    decoder: Decoder
    log_variance: Float[Array, ""] | None  # of a Gaussian likelihood
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    latent_dim: int = eqx.field(static=True)
    likelihood: str = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, config: VAEConfig, *, key: PRNGKeyArray):
        _check.positive(height=height, width=width, channels=channels)
        for name, side in (("height", height), ("width", width)):
            _check.divides(factor=config.factor, **{name: side})
        encoder_key, decoder_key = jr.split(key)
        self.likelihood, self.latent_dim = config.likelihood, config.latent_dim
        self.image_shape = (height, width, channels)
        self.encoder = Encoder(height, width, channels, config, key=encoder_key)
        per_value = 2 if self.likelihood == "logit_laplace" else 1
        self.decoder = Decoder(height, width, channels, per_value, config, key=decoder_key)
        self.log_variance = jnp.zeros(()) if self.likelihood == "gaussian" else None

    def encode(self, image: Float[Array, "height width channels"]) -> DiagonalGaussian:
        """Posterior of the latents of an image in [-1, 1], with its log-variance within `LOG_VARIANCE`.

        Raises:
            ValueError: the image has another shape.
        """
        height, width, channels = self.image_shape
        _check.example(image, name="image", height=height, width=width, channels=channels)
        # Nets of the published sizes see pixels in [0, 1].
        return DiagonalGaussian.of(self.encoder((0.5 * (image + 1.0)).astype(self.encoder.head.weight.dtype)))

    def pixels(self, latents: Float[Array, " latent_dim"]) -> DiagonalGaussian | Bernoulli | LogitLaplace:
        """Distribution of the pixels of an image in [-1, 1] given its latents."""
        found = self.decoder(latents)
        if self.likelihood == "bernoulli":
            return Bernoulli(found)
        if self.log_variance is None:
            return LogitLaplace.of(found)
        return DiagonalGaussian(found, jnp.broadcast_to(jnp.clip(self.log_variance, *LOG_VARIANCE), found.shape))

    def log_likelihood(
        self, image: Float[Array, "height width channels"], latents: Float[Array, " latent_dim"]
    ) -> Float[Array, ""]:
        """log p(image | latents) in nats, summed over the pixels; of a Gaussian or logit-Laplace likelihood, the
        logarithm of a density.
        """
        return self.pixels(latents).log_prob(image)

    def decode(self, latents: Float[Array, " latent_dim"]) -> Float[Array, "height width channels"]:
        """The expected image of some latents; the median of a logit-Laplace likelihood."""
        return self.pixels(latents).image()

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, "height width channels"]:
        """The expected image of latents drawn from the prior."""
        return self.decode(jr.normal(key, (self.latent_dim,)))

    def __call__(
        self, image: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "height width channels"], DiagonalGaussian]:
        """Reconstruction of an image in [-1, 1] from a draw of its latents, and their posterior.

        Args:
            key: of the draw; without one the mean is decoded.
        """
        posterior = self.encode(image)
        return self.decode(posterior.mean if key is None else posterior.sample(key=key)), posterior

    def with_mean(self, mean: Float[Array, "height width channels"]) -> "VAE":
        """The model with the decoder's last bias at a mean image in [-1, 1], so that training starts from the mean of
        the data; of a convolutional net, at the mean of each channel.

        Args:
            mean: for a Bernoulli likelihood strictly between -1 and 1.
        """
        if isinstance(self.decoder.head, Convolution):
            mean = jnp.broadcast_to(jnp.mean(mean, axis=(0, 1)), mean.shape)
        bias = _BIASES[self.likelihood](mean)
        bias = bias[0, 0] if isinstance(self.decoder.head, Convolution) else bias.reshape(-1)
        return eqx.tree_at(lambda model: model.decoder.head.bias, self, bias)


def _of_logit_laplace(mean: Array) -> Array:
    return jnp.concatenate([logit(squeezed(mean)), jnp.zeros_like(mean)], axis=-1)


_BIASES: dict[str, Callable[[Array], Array]] = {
    "bernoulli": lambda mean: logit(0.5 * (mean + 1.0)),
    "gaussian": lambda mean: mean,
    "logit_laplace": _of_logit_laplace,
}
