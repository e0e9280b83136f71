"""DCGAN (Radford et al. 2016, arXiv:1511.06434), with classes by an embedding beside the latent, and by projection in
the discriminator (Miyato and Koyama 2018, arXiv:1802.05637).

Real and generated images are normalised in batches of their own: call the discriminator once for each.
"""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import DCGANConfig
from eqxgen.nn import BatchNorm, BatchNormState, Convolution, ConvolutionTranspose, Embedding, Projection, _check
from eqxgen.rng import RNG

States = tuple[BatchNormState, ...]
"""Of the batch norms, in the order in which they run."""
INIT = jax.nn.initializers.normal(0.02)


class DCGANGenerator(eqx.Module):
    """Image in [-1, 1] of a latent, and the states after its batch, the axis `batch` of `jax.vmap`.

    Args:
        size: side of the image; even and above `config.base`.
        channels: of the image.
        classes: number of labels; None for a model without.
        config: the sizes.

    Raises:
        ValueError: the size cannot be halved; a label is given to a model without classes, or is lacking.
    """

    stem: Projection
    ups: tuple[ConvolutionTranspose, ...]
    norms: tuple[BatchNorm, ...]
    label_embedding: Embedding | None
    config: DCGANConfig = eqx.field(static=True)
    base: int = eqx.field(static=True)

    def __init__(self, size: int, channels: int, classes: int | None, config: DCGANConfig, *, key: PRNGKeyArray):
        _check.positive(size=size, channels=channels)
        keys = RNG(key)
        sides, widths = config.sides(size), _widths(config, size)
        dim = config.latent_dim + (0 if classes is None else config.label_dim)
        self.base = sides[0]
        self.stem = Projection(dim, self.base**2 * widths[0], bias=False, init=INIT, key=next(keys))
        self.ups = tuple(
            ConvolutionTranspose(old, new, kernel=4, stride=2, bias=last, init=INIT, key=next(keys))
            for old, new, last in zip(widths, (*widths[1:], channels), _last(len(widths)))
        )
        self.norms = tuple(_norm(width, next(keys)) for width in widths)
        self.label_embedding = None if classes is None else Embedding(classes, config.label_dim, key=next(keys))
        self.config = config

    def init_state(self) -> States:
        """The states of the batch norms before the first batch."""
        return tuple(norm.init_state() for norm in self.norms)

    def __call__(
        self,
        latent: Float[Array, " latent"],
        label: Int[Array, ""] | None,
        states: States,
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "size size channels"], States]:
        """One example; `weight` is 0 for padding of a batch, else 1."""
        _check.example(latent, name="latent", latent_dim=self.config.latent_dim)
        check_states(states, self.norms)
        x = self.stem(joined(self.label_embedding, latent, label))
        x, new = x.reshape(self.base, self.base, -1), []
        for norm, state, up in zip(self.norms, states, self.ups):
            x, state = norm(x, state, weight=weight, inference=inference)
            new.append(state)
            x = up(jax.nn.relu(x))
        return jnp.tanh(x), tuple(new)

    def batch(
        self,
        latents: Float[Array, "batch latent"],
        labels: Int[Array, " batch"] | None,
        state: States,
        *,
        weight: Float[Array, " batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "batch size size channels"], States]:
        """Images of a batch in training, and the state after it."""
        run = lambda latent, label, weight: self(latent, label, state, weight=weight, inference=False)
        return jax.vmap(run, out_axes=(0, None), axis_name="batch")(latents, label_array(labels), weight)

    def sample(
        self, latent: Float[Array, " latent"], label: Int[Array, ""] | None, state: Any, *, key: PRNGKeyArray
    ) -> Float[Array, "size size channels"]:
        """Image of one latent by the running statistics."""
        return self(latent, label, state, inference=True)[0]


class DCGANDiscriminator(eqx.Module):
    """Logit of an image, positive for real, and the states after its batch, the axis `batch` of `jax.vmap`.

    The logit is a projection of the last feature map; with classes, the product of the class's embedding and the sum
    of the features over all positions is added. Arguments as those of `DCGANGenerator`.
    """

    downs: tuple[Convolution, ...]
    norms: tuple[BatchNorm, ...]
    head: Projection
    label_embedding: Embedding | None
    config: DCGANConfig = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(self, size: int, channels: int, classes: int | None, config: DCGANConfig, *, key: PRNGKeyArray):
        _check.positive(size=size, channels=channels)
        self.size = size
        keys = RNG(key)
        sides, widths = config.sides(size), (channels, *_widths(config, size)[::-1])
        self.downs = tuple(
            Convolution(old, new, kernel=4, stride=2, bias=not place, init=INIT, key=next(keys), padding=1)
            for place, (old, new) in enumerate(itertools.pairwise(widths))
        )
        self.norms = tuple(_norm(width, next(keys)) for width in widths[2:])
        self.head = Projection(sides[0] ** 2 * widths[-1], 1, init=INIT, key=next(keys))
        self.label_embedding = None if classes is None else Embedding(classes, widths[-1], init=INIT, key=next(keys))
        self.config = config

    def init_state(self) -> States:
        """The states of the batch norms before the first batch."""
        return tuple(norm.init_state() for norm in self.norms)

    def __call__(
        self,
        image: Float[Array, "size size channels"],
        label: Int[Array, ""] | None,
        states: States,
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, ""], States]:
        """One example; `weight` is 0 for padding of a batch, else 1."""
        check_label(self.label_embedding, label)
        check_states(states, self.norms)
        _check.example(image, name="image", height=self.size, width=self.size, channels=self.downs[0].weight.shape[2])
        x, new = jax.nn.leaky_relu(self.downs[0](image), 0.2), []
        for norm, state, down in zip(self.norms, states, self.downs[1:]):
            x, state = norm(down(x), state, weight=weight, inference=inference)
            new.append(state)
            x = jax.nn.leaky_relu(x, 0.2)
        logit = widen(self.head(x.reshape(-1))[0])
        if self.label_embedding is not None and label is not None:
            logit += jnp.sum(self.label_embedding(label) * jnp.sum(x, axis=(0, 1)), dtype=logit.dtype)
        return logit, tuple(new)

    def batch(
        self,
        images: Float[Array, "batch size size channels"],
        labels: Int[Array, " batch"] | None,
        state: States,
        *,
        weight: Float[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, " batch"], States]:
        """Logits of a batch in training, and the state after it."""
        run = lambda image, label, weight: self(image, label, state, weight=weight, inference=False)
        return jax.vmap(run, out_axes=(0, None), axis_name="batch")(images, label_array(labels), weight)


def joined(
    embedding: Embedding | None, latent: Float[Array, " latent"], label: Int[Array, ""] | None
) -> Float[Array, " joined"]:
    """The latent with the label's embedding, if any, after it."""
    check_label(embedding, label)
    if embedding is None or label is None:
        return latent
    return jnp.concatenate([latent, embedding(label).astype(latent.dtype)])


def check_states(states: Any, norms: tuple[BatchNorm, ...]) -> None:
    """Raises `ValueError` where there is not a state for each batch norm."""
    if not isinstance(states, tuple | list) or len(states) != len(norms):
        got = len(states) if isinstance(states, tuple | list) else type(states).__name__
        raise ValueError(f"states must be those of {len(norms)} batch norms, as of init_state(): got {got}")


def label_array(labels: Any) -> Any:
    """Labels of a batch as an array, or None."""
    return None if labels is None else jnp.asarray(_check.integers(labels, "labels"))


def check_label(embedding: Any, label: Any) -> None:
    """Raises `ValueError` where a label is lacking, is no scalar, or is given to a model without classes."""
    if label is not None and jnp.ndim(label) != 0:
        raise ValueError(f"label must be a scalar, that of one example: got shape {jnp.shape(label)}")
    if embedding is None and label is not None:
        raise ValueError("label must be None for a model without classes: got one")
    if embedding is not None and label is None:
        raise ValueError("label must be given for a model of classes: got None")


def _widths(config: DCGANConfig, size: int) -> list[int]:
    """Channels of the feature maps below the image, from the smallest."""
    count = len(config.sides(size)) - 1
    return [min(config.width * 2**level, config.max_width) for level in reversed(range(count))]


def _last(count: int) -> list[bool]:
    return [place == count - 1 for place in range(count)]


def _norm(channels: int, key: PRNGKeyArray) -> BatchNorm:
    """A batch norm whose scale is normal about 1, as DCGAN's."""
    scale = 1 + 0.02 * jr.normal(key, (channels,))
    return eqx.tree_at(lambda norm: norm.scale, BatchNorm(channels), scale)
