"""Tokenizers of images: an encoder, a quantiser and a decoder, in one class for every net.

Nets are modules of two halves: `encoder(image)` gives latents `(*grid, dim)`; `decoder.features(vectors)` is all of the
decoder but its last layer, `decoder.head`, whose weight the adaptive weight of an adversarial loss needs.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.losses.likelihood import from_location
from eqxgen.nn import EMAQuantizer, GumbelQuantizer, MultiScaleVQ, ResidualVQ, VectorQuantizer, _check
from eqxgen.nn.quantize import Averages, Quantized


class ImageTokenizer(eqx.Module):
    """Images of one shape as a row of ids, and back.

    Args:
        encoder, quantizer, decoder: the parts; the decoder's last layer has two channels for each of the image with
            `laplace`.
        image_shape: height, width and channels.
        grid: sides of the latents: (rows, columns), or (tokens,).
        unit: the parts take and give images in [0, 1]; those of the tokenizer stay in [-1, 1].
        laplace: the decoder gives location and ln of the scale of a logit-Laplace distribution, see
            `eqxgen.losses.likelihood`.

    Raises:
        ValueError: the scales of a multi-scale quantiser do not end at the grid.
    """

    encoder: Any
    quantizer: Any
    decoder: Any
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    grid: tuple[int, ...] = eqx.field(static=True)
    unit: bool = eqx.field(static=True)
    laplace: bool = eqx.field(static=True)

    def __init__(
        self,
        encoder: Any,
        quantizer: Any,
        decoder: Any,
        image_shape: tuple[int, int, int],
        grid: tuple[int, ...],
        *,
        unit: bool = False,
        laplace: bool = False,
    ):
        if isinstance(quantizer, MultiScaleVQ) and tuple(grid) != (quantizer.side, quantizer.side):
            raise ValueError(
                f"the last of scales must be both sides of the grid, {' x '.join(map(str, grid))}: got "
                f"{quantizer.scales}"
            )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.image_shape, self.grid, self.unit, self.laplace = image_shape, grid, unit, laplace

    @property
    def height(self) -> int:
        return self.image_shape[0]

    @property
    def width(self) -> int:
        return self.image_shape[1]

    @property
    def channels(self) -> int:
        return self.image_shape[2]

    @property
    def codes(self) -> int:
        """Number of codes."""
        return self.quantizer.codes

    @property
    def ids_shape(self) -> tuple[int, ...]:
        """Of the ids before they become a row: the grid, and the stages of a residual quantiser; of a multi-scale one
        they are a row.
        """
        if isinstance(self.quantizer, MultiScaleVQ):
            return (self.quantizer.tokens,)
        stages = (len(self.quantizer.quantizers),) if isinstance(self.quantizer, ResidualVQ) else ()
        return (*self.grid, *stages)

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return math.prod(self.ids_shape)

    def init_state(self) -> Averages | None:
        """Averages of a moving codebook; None for others."""
        return self.quantizer.init_state() if isinstance(self.quantizer, EMAQuantizer) else None

    def latents(self, image: Float[Array, "height width channels"]) -> Float[Array, "*grid dim"]:
        """Latents of an image in [-1, 1] before they are quantised."""
        return self.encoder((image + 1) / 2 if self.unit else image)

    def quantised(
        self,
        latents: Float[Array, "*grid dim"],
        state: Averages | None = None,
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Quantized, Averages | None]:
        """The quantised latents, and the averages of a moving codebook after them, whose batch is the axis `batch` of
        `jax.vmap`.

        Args:
            state: of a moving codebook, as `init_state` gives it.
            weight: of the image in the averages: 0 for padding, else 1.
            key: of the draws of a Gumbel quantiser, which takes the likeliest code without one.
        """
        if isinstance(self.quantizer, EMAQuantizer):
            if state is None:
                raise ValueError("state must be given for codebook=ema: call model.reconstruct(image, state)")
            return self.quantizer(latents, state, weight=weight)
        options = {"inference": key is None} if isinstance(self.quantizer, GumbelQuantizer) else {}
        return self.quantizer(latents, key=key, **options), state

    def image_of(self, result: Float[Array, "height width outputs"]) -> Float[Array, "height width channels"]:
        """The image of what the decoder's last layer gives, in [-1, 1] where the decoder keeps to its range."""
        if self.laplace:
            return from_location(result[..., : self.image_shape[-1]])
        return 2 * result - 1 if self.unit else result

    def __call__(
        self, image: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "height width channels"], Quantized]:
        """The reconstruction of an image in [-1, 1], and its quantised latents; of a quantiser without a state."""
        return self.reconstruct(image, key=key)[:2]

    def reconstruct(
        self,
        image: Float[Array, "height width channels"],
        state: Averages | None = None,
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "height width channels"], Quantized, Averages | None]:
        """The reconstruction of an image in [-1, 1], its quantised latents, and the averages of a moving codebook after
        it; the arguments are those of `quantised`.
        """
        quantized, state = self.quantised(self.latents(image), state, weight=weight, key=key)
        return self._image(quantized.vectors), quantized, state

    def settled(self, state: Averages | None) -> "ImageTokenizer":
        """The tokenizer with the codes of a moving codebook as a learned one, which needs no state."""
        if not isinstance(self.quantizer, EMAQuantizer) or state is None:
            return self
        old = self.quantizer
        learned = VectorQuantizer(
            old.codes, old.dim, commitment=old.commitment, temperature=old.temperature, key=jr.key(0)
        )
        learned = eqx.tree_at(lambda q: q.codebook, learned, state.codebook(old.epsilon))
        return eqx.tree_at(lambda model: model.quantizer, self, learned)

    def encode(self, image: Float[Array, "height width channels"]) -> Int[Array, " tokens"]:
        """Ids of an image in [-1, 1]: row by row, and at each place stage by stage; or scale by scale."""
        return self._settled.nearest(self.latents(image)).reshape(-1)

    def decode(self, ids: _check.Ids) -> Float[Array, "height width channels"]:
        """The image of the ids (tokens,), clipped to [-1, 1]."""
        ids = jnp.asarray(_check.integers(ids, "ids"))
        _check.example(ids, name="ids", tokens=self.tokens)
        return jnp.clip(self._image(self._settled.lookup(ids.reshape(self.ids_shape))), -1, 1)

    @property
    def _settled(self) -> Any:
        if isinstance(self.quantizer, EMAQuantizer):
            raise ValueError("codebook=ema must be settled first: call model.settled(state), and encode by the result")
        return self.quantizer

    def _image(self, vectors: Float[Array, "*grid dim"]) -> Float[Array, "height width channels"]:
        return self.image_of(self.decoder(vectors))


def grid_of(height: int, width: int, channels: int, factor: int) -> tuple[int, int]:
    """Rows and columns of the latents of an image.

    Raises:
        ValueError: a number is below 1, or the factor does not divide a side.
    """
    _check.positive(height=height, width=width, channels=channels)
    _check.divides(factor=factor, height=height)
    _check.divides(factor=factor, width=width)
    return height // factor, width // factor
