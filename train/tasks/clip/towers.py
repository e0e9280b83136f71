"""Towers of `train.clip` behind one interface, and functions of one example that embed it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.configs import CLIPConfig
from eqxgen.losses.contrastive import LARGEST_SCALE, sigmoid_bias
from eqxgen.models import CLIP

from ..._errors import UsageError
from ..classify.nets import NORMALISED, normalised
from ..facts import PairFacts


class NormalisedCLIP(eqx.Module):
    """A model of images and texts that is given images in [-1, 1] as its own normalisation wants them.

    Args:
        model: called on the normalised image.
        mean, deviation: of each channel, of pixels in [0, 1].
    """

    model: CLIP
    mean: tuple[float, ...] = eqx.field(static=True)
    deviation: tuple[float, ...] = eqx.field(static=True)

    @property
    def published(self) -> CLIP:
        """The model as published files have it, which leave pixels to the caller."""
        return self.model

    def image_features(
        self,
        image: Float[Array, "height width channels"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, " dim"]:
        """The image in the joint space, of any length."""
        return self.model.image_features(normalised(image, self.mean, self.deviation), key=key, inference=inference)

    def text_features(self, ids: Int[Array, " seq"]) -> Float[Array, " dim"]:
        """The text in the joint space, of any length."""
        return self.model.text_features(ids)

    def similarity(
        self, images: Float[Array, "images dim"], texts: Float[Array, "texts dim"]
    ) -> Float[Array, "images texts"]:
        """Logits of all pairs of features."""
        return self.model.similarity(images, texts)


def make_net(config: Any, facts: PairFacts, key: PRNGKeyArray) -> CLIP:
    """The model of a config of `train.clip`. The first bias of SigLIP's logits is that of the batch.

    Raises:
        UsageError: the images do not suit it.
    """
    height, width, channels = facts.shape
    if config.normalise != "none" and channels != 3:
        raise UsageError(f"--normalise {config.normalise}: must have images of 3 channels: got {channels}")
    patch = config.vit.patch
    if config.backbone == "vit" and (height % patch or width % patch):
        raise UsageError(f"--vit.patch {patch} must divide the sides of the images: got {height} x {width}")
    net = CLIP(height, width, channels, facts.vocab, sizes_of(config), key=key)
    if net.logit_bias is None:
        return net
    return eqx.tree_at(lambda net: net.logit_bias, net, jnp.asarray(sigmoid_bias(config.batch_size)))


def sizes_of(config: Any) -> CLIPConfig:
    """Sizes of the model of a config."""
    vision = config.vit if config.backbone == "vit" else config.conv
    return CLIPConfig(vision, config.text, config.dim, sigmoid=config.objective == "siglip")


def released(config: Any, net: CLIP) -> Any:
    """The model as it matches images in [-1, 1], without dropout."""
    whole = eqx.nn.inference_mode(net)
    return whole if config.normalise == "none" else NormalisedCLIP(whole, *NORMALISED[config.normalise])


def clamped(net: CLIP) -> CLIP:
    """The model with a scale of at most 100, as CLIP's after each update. Parts may be None."""
    if net.logit_scale is None:
        return net
    return eqx.tree_at(lambda net: net.logit_scale, net, jnp.minimum(net.logit_scale, LARGEST_SCALE))


def image_of(model: Any, example: dict[str, Array]) -> Float[Array, " dim"]:
    """Unit feature of the `image` of an example, in float32 at least."""
    return unit(model.image_features(example["image"]))


def text_of(model: Any, example: dict[str, Array]) -> Float[Array, " dim"]:
    """Unit feature of the `text` of an example, in float32 at least."""
    return unit(model.text_features(example["text"]))


def unit(x: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """The vector of length 1, in float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x / jnp.linalg.norm(x)
