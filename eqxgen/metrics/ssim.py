"""Structural similarity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqxgen.metrics.mean import Mean
from eqxgen.nn import _check

_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def ssim(
    first: Float[Array, "height width channels"],
    second: Float[Array, "height width channels"],
    data_range: float = 2.0,
    *,
    window: int = _WINDOW,
    sigma: float = _SIGMA,
    reflect: bool = False,
) -> Float[Array, ""]:
    """Mean over positions and channels of the structural similarity of two images, at most 1.

    Gaussian windows within the image, K1 = 0.01, K2 = 0.03, variances that divide by the windows' weight: the
    definition of the paper, and of scikit-image with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`.
    At least float32; float64 where the images are.

    Args:
        reflect: a window at every pixel, of images that are reflected at their borders, as torchmetrics 1.9 has it.
        data_range: largest less smallest value that an image can have, 2 for images in [-1, 1].

    Raises:
        ValueError: shapes that differ, images smaller than a window, an even window, a range or sigma not above 0.

    Source: Wang et al. 2004 (Image quality assessment, equation 13).
    """
    _check.same_shape(first=first, second=second)
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and at least 1: got {window}")
    if min(first.shape[:2]) < window:
        raise ValueError(f"first must be at least as large as the window of {window}: got {first.shape[:2]}")
    if not (data_range > 0 and sigma > 0):
        raise ValueError(f"data_range and sigma must be above 0: got {data_range} and {sigma}")
    dtype = jnp.promote_types(jnp.result_type(first, second), jnp.float32)
    x, y = first.astype(dtype), second.astype(dtype)
    if reflect:
        sides = ((window // 2, window // 2), (window // 2, window // 2), (0, 0))
        x, y = (jnp.pad(image, sides, mode="reflect") for image in (x, y))
    centre = jax.lax.stop_gradient(jnp.mean(x + y, axis=(0, 1), keepdims=True) / 2)  # against cancellation
    u, v = x - centre, y - centre
    blur = lambda image: _blurred(image, window, sigma)
    mean_u, mean_v = blur(u), blur(v)
    var_x, var_y = blur(u * u) - mean_u**2, blur(v * v) - mean_v**2
    cov = blur(u * v) - mean_u * mean_v
    mean_x, mean_y = mean_u + centre, mean_v + centre
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return jnp.mean(luminance * (2 * cov + c2) / (var_x + var_y + c2))


def _blurred(image: Float[Array, "h w c"], window: int, sigma: float) -> Float[Array, "h2 w2 c"]:
    places = np.arange(window) - window // 2
    weights = np.exp(-(places**2) / (2 * sigma**2))
    kernel = jnp.asarray(weights / weights.sum(), image.dtype)
    nothing = jnp.zeros((), image.dtype)
    rows = sum((kernel[i] * image[i : image.shape[0] - window + 1 + i] for i in range(window)), nothing)
    return sum((kernel[i] * rows[:, i : image.shape[1] - window + 1 + i] for i in range(window)), nothing)


class SSIM(NamedTuple):
    """Mean over images of their structural similarity, in float64."""

    values: Mean = Mean()

    def update(self, similarities: Float[np.ndarray, " n"]) -> "SSIM":
        """With more images, of which each has one `ssim`."""
        return self._make((self.values.update(similarities),))

    def merge(self, other: "SSIM") -> "SSIM":
        """With what another one has seen."""
        return self._make((self.values.merge(other.values),))

    def result(self) -> float:
        """The mean, at most 1."""
        return self.values.result()
