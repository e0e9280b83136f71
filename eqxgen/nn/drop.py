"""Layers that leave something out while training, so that the rest learns to do without."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check


class Dropout(eqx.Module):
    """Zeroes each entry with probability `rate` and scales the rest by 1 / (1 - rate) (Srivastava et al. 2014).

    Entries are chosen by `eqxgen.ops.dropout_mask`, which rounds the rate to a multiple of 2^-24.

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
            x = jnp.where(ops.dropout_mask(key, x.shape, self.rate), x / (1 - self.rate), jnp.zeros_like(x))
        return x

    def active(self, key: PRNGKeyArray | None, inference: bool | None) -> bool:
        """Whether entries are to be dropped; the error that a key is missing is raised here."""
        return _active(self, "dropout", key, inference)


class DropPath(eqx.Module):
    """Zeroes the whole of an example with probability `rate` and scales the others by 1 / (1 - rate): stochastic depth,
    where it stands at the end of a residual branch (Huang et al. 2016, arXiv:1603.09382; scaled in training rather than
    in use, as today's vision models do).

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


class TokenDrop(eqx.Module):
    """Keeps `count` tokens of a sequence, drawn at random without repetition, in their order: what a masked
    autoencoder's encoder sees (He et al. 2022, arXiv:2111.06377, section 3; MAGE: Li et al. 2023, arXiv:2211.09117,
    section 3.2).

    Args:
        count: how many are kept.

    Raises:
        ValueError: a sequence is shorter than that; or the layer is called in training without a key.
    """

    count: int = eqx.field(static=True)
    inference: bool

    def __init__(self, count: int, *, inference: bool = False, key: PRNGKeyArray | None = None):
        _check.positive(count=count)
        self.count, self.inference = count, inference

    def __call__(
        self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> tuple[Float[Array, "kept dim"], Int[Array, " kept"]]:
        """The tokens that are kept, and their places in x, rising; in inference all of them."""
        if x.ndim != 2 or x.shape[0] < self.count:
            raise ValueError(f"x must be (seq, dim) with a seq of at least count={self.count}: got shape {x.shape}")
        if self.inference if inference is None else inference:
            return x, jnp.arange(x.shape[0])
        if key is None:
            raise ValueError("token drop needs key=... in training: pass one, or inference=True")
        places = jnp.sort(jr.permutation(key, x.shape[0])[: self.count])
        return x[places], places

    def restore(
        self, kept: Float[Array, "kept dim"], places: Int[Array, " kept"], others: Float[Array, "seq dim"]
    ) -> Float[Array, "seq dim"]:
        """The whole sequence again: `kept` at their `places`, and elsewhere `others`, such as a mask's token."""
        return others.astype(kept.dtype).at[places].set(kept)


def _active(layer: Dropout | DropPath, name: str, key: PRNGKeyArray | None, inference: bool | None) -> bool:
    if (layer.inference if inference is None else inference) or layer.rate == 0:
        return False
    if key is None:
        raise ValueError(f"{name} needs key=... in training: pass one, or inference=True")
    return True
