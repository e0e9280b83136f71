"""Denoisers whose x_0 is kept in the range of the data."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.diffusion.guidance.wrapped import Wrapped
from eqxgen.diffusion.solvers.driver import number


class Clipped(Wrapped):
    """x_0 clipped to [-bound, bound] (Ho et al. 2020), or by dynamic thresholding.

    Args:
        denoiser: of the images.
        bound: traced.
        quantile: of |x_0|, in (0, 1], traced: x_0 is clipped to it and divided by it over `bound` where it is larger
            (Saharia et al. 2022, arXiv:2205.11487, section 2.3). None: plain clipping.
    """

    bound: Float[Array, ""] = eqx.field(default=1.0, converter=lambda value: number(value, "bound", 0, jnp.inf))
    quantile: Float[Array, ""] | None = eqx.field(
        default=None, converter=lambda value: None if value is None else number(value, "quantile", 0, 1)
    )

    def __call__(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*shape"]:
        x0 = self.denoiser(x, t, condition, key=key, inference=inference)
        most = self.bound
        if self.quantile is not None:
            most = jnp.maximum(jnp.quantile(jnp.abs(x0), self.quantile), self.bound)
        return jnp.clip(x0, -most, most) * (self.bound / most)
