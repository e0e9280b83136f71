"""Inception-v3 (Szegedy et al. 2016, arXiv:1512.00567) in the form of the Fréchet inception distance (Heusel et al.
2017, arXiv:1706.08500): the TensorFlow graph of 2015 with 1,008 outputs, as the package pytorch-fid rebuilds it.

It differs from the graph of torchvision: average pools leave the padding out, the last block pools by the maximum.
Batch norms are those of inference. Its own weights make a Fréchet distance an FID.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import Projection, _check

EPSILON = 1e-3
FEATURES, OUTPUTS, SIDE = 2048, 1008, 299
SPATIAL = 7  # channels


class Unit(eqx.Module):
    """A convolution without bias, batch norm of inference and ReLU."""

    weight: Float[Array, "height width in_channels out_channels"]
    scale: Float[Array, " out_channels"]
    bias: Float[Array, " out_channels"]
    mean: Float[Array, " out_channels"]
    variance: Float[Array, " out_channels"]
    stride: int = eqx.field(static=True)
    padding: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        key: PRNGKeyArray,
    ):
        init = jax.nn.initializers.he_normal(in_axis=-2, out_axis=-1)
        self.weight = init(key, (*kernel, in_channels, out_channels), jnp.float32)
        self.scale, self.bias = jnp.ones(out_channels), jnp.zeros(out_channels)
        self.mean, self.variance = jnp.zeros(out_channels), jnp.ones(out_channels)
        self.stride, self.padding = stride, padding

    def __call__(self, x: Float[Array, "height width in_channels"]) -> Float[Array, "rows columns out_channels"]:
        rows, columns = self.padding
        y = jax.lax.conv_general_dilated(
            x[None],
            self.weight,
            (self.stride, self.stride),
            ((rows, rows), (columns, columns)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[0]
        factor = self.scale * jax.lax.rsqrt(self.variance + EPSILON)
        shift = self.bias - self.mean * factor
        return jax.nn.relu(y * factor.astype(y.dtype)[None, None] + shift.astype(y.dtype)[None, None])


# Name of a unit: channels in and out, kernel, stride, padding.
Size = tuple[int, int, tuple[int, int], int, tuple[int, int]]


def _unit(
    before: int, after: int, rows: int = 1, columns: int | None = None, stride: int = 1, pad: bool = True
) -> Size:
    kernel = rows, rows if columns is None else columns
    return before, after, kernel, stride, tuple((side - 1) // 2 if pad else 0 for side in kernel)  # type: ignore


def _sizes() -> dict[str, Size]:
    sizes = {
        "Conv2d_1a_3x3": _unit(3, 32, 3, stride=2, pad=False),
        "Conv2d_2a_3x3": _unit(32, 32, 3, pad=False),
        "Conv2d_2b_3x3": _unit(32, 64, 3),
        "Conv2d_3b_1x1": _unit(64, 80),
        "Conv2d_4a_3x3": _unit(80, 192, 3, pad=False),
    }
    blocks: dict[str, dict[str, Size]] = {}
    for name, width, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        blocks[name] = {
            "branch1x1": _unit(width, 64),
            "branch5x5_1": _unit(width, 48),
            "branch5x5_2": _unit(48, 64, 5),
            "branch3x3dbl_1": _unit(width, 64),
            "branch3x3dbl_2": _unit(64, 96, 3),
            "branch3x3dbl_3": _unit(96, 96, 3),
            "branch_pool": _unit(width, pooled),
        }
    blocks["6a"] = {
        "branch3x3": _unit(288, 384, 3, stride=2, pad=False),
        "branch3x3dbl_1": _unit(288, 64),
        "branch3x3dbl_2": _unit(64, 96, 3),
        "branch3x3dbl_3": _unit(96, 96, 3, stride=2, pad=False),
    }
    for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        blocks[name] = {
            "branch1x1": _unit(768, 192),
            "branch7x7_1": _unit(768, inner),
            "branch7x7_2": _unit(inner, inner, 1, 7),
            "branch7x7_3": _unit(inner, 192, 7, 1),
            "branch7x7dbl_1": _unit(768, inner),
            "branch7x7dbl_2": _unit(inner, inner, 7, 1),
            "branch7x7dbl_3": _unit(inner, inner, 1, 7),
            "branch7x7dbl_4": _unit(inner, inner, 7, 1),
            "branch7x7dbl_5": _unit(inner, 192, 1, 7),
            "branch_pool": _unit(768, 192),
        }
    blocks["7a"] = {
        "branch3x3_1": _unit(768, 192),
        "branch3x3_2": _unit(192, 320, 3, stride=2, pad=False),
        "branch7x7x3_1": _unit(768, 192),
        "branch7x7x3_2": _unit(192, 192, 1, 7),
        "branch7x7x3_3": _unit(192, 192, 7, 1),
        "branch7x7x3_4": _unit(192, 192, 3, stride=2, pad=False),
    }
    for name, width in (("7b", 1280), ("7c", 2048)):
        blocks[name] = {
            "branch1x1": _unit(width, 320),
            "branch3x3_1": _unit(width, 384),
            "branch3x3_2a": _unit(384, 384, 1, 3),
            "branch3x3_2b": _unit(384, 384, 3, 1),
            "branch3x3dbl_1": _unit(width, 448),
            "branch3x3dbl_2": _unit(448, 384, 3),
            "branch3x3dbl_3a": _unit(384, 384, 1, 3),
            "branch3x3dbl_3b": _unit(384, 384, 3, 1),
            "branch_pool": _unit(width, 192),
        }
    return sizes | {f"Mixed_{block}.{name}": size for block, units in blocks.items() for name, size in units.items()}


SIZES = _sizes()


class Inception(eqx.Module):
    """Features of one image for the Fréchet inception distance."""

    units: dict[str, Unit]
    head: Projection

    def __init__(self, *, key: PRNGKeyArray):
        keys = jr.split(key, len(SIZES) + 1)
        self.units = {
            name: Unit(before, after, kernel, stride=stride, padding=padding, key=key)
            for (name, (before, after, kernel, stride, padding)), key in zip(SIZES.items(), keys)
        }
        self.head = Projection(FEATURES, OUTPUTS, key=keys[-1])

    def __call__(
        self, image: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " outputs"]:
        """Logits of an image in [-1, 1].

        Args:
            key: not used; every model has it.
        """
        return self.head(self.features(image))

    def judged(
        self, image: Float[Array, "height width channels"]
    ) -> tuple[Float[Array, " features"], Float[Array, " places"], Float[Array, " outputs"]]:
        """The features, the spatial features and the logits of an image in [-1, 1], as scores of samples have them.

        The spatial ones are the first 7 channels of a branch in the middle, 17 x 17 (sFID: Nash et al. 2021,
        arXiv:2103.03841). The logits are without the bias, which the graph of 2015 leaves out of its Inception score.
        """
        maps, middle = self._maps(image, resize=True)
        features = jnp.mean(maps, axis=(0, 1))
        return features, middle[..., :SPATIAL].ravel(), self.head.weight @ features

    def features(
        self, image: Float[Array, "height width channels"], *, resize: bool = True
    ) -> Float[Array, " features"]:
        """The 2,048 numbers of the last pool, of which the Fréchet inception distance is made.

        Args:
            image: in [-1, 1].
            resize: brings both sides to 299 by interpolation between pixel centres, without a filter.

        Raises:
            ValueError: the image has not 3 channels, or is smaller than 75 pixels along a side and not resized.
        """
        return jnp.mean(self.maps(image, resize=resize), axis=(0, 1))

    def maps(
        self, image: Float[Array, "height width channels"], *, resize: bool = True
    ) -> Float[Array, "rows columns features"]:
        """The maps before the last pool; see `features`."""
        return self._maps(image, resize=resize)[0]

    def _maps(self, image: Array, *, resize: bool) -> tuple[Array, Array]:
        """The maps before the last pool, and those of a branch in the middle."""
        _check.image(image, channels=3)
        if not resize and min(image.shape[:2]) < 75:
            raise ValueError(f"x must be at least 75 pixels high and wide, or be resized: got shape {image.shape}")
        x = jax.image.resize(image, (SIDE, SIDE, 3), "bilinear", antialias=False) if resize else image
        for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
            x = self.units[name](x)
        x = _max(x, 2)
        for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
            x = self.units[name](x)
        x = _max(x, 2)
        for name in ("5b", "5c", "5d"):
            x = self._a(f"Mixed_{name}", x)
        x = self._joined("Mixed_6a", x, "branch3x3", "branch3x3dbl")
        middle = x
        for name in ("6b", "6c", "6d", "6e"):
            middle = self.units["Mixed_6d.branch1x1"](x) if name == "6d" else middle
            x = self._joined(f"Mixed_{name}", x, "branch1x1", "branch7x7", "branch7x7dbl", pooled=_mean(x))
        x = self._joined("Mixed_7a", x, "branch3x3", "branch7x7x3")
        x = self._e("Mixed_7b", x, _mean(x))
        return self._e("Mixed_7c", x, _max(x, 1)), middle

    def _a(self, block: str, x: Array) -> Array:
        return self._joined(block, x, "branch1x1", "branch5x5", "branch3x3dbl", pooled=_mean(x))

    def _joined(self, block: str, x: Array, *branches: str, pooled: Array | None = None) -> Array:
        """Branches side by side; the last is of the pooled input, which halves the size where no unit follows it."""
        last = _max(x, 2) if pooled is None else self.units[f"{block}.branch_pool"](pooled)
        return jnp.concatenate([*(self._branch(f"{block}.{name}", x) for name in branches), last], axis=-1)

    def _branch(self, name: str, x: Array) -> Array:
        for unit in [self.units[name]] if name in self.units else self._numbered(name):
            x = unit(x)
        return x

    def _numbered(self, name: str) -> list[Unit]:
        return [self.units[f"{name}_{i}"] for i in range(1, 6) if f"{name}_{i}" in self.units]

    def _e(self, block: str, x: Array, pooled: Array) -> Array:
        unit = lambda name, x: self.units[f"{block}.{name}"](x)
        first = unit("branch3x3_1", x)
        second = unit("branch3x3dbl_2", unit("branch3x3dbl_1", x))
        parts = [
            unit("branch1x1", x),
            unit("branch3x3_2a", first),
            unit("branch3x3_2b", first),
            unit("branch3x3dbl_3a", second),
            unit("branch3x3dbl_3b", second),
            unit("branch_pool", pooled),
        ]
        return jnp.concatenate(parts, axis=-1)


def _max(x: Array, stride: int) -> Array:
    """Maximum of each 3 x 3 window; with padding where the size is kept."""
    pad = ((1, 1), (1, 1), (0, 0)) if stride == 1 else "VALID"
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3, 3, 1), (stride, stride, 1), pad)


def _mean(x: Array) -> Array:
    """Mean of each 3 x 3 window of the same size, without the padding."""
    add = lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (3, 3, 1), (1, 1, 1), ((1, 1), (1, 1), (0, 0)))
    return add(x) / add(jnp.ones_like(x[..., :1]))
