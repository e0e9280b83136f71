"""Nets that judge reconstructions: the discriminator, the perceptual net's weights, checks of both against images."""

from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array

from eqxgen.losses.perceptual import check_perceptual
from eqxgen.models import LPIPS, Discriminator, Inception, PatchDiscriminator
from eqxgen.nn import synchronised
from eqxgen.pretrained import inception, lpips_net

from ..._errors import UsageError, UserError
from ...engine.recipe import Context
from ..facts import ImageFacts


def check_discriminator(config: Any, facts: ImageFacts) -> None:
    """Raises `UsageError` where the discriminator cannot take the images."""
    height, width, _ = facts.shape
    if not config.adversarial:
        return
    if config.critic == "style":
        if height != width:
            raise UsageError(f"--critic style must have square images: got {facts.shape}; --critic patch takes any")
        return

    def run(image: Any) -> Any:
        return logits(discriminator_of(config, facts, jr.key(0)), image, image[:, 0, 0, 0], Context())

    try:
        eqx.filter_eval_shape(run, jax.ShapeDtypeStruct((2, *facts.shape), "float32"))
    except ValueError:
        raise UsageError(
            f"--critic-layers: {config.critic_layers} halvings leave no patch of images of {facts.shape}: give fewer"
        ) from None


def discriminator_of(config: Any, facts: ImageFacts, key: Any) -> Any:
    """The discriminator of a config."""
    height, _, channels = facts.shape
    if config.critic == "style":
        return Discriminator(height, channels, width=config.critic_width, key=key)
    options = {"width": config.critic_width, "layers": config.critic_layers, "norm": config.critic_norm}
    return PatchDiscriminator(channels, **options, key=key)


def logits(discriminator: Any, images: Array, weight: Array, context: Context) -> Array:
    """Of each image, or of each of its patches; a norm of the batch is of the whole batch over devices."""
    if isinstance(discriminator, Discriminator):
        return jax.vmap(discriminator)(images)
    own = synchronised(discriminator, context.axes)
    # Statistics of the batch alone: the running ones serve inference, which a run never makes.
    one = lambda image, weight: own(image, own.init_state(), weight=weight)[0]
    return jax.vmap(one, axis_name="batch")(images, weight)


def perceptual_net(config: Any, facts: ImageFacts) -> Any:
    """The frozen perceptual net of a config, or None; without weights for a dry run.

    Raises:
        UserError: its file is missing, damaged or of another net.
        UsageError: it does not take images of this shape.
    """
    if not config.perceptual:
        return None
    net = _drawn(config.perceptual_name) if config.on_paper else _read(config.perceptual_net, config.perceptual_name)
    try:
        check_perceptual(net, facts.shape, f"--perceptual-name {config.perceptual_name}")
    except ValueError as error:
        raise UsageError(str(error)) from None
    return net


def _drawn(name: str) -> Any:
    return Inception(key=jr.key(0)) if name == "inception" else LPIPS(name, key=jr.key(0))


def _read(where: str, name: str) -> Any:
    try:
        if name == "inception":
            return inception.from_pretrained(where)
        return lpips_net.from_pretrained(where, config={"net": name})
    except (ValueError, OSError) as error:
        raise UserError(f"--perceptual-net {error}") from None
