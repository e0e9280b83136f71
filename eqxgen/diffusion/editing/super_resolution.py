"""Super-resolution: a network that is given a small image beside x."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


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
