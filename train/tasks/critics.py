"""Nets that judge a tokenizer: the perceptual net's weights, and checks of both against the images."""

from typing import Any

from .._errors import UsageError, UserError
from .facts import ImageFacts


def check_discriminator(config: Any, facts: ImageFacts) -> None:
    """Raises `UsageError` where the discriminator cannot take the images."""
    import equinox as eqx
    import jax
    import jax.random as jr

    from .objective import Objective, discriminator_of

    height, width, _ = facts.shape
    if not config.adversarial:
        return
    if config.critic == "style":
        if height != width:
            raise UsageError(f"--critic style must have square images: got {facts.shape}; --critic patch takes any")
        return

    def run(image: Any) -> Any:
        from ..engine.recipe import Context

        critic = discriminator_of(config, facts, jr.key(0))
        return Objective(config).logits(critic, image, image[:, 0, 0, 0], Context())

    try:
        eqx.filter_eval_shape(run, jax.ShapeDtypeStruct((2, *facts.shape), "float32"))
    except ValueError:
        raise UsageError(
            f"--critic-layers: {config.critic_layers} halvings leave no patch of images of {facts.shape}: give fewer"
        ) from None


def perceptual_net(config: Any, facts: ImageFacts) -> Any:
    """The frozen perceptual net of a config, or None; without weights for a dry run.

    Raises:
        UserError: its file is missing, damaged or of another net.
        UsageError: it does not take images of this shape.
    """
    if not config.perceptual:
        return None
    from eqxgen.losses.perceptual import check_perceptual

    net = _drawn(config.perceptual_name) if config.on_paper else _read(config.perceptual_net, config.perceptual_name)
    try:
        check_perceptual(net, facts.shape, f"--perceptual-name {config.perceptual_name}")
    except ValueError as error:
        raise UsageError(str(error)) from None
    return net


def _drawn(name: str) -> Any:
    import jax.random as jr

    from eqxgen.models import LPIPS, Inception

    return Inception(key=jr.key(0)) if name == "inception" else LPIPS(name, key=jr.key(0))


def _read(where: str, name: str) -> Any:
    from eqxgen.pretrained import inception, lpips_net

    try:
        if name == "inception":
            return inception.from_pretrained(where)
        return lpips_net.from_pretrained(where, config={"net": name})
    except (ValueError, OSError) as error:
        raise UserError(f"--perceptual-net {error}") from None
