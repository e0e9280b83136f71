"""CLIP: an image tower and a text tower with one space (Radford et al. 2021, arXiv:2103.00020), and SigLIP (Zhai et al.
2023, arXiv:2303.15343) as a config of it.

The logit of a pair is `exp(logit_scale) * cos(image, text) + logit_bias`, without a bias in CLIP. A batch is `jax.vmap`
over `image_features` and `text_features`, then `similarity`.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import CLIPConfig, ConvNetConfig, TextTowerConfig
from eqxgen.models.convnet import ConvNet
from eqxgen.models.vit import ViT, encoder, normal
from eqxgen.nn import Embedding, LayerNorm, Projection, Stack, _check
from eqxgen.nn.linear import check_ids
from eqxgen.rng import RNG


class TextTower(eqx.Module):
    """The feature of a text, from one of its tokens.

    Args:
        vocab: size of the vocabulary.
        config: the sizes.
    """

    embedding: Embedding
    positions: Float[Array, "context dim"]
    stack: Stack
    norm: LayerNorm
    config: TextTowerConfig = eqx.field(static=True)

    def __init__(self, vocab: int, config: TextTowerConfig, *, key: PRNGKeyArray):
        keys, dim = RNG(key), config.dim
        self.embedding = Embedding(vocab, dim, init=normal, key=next(keys))
        self.positions = normal(next(keys), (config.context, dim), jnp.float32)
        self.stack = encoder(
            dim,
            config.depth,
            config.heads,
            hidden_dim=config.hidden_dim,
            activation=config.activation,
            epsilon=config.epsilon,
            causal=config.causal,
            key=next(keys),
        )
        self.norm = LayerNorm(dim, epsilon=config.epsilon)
        self.config = config

    def __call__(
        self, ids: _check.Ids, *, mask: Bool[Array, " seq"] | None = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, " dim"]:
        """Feature of a text of at most `context` tokens.

        Args:
            ids: tokens in [0, vocab).
            mask: false for padding, to which no token attends.

        Raises:
            ValueError: there are more tokens than `context`, or an id is out of range (inside a compiled program it
                gives NaN instead).
        """
        ids = check_ids(ids, self.embedding.vocab, "ids", "vocab")
        return self._tokens(ids, mask)[self._place(ids)]

    def tokens(self, ids: _check.Ids, *, mask: Bool[Array, " seq"] | None = None) -> Float[Array, "seq dim"]:
        """Every token after the last norm; the arguments are those of a call."""
        return self._tokens(check_ids(ids, self.embedding.vocab, "ids", "vocab"), mask)

    def _tokens(self, ids: Int[Array, " seq"], mask: Bool[Array, " seq"] | None) -> Float[Array, "seq dim"]:
        _check.example(ids, "seq", name="ids")
        if len(ids) > self.config.context:
            raise ValueError(f"ids must be at most context={self.config.context} tokens: got {len(ids)}")
        x = self.embedding(ids)
        x = x + self.positions[: len(ids)].astype(x.dtype)
        if mask is not None:
            _check.example(mask, name="mask", seq=len(ids))
        return self.norm(self.stack(x, mask=None if mask is None else mask[None, None]))

    def _place(self, ids: Int[Array, " seq"]) -> Int[Array, ""] | int:
        """Of the feature's token. A text without an end has that of its first token, as Hugging Face's."""
        if self.config.pool == "last":
            return len(ids) - 1
        return jnp.argmax(ids if self.config.pool == "largest" else ids == self.config.end)


class CLIP(eqx.Module):
    """Logit that an image and a text are a pair.

    Args:
        height, width, channels: of the image; a transformer's patch divides the first two.
        vocab: size of the vocabulary.
        config: the sizes.
    """

    vision: ViT | ConvNet
    text: TextTower
    image_head: Projection | None
    text_head: Projection
    logit_scale: Float[Array, ""]
    logit_bias: Float[Array, ""] | None
    config: CLIPConfig = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, vocab: int, config: CLIPConfig, *, key: PRNGKeyArray):
        keys, sigmoid = RNG(key), config.sigmoid
        if isinstance(config.vision, ConvNetConfig):  # its last projection is that into the joint space
            self.vision = ConvNet(channels, config.dim, **dataclasses.asdict(config.vision), key=next(keys))
            pooled = None
        else:
            self.vision = ViT(height, width, channels, None, config.vision, key=next(keys))
            pooled = None if sigmoid else config.vision.dim * (1 + (config.vision.pool == "class+mean"))
        self.text = TextTower(vocab, config.text, key=next(keys))
        project = lambda dim, bias: Projection(dim, config.dim, bias=bias, init=normal, key=next(keys))
        self.image_head = None if pooled is None else project(pooled, False)
        self.text_head = project(config.text.dim, sigmoid)
        # Section 2.5: the inverse of a temperature of 0.07. SigLIP, section 3.2: 10 and -10.
        self.logit_scale = jnp.asarray(math.log(10.0 if sigmoid else 1 / 0.07))
        self.logit_bias = jnp.asarray(-10.0) if sigmoid else None
        self.config = config

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        ids: _check.Ids,
        *,
        mask: Bool[Array, " seq"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, ""]:
        """The logit of one pair, in float32 at least.

        Args:
            image: of the model's size, normalised as the data.
            ids: tokens of the text in [0, vocab), at most `context` of them.
            mask: false for padding of the text, to which no token attends.
            key: of dropout in the image tower.
            inference: no dropout, if true.
        """
        image_features = self.image_features(image, key=key, inference=inference)
        return self.similarity(image_features[None], self.text_features(ids, mask=mask)[None])[0, 0]

    def image_features(
        self,
        image: Float[Array, "height width channels"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, " dim"]:
        """The image in the joint space, of any length."""
        if isinstance(self.vision, ConvNet):
            return self.vision(image, key=key, inference=inference)
        y = self.vision.pooled(self.vision.tokens(image, key=key, inference=inference))
        return y if self.image_head is None else self.image_head(y)

    def text_features(self, ids: _check.Ids, *, mask: Bool[Array, " seq"] | None = None) -> Float[Array, " dim"]:
        """The text in the joint space, of any length."""
        return self.text_head(self.text(ids, mask=mask))

    def similarity(
        self, images: Float[Array, "images dim"], texts: Float[Array, "texts dim"]
    ) -> Float[Array, "images texts"]:
        """Logits of all pairs of features, in float32 at least."""
        wide = jnp.promote_types(images.dtype, jnp.float32)
        unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        cosines = jnp.matmul(unit(images.astype(wide)), unit(texts.astype(wide)).T, precision=jax.lax.Precision.HIGHEST)
        logits = jnp.exp(self.logit_scale.astype(wide)) * cosines
        return logits if self.logit_bias is None else logits + self.logit_bias.astype(wide)
