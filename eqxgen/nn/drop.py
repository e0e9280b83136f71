"""Layers that leave something out while training, so that the rest learns to do without."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check


class Dropout(eqx.Module):
    """Zeroes each entry with probability `rate` and scales the rest by 1 / (1 - rate) (Srivastava et al. 2014).

    Raises:
        ValueError: `rate` is outside [0, 1); or the layer is called in training without a key.
    """

    rate: float = eqx.field(static=True)
    inference: bool

    def __init__(self, rate: float = 0.5, *, inference: bool = False, key: PRNGKeyArray | None = None):
        _check.rate(rate=rate)
        self.rate, self.inference = rate, inference

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None, inference: bool | None = None) -> Array:
        if self.active(key, inference) and key is not None:
            keep = jr.bernoulli(key, 1 - self.rate, x.shape)
            x = jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))
        return x

    def active(self, key: PRNGKeyArray | None, inference: bool | None) -> bool:
        """Whether entries are to be dropped; the error that a key is missing is raised here."""
        return _active(self, "dropout", key, inference)


class DropPath(eqx.Module):
    """Zeroes the whole of an example with probability `rate` and scales the others by 1 / (1 - rate): stochastic depth, where it stands
    at the end of a residual branch (Huang et al. 2016, arXiv:1603.09382; scaled in training rather than in use, as today's vision models do).

    Raises:
        ValueError: `rate` is outside [0, 1); or the layer is called in training without a key.
    """

    rate: float = eqx.field(static=True)
    inference: bool

    def __init__(self, rate: float = 0.1, *, inference: bool = False, key: PRNGKeyArray | None = None):
        _check.rate(rate=rate)
        self.rate, self.inference = rate, inference

    def __call__(
        self, x: Float[Array, "*shape"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*shape"]:
        if _active(self, "drop path", key, inference) and key is not None:
            # A choice and not a product, so that what is dropped may be infinite.
            x = jnp.where(jr.bernoulli(key, 1 - self.rate), x / (1 - self.rate), jnp.zeros_like(x))
        return x


def _active(layer: Dropout | DropPath, name: str, key: PRNGKeyArray | None, inference: bool | None) -> bool:
    if (layer.inference if inference is None else inference) or layer.rate == 0:
        return False
    if key is None:
        raise ValueError(f"{name} needs key=... in training: pass one, or inference=True")
    return True
