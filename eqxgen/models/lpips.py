"""Learned perceptual image patch similarity (Zhang et al. 2018, arXiv:1801.03924): AlexNet's, VGG-16's or
SqueezeNet-1.1's feature maps, and a head for each.

The nets are those of torchvision up to their last used map, the heads those of the package lpips 0.1.4. A distance is
LPIPS with these weights alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.metrics.perceptual import perceptual_distance
from eqxgen.nn import Convolution, _check

MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of an image in [-1, 1], by channel."""


class Pool(NamedTuple):
    """A maximum over windows of 3 or 2 pixels with stride 2; `ceil`: windows may reach over the border."""

    window: int
    ceil: bool = False


class Conv(NamedTuple):
    """A convolution with ReLU; `number`: in torchvision's `features`."""

    number: int
    before: int
    after: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


class Fire(NamedTuple):
    """A 1x1 convolution, then a 1x1 and a 3x3 side by side (Iandola et al. 2016, arXiv:1602.07360), each with ReLU."""

    number: int
    before: int
    squeezed: int
    expanded: int


TAP = "tap"
"""A map that is compared."""
Layer = Pool | Conv | Fire | str


def _vgg() -> Iterator[Layer]:
    number, before = 0, 3
    for level, (after, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        if level:
            yield Pool(2)
            number += 1
        for _ in range(count):
            yield Conv(number, before, after)
            number, before = number + 2, after
        yield TAP


NETS: dict[str, tuple[Layer, ...]] = {
    "alex": (
        Conv(0, 3, 64, 11, 4, 2),
        TAP,
        Pool(3),
        Conv(3, 64, 192, 5, 1, 2),
        TAP,
        Pool(3),
        Conv(6, 192, 384),
        TAP,
        Conv(8, 384, 256),
        TAP,
        Conv(10, 256, 256),
        TAP,
    ),
    "vgg": tuple(_vgg()),
    "squeeze": (
        Conv(0, 3, 64, 3, 2, 0),
        TAP,
        Pool(3, True),
        Fire(3, 64, 16, 64),
        Fire(4, 128, 16, 64),
        TAP,
        Pool(3, True),
        Fire(6, 128, 32, 128),
        Fire(7, 256, 32, 128),
        TAP,
        Pool(3, True),
        Fire(9, 256, 48, 192),
        TAP,
        Fire(10, 384, 48, 192),
        TAP,
        Fire(11, 384, 64, 256),
        TAP,
        Fire(12, 512, 64, 256),
        TAP,
    ),
}
"""Layers by name of the net."""
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Least side of an image, below which a map is empty."""


class LPIPS(eqx.Module):
    """Perceptual distance of two images.

    Args:
        net: alex, vgg or squeeze.

    Raises:
        ValueError: another net.
    """

    features: dict[str, Convolution]
    heads: tuple[Float[Array, " channels"], ...]
    net: str = eqx.field(static=True)

    def __init__(self, net: str = "alex", *, key: PRNGKeyArray):
        _check.one_of("net", net, NETS)
        head_key, key = jr.split(key)
        sizes = {name: size for layer in NETS[net] for name, size in convolutions(layer).items()}
        self.features = {
            name: Convolution(before, after, kernel=kernel, stride=stride, padding=padding, key=key)
            for (name, (before, after, kernel, stride, padding)), key in zip(sizes.items(), jr.split(key, len(sizes)))
        }
        widths = [width for layer, width in zip(NETS[net], _widths(NETS[net])) if layer == TAP]
        self.heads = tuple(jr.uniform(key, (w,)) / w for w, key in zip(widths, jr.split(head_key, len(widths))))
        self.net = net

    def maps(self, image: Float[Array, "height width channels"]) -> list[Float[Array, "_ _ _"]]:
        """The maps of an image in [-1, 1] that are compared.

        Raises:
            ValueError: the image has not 3 channels, or is too small for the net.
        """
        _check.image(image, channels=3)
        if min(image.shape[:2]) < SMALLEST[self.net]:
            least = SMALLEST[self.net]
            raise ValueError(f"x must be at least {least} pixels high and wide for {self.net}: got shape {image.shape}")
        mean, deviation = (jnp.asarray(values, image.dtype)[None, None] for values in (MEAN, DEVIATION))
        x, found = (image - mean) / deviation, []
        for layer in NETS[self.net]:
            if isinstance(layer, str):
                found.append(x)
            else:
                x = self._run(layer, x)
        return found

    def __call__(
        self,
        first: Float[Array, "height width channels"],
        second: Float[Array, "rows columns channels"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, ""]:
        """Distance of two images in [-1, 1] of one size.

        Args:
            key: not used; every model has it.
        """
        _check.same_shape(first=first, second=second)
        return perceptual_distance(self.maps(first), self.maps(second), self.heads)

    def _run(self, layer: Pool | Conv | Fire, x: Array) -> Array:
        relu = lambda name, x: jax.nn.relu(self.features[name](x))
        if isinstance(layer, Pool):
            return _pooled(x, layer)
        if isinstance(layer, Conv):
            return relu(f"{layer.number}", x)
        x = relu(f"{layer.number}.squeeze", x)
        return jnp.concatenate([relu(f"{layer.number}.expand{side}x{side}", x) for side in (1, 3)], axis=-1)


def convolutions(layer: Layer) -> dict[str, tuple[int, int, int, int, int]]:
    """Channels in and out, kernel, stride and padding of each convolution of a layer, by torchvision's name."""
    if isinstance(layer, Conv):
        return {f"{layer.number}": layer[1:]}
    if isinstance(layer, Fire):
        number, before, squeezed, expanded = layer
        return {
            f"{number}.squeeze": (before, squeezed, 1, 1, 0),
            f"{number}.expand1x1": (squeezed, expanded, 1, 1, 0),
            f"{number}.expand3x3": (squeezed, expanded, 3, 1, 1),
        }
    return {}


def _widths(layers: tuple[Layer, ...]) -> Iterator[int]:
    """Channels after each layer."""
    width = 3
    for layer in layers:
        width = layer.after if isinstance(layer, Conv) else 2 * layer.expanded if isinstance(layer, Fire) else width
        yield width


def _pooled(x: Array, pool: Pool) -> Array:
    more = [-(side - pool.window) % 2 if pool.ceil else 0 for side in x.shape[:2]]
    window = (pool.window, pool.window, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (2, 2, 1), ((0, more[0]), (0, more[1]), (0, 0)))
