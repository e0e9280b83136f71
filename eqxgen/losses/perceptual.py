"""Perceptual loss: the distance of two images by the features of a network that stays as it is (Johnson et al. 2016,
arXiv:1603.08155).
"""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen


@runtime_checkable
class Distance(Protocol):
    """A net that is a distance itself, such as `eqxgen.models.LPIPS`: it has the maps that it compares."""

    def maps(self, image: Array) -> Any: ...

    def __call__(self, first: Array, second: Array) -> Array: ...


def perceptual_loss(
    net: Any, first: Float[Array, "height width channels"], second: Float[Array, "height width channels"]
) -> Float[Array, ""]:
    """The distance of two images in [-1, 1], in float32 at least: the mean over a net's arrays of features of their
    mean squared difference; of a net without features that is a distance, its own.

    Args:
        net: `eqxgen.models.LPIPS`, or a net with `features(image)`, such as `ConvNet`.

    Raises:
        ValueError: the net has no features.
    """
    if not callable(getattr(net, "features", None)):  # LPIPS has layers of this name
        if isinstance(net, Distance):
            return net(first, second)
        raise ValueError(f"net must be a distance with maps, or have features(image): got {type(net).__name__}")
    one, other = (jax.tree.leaves(net.features(image)) for image in (first, second))
    errors = [jnp.mean((widen(a) - widen(b)) ** 2) for a, b in zip(one, other, strict=True)]
    return jnp.mean(jnp.stack(errors))


def check_perceptual(net: Any, shape: tuple[int, int, int], name: str = "net") -> None:
    """Checks without computing anything that a net takes images of a shape.

    Args:
        shape: height, width and channels.
        name: of the net in the error.

    Raises:
        ValueError: it does not take them.
    """
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        eqx.filter_eval_shape(perceptual_loss, net, image, image)
    except (ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{name} must take images of {shape} (height, width, channels): got a net that refuses them: {reason}"
        ) from None
