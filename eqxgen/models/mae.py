"""ViT-MAE: an encoder of the visible patches and a decoder of all pixels (He et al. 2022, arXiv:2111.06377).

Where we differ: the fixed sine and cosine positions of the paper are parameters, as in published files, and start as
drawn numbers.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import MAEConfig
from eqxgen.losses.pixels import masked_pixel_loss
from eqxgen.models.vit import ViT, encoder, normal
from eqxgen.nn import LayerNorm, Projection, Stack, _check
from eqxgen.rng import RNG


class MAE(eqx.Module):
    """The pixels of every patch of an image, of which the encoder sees a drawn part.

    Args:
        height, width, channels: of the image; the patch divides the first two.
        config: the sizes.
    """

    encoder: ViT
    embedding: Projection
    mask_token: Float[Array, "1 dim"]
    positions: Float[Array, "tokens dim"]
    stack: Stack
    norm: LayerNorm
    head: Projection
    config: MAEConfig = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, config: MAEConfig, *, key: PRNGKeyArray):
        keys, dim, patch = RNG(key), config.dim, config.encoder.patch
        self.encoder = ViT(height, width, channels, None, config.encoder, key=next(keys))
        self.embedding = Projection(config.encoder.dim, dim, init=normal, key=next(keys))
        self.mask_token = normal(next(keys), (1, dim), jnp.float32)
        self.positions = normal(next(keys), (len(self.encoder.positions), dim), jnp.float32)
        same = {"activation": config.encoder.activation, "epsilon": config.encoder.epsilon}
        self.stack = encoder(dim, config.depth, config.heads, hidden_dim=config.hidden_dim, **same, key=next(keys))
        self.norm = LayerNorm(dim, epsilon=config.encoder.epsilon)
        self.head = Projection(dim, patch**2 * channels, init=normal, key=next(keys))
        self.config = config

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        *,
        noise: Float[Array, " patches"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "patches pixels"], Float[Array, " patches"]]:
        """Pixels of each patch, row by row with channels last, in float32 at least, and a mask that is 1 where the
        encoder did not see the patch.

        Args:
            image: of the model's size.
            noise: a number for each patch, of which those of the smallest are seen; drawn from the key by default.
            key: of the mask and of dropout.
            inference: no dropout, if true.

        Raises:
            ValueError: neither noise nor key is given, or one has another shape.
        """
        if noise is None and key is None:
            raise ValueError("noise or key must be given: the mask is drawn from it")
        noise_key, encoder_key = (None, None) if key is None else jr.split(key)
        x = self.encoder.embedded(image)
        noise = jr.uniform(noise_key, (len(x),)) if noise is None else noise  # type: ignore[arg-type]
        _check.example(noise, name="noise", patches=len(x))
        # The derivative of a sort is one of sharding too, which JAX 0.10 does not have on explicit axes.
        order = jnp.argsort(jax.lax.stop_gradient(noise))
        place, seen = jnp.argsort(order), int(len(x) * (1 - self.config.masked))
        y = self.encoder.encoded(x[order[:seen]], key=encoder_key, inference=inference)
        pixels = self._decoded(self.embedding(y), place)
        wide = jnp.promote_types(pixels.dtype, jnp.float32)
        return pixels.astype(wide), (place >= seen).astype(wide)

    def loss(
        self,
        image: Float[Array, "height width channels"],
        *,
        noise: Float[Array, " patches"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, ""]:
        """`masked_pixel_loss` of one image; the arguments are those of a call."""
        pixels, mask = self(image, noise=noise, key=key, inference=inference)
        patch, normalised = self.config.encoder.patch, self.config.normalised
        return masked_pixel_loss(pixels, image, mask, patch=patch, normalised=normalised)

    def _decoded(self, y: Float[Array, "seen dim"], place: Array) -> Float[Array, "patches pixels"]:
        hidden = jnp.broadcast_to(self.mask_token.astype(y.dtype), (len(place) + 1 - len(y), y.shape[1]))
        patches = jnp.concatenate([y[1:], hidden])[place]
        x = jnp.concatenate([y[:1], patches]) + self.positions.astype(y.dtype)
        return self.head(self.norm(self.stack(x)))[1:]
