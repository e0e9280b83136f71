"""Sizes of variational autoencoders (Kingma and Welling 2014, arXiv:1312.6114)."""

import dataclasses

from eqxgen.configs._check import at_least_one, one_of, require


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Sizes of `eqxgen.models.vae.VAE`."""

    hidden: tuple[int, ...] = (400,)
    """Sizes of the encoder's hidden layers; the decoder of a net without convolutions has them in reverse."""
    latent_dim: int = 20
    """Number of latents."""
    channels: tuple[int, ...] = ()
    """Channels of convolutions before the hidden layers, each of which halves the image; none: an MLP."""
    activation: str = "relu"
    """relu, tanh or leaky_relu (slope 0.1)."""
    likelihood: str = "bernoulli"
    """Distribution of a pixel: bernoulli, gaussian (one learned variance for all) or logit_laplace."""

    def __post_init__(self):
        at_least_one(self, "latent_dim")
        for name in ("hidden", "channels"):
            sizes = getattr(self, name)
            require(min(sizes, default=1) >= 1, f"model.{name} must be integers of at least 1: got {sizes}")
        one_of(self, "activation", ("relu", "tanh", "leaky_relu"))
        one_of(self, "likelihood", ("bernoulli", "gaussian", "logit_laplace"))

    @property
    def factor(self) -> int:
        """Pixels along each side of the grid that the convolutions leave."""
        return 2 ** len(self.channels)

    @classmethod
    def iwae(cls) -> "VAEConfig":
        """The net of one stochastic layer of Burda et al. 2016 (arXiv:1509.00519, section 5)."""
        return cls(hidden=(200, 200), latent_dim=50, activation="tanh")

    @classmethod
    def pax(cls) -> "VAEConfig":
        """The convolutional net of Pax's example for MNIST."""
        return cls(hidden=(16,), latent_dim=2, channels=(32, 64), activation="leaky_relu")
