"""Super-resolution: by a network that is given a small image beside x, and by any denoiser."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import reduce, repeat
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.diffusion.guidance.wrapped import Wrapped
from eqxgen.diffusion.solvers.driver import memory_of


class Upsampled(eqx.Module):
    """A network of twice the channels, as a network whose condition is `(small image, condition)`.

    The small image is enlarged to the size of x and joined to its channels (Saharia et al. 2021, arXiv:2104.07636;
    Dhariwal and Nichol 2021, whose upsamplers enlarge bilinearly). Wrap it by a preconditioner as any network.

    Args:
        net: its input has the channels of x and of the small image.
        method: of `jax.image.resize`.
    """

    net: Any
    method: str = eqx.field(static=True, default="bilinear")

    @property
    def null_label(self) -> Any:
        """The network's label of no class."""
        return self.net.null_label

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        time: Float[Array, ""],
        condition: tuple[Float[Array, "small_height small_width small_channels"], Any],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width out"]:
        """What the network gives.

        Args:
            x: scaled and noised image.
            time: c_noise.
            condition: the small image in [-1, 1], and the network's own condition or None.

        Raises:
            ValueError: the small image is larger than x.
        """
        small, inner = condition
        if small.shape[0] > x.shape[0] or small.shape[1] > x.shape[1]:
            raise ValueError(f"the small image must be at most as large as x, {x.shape[:2]}: got {small.shape[:2]}")
        large = jax.image.resize(small, (*x.shape[:2], small.shape[2]), self.method).astype(x.dtype)
        return self.net(jnp.concatenate([x, large], -1), time, inner, key=key, inference=inference)


class NullSpace(Wrapped):
    """Super-resolution by any denoiser: x_0 whose means over blocks are the pixels of a small image.

    The denoiser gives the rest, in the null space of the means: x_0 + enlarged(small - means(x_0)). A solver that ends
    in x_0 keeps the small image to rounding. Source: Wang et al. 2023, arXiv:2212.00490, section 3.2, without its
    repeated passes.

    Args:
        denoiser: of images of a whole multiple of the small image's sides, the same in both.
        small: in [-1, 1], traced.
    """

    small: Float[Array, "small_height small_width channels"]

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width channels"]:
        """x_0.

        Raises:
            ValueError: the sides of x are not the same multiple of those of the small image.
        """
        return self._restored(self.denoiser(x, t, condition, key=key, inference=inference))

    def memory(self, x: Float[Array, "height width channels"]) -> Float[Array, "height width _"] | None:
        """What the denoiser remembers before the first step; None: nothing ever."""
        return memory_of(self.denoiser, x)

    def recall(
        self,
        x: Float[Array, "height width channels"],
        t: Float[Array, ""],
        condition: Any,
        memory: Float[Array, "height width _"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "height width channels"], Float[Array, "height width _"]]:
        """x_0, and the denoiser's memory for the next step."""
        x0, memory = self.denoiser.recall(x, t, condition, memory, key=key, inference=inference)
        return self._restored(x0), memory

    def _restored(self, x0: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
        factor = factor_of(self.small.shape[:2], x0.shape[:2])
        means = reduce(x0, "(h a) (w b) c -> h w c", "mean", a=factor, b=factor)
        return x0 + repeat((self.small - means).astype(x0.dtype), "h w c -> (h a) (w b) c", a=factor, b=factor)


def factor_of(small: tuple[int, ...], sides: tuple[int, ...]) -> int:
    """Pixels on a side of a block that is a pixel of the small image.

    Raises:
        ValueError: the sides are not the same multiple, at least twice, of those of the small image.
    """
    factor = sides[0] // max(small[0], 1)
    if factor < 2 or tuple(side * factor for side in small) != tuple(sides):
        by = " x ".join(map(str, sides))
        raise ValueError(
            f"the small image must have the sides {by} divided by the same number, at least 2: got "
            f"{' x '.join(map(str, small))}"
        )
    return factor
