"""Nets of image classifiers behind one call, and their released form."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqxgen.models import ConvNet, ResNet, ViT
from eqxgen.nn import WithState, synchronised

from ..._errors import UsageError
from ...params.paths import named_arrays
from ..facts import ClassifierFacts
from .of_mage import net_of_mage

NORMALISED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and deviation of each channel of pixels in [0, 1] that published models expect, by name."""


class Normalised(eqx.Module):
    """A net that is given images in [-1, 1] as its own normalisation wants them.

    Args:
        model: called on the normalised image.
        mean, deviation: of each channel, of pixels in [0, 1].
    """

    model: Any
    mean: tuple[float, ...] = eqx.field(static=True)
    deviation: tuple[float, ...] = eqx.field(static=True)

    @property
    def published(self) -> Any:
        """The net as files of published models have it, which leave pixels to the caller."""
        return self.model

    def __call__(self, image: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None) -> Array:
        return self.model(normalised(image, self.mean, self.deviation), key=key)


def normalised(
    images: Float[Array, "*batch height width channels"], mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Float[Array, "*batch height width channels"]:
    """Images in [-1, 1] less the mean, over the deviation, both of pixels in [0, 1]."""
    shape = (1,) * (images.ndim - 1) + (-1,)
    array = lambda values: jnp.asarray(values, images.dtype).reshape(shape)
    return (images + 1 - 2 * array(mean)) / (2 * array(deviation))


def make_net(config: Any, facts: ClassifierFacts, key: PRNGKeyArray) -> Any:
    """The net of a config of `train.classify`.

    Raises:
        UsageError: the images do not suit it.
    """
    height, width, channels = facts.shape
    if config.normalise != "none" and channels != 3:
        raise UsageError(f"--normalise {config.normalise}: must have images of 3 channels: got {channels}")
    if config.backbone == "resnet":
        return ResNet(channels, facts.classes, config.model, key=key)
    if config.backbone == "mage":
        return net_of_mage(facts, key)
    if config.backbone == "conv":
        return ConvNet(channels, facts.classes, **dataclasses.asdict(config.conv), key=key)
    if height % config.vit.patch or width % config.vit.patch:
        raise UsageError(f"--vit.patch {config.vit.patch} must divide the sides of the images: got {height} x {width}")
    return ViT(height, width, channels, facts.classes, config.vit, key=key)


def logits_of(
    config: Any,
    net: Any,
    state: PyTree,
    batch: dict[str, Array],
    keys: Array,
    axes: tuple[str, ...],
) -> tuple[Float[Array, "batch classes"], PyTree]:
    """Logits of a batch in training, and the state of batch norms after it.

    Args:
        axes: mesh axes over which the batch is split.
    """
    images = batch["image"]
    if config.normalise != "none":
        images = normalised(images, *NORMALISED[config.normalise])
    if not hasattr(net, "init_state"):
        return jax.vmap(lambda image, key: net(image, key=key))(images, keys), state
    run = lambda image, weight, key: synchronised(net, axes)(image, state, weight=weight, key=key)
    return jax.vmap(run, out_axes=(0, None), axis_name="batch")(images, batch["weight"], keys)


def trained(make: Callable[[PRNGKeyArray], Any], fixed: Sequence[str]) -> tuple[str, ...]:
    """Fields of a net that have parameters, but for fixed ones."""
    paths = named_arrays(eqx.filter_eval_shape(make, jr.key(0)))
    return tuple(sorted({path.partition(".")[0] for path in paths} - set(fixed)))


def init_state(net: Any) -> PyTree:
    """State of the batch norms of a net; None where it has none."""
    return net.init_state() if hasattr(net, "init_state") else None


def released(config: Any, net: Any, state: PyTree) -> Any:
    """The net as it classifies: image in [-1, 1] -> logits, without dropout."""
    whole = WithState(net, state) if hasattr(net, "init_state") else eqx.nn.inference_mode(net)
    return whole if config.normalise == "none" else Normalised(whole, *NORMALISED[config.normalise])


def inner(model: Any) -> Any:
    """The net within a released model."""
    model = model.model if isinstance(model, Normalised) else model
    return model.model if isinstance(model, WithState) else model
