"""Dropout of entries, residual branches and tokens in training."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check, _split
from eqxgen.nn._mesh import on_mesh_of, sharded_as


class Dropout(eqx.Module):
    """Zero each entry with probability `rate` and scale the rest by 1 / (1 - rate) (Srivastava et al. 2014).

    The mask is `eqxgen.ops.dropout_mask`, which rounds the rate to a multiple of 2^-24.

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
            mask = sharded_as(ops.dropout_mask(key, x.shape, self.rate, rows=_split.own_rows(x.shape)), x)
            x = jnp.where(mask, x / (1 - self.rate), jnp.zeros_like(x))
        return x

    def active(self, key: PRNGKeyArray | None, inference: bool | None) -> bool:
        """True if entries are dropped. Raises `ValueError` if the key that this needs is missing."""
        return _active(self, "dropout", key, inference)


class DropPath(eqx.Module):
    """Zero a whole example with probability `rate` and scale the others by 1 / (1 - rate): stochastic depth at the end
    of a residual branch (Huang et al. 2016, arXiv:1603.09382; scaled in training and not in inference, as in current
    vision models).

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
            # A selection and not a product, so that a dropped branch may be infinite.
            x = jnp.where(jr.bernoulli(key, 1 - self.rate), x / (1 - self.rate), jnp.zeros_like(x))
        return x


class TokenDrop(eqx.Module):
    """Keep `count` tokens of a sequence, drawn at random without repetition, in their order: the input of a masked
    autoencoder's encoder (He et al. 2022, arXiv:2111.06377, section 3; MAGE: Li et al. 2023, arXiv:2211.09117, section
    3.2).

    Args:
        count: number of tokens kept.

    Raises:
        ValueError: x is not one sequence of at least `count` tokens; or the layer is called in training without a key.
    """

    count: int = eqx.field(static=True)
    inference: bool

    def __init__(self, count: int, *, inference: bool = False, key: PRNGKeyArray | None = None):
        _check.positive(count=count)
        self.count, self.inference = count, inference

    def __call__(
        self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> tuple[Float[Array, "kept dim"], Int[Array, " kept"]]:
        """The kept tokens and their positions in x, in rising order; in inference, all of them."""
        _check.example(x, "seq", "dim")
        if x.shape[0] < self.count:
            raise ValueError(f"x must have at least count={self.count} tokens: got shape {x.shape}")
        if self.inference if inference is None else inference:
            return x, jnp.arange(x.shape[0])
        if key is None:
            raise ValueError("token drop needs key=... in training: pass one, or inference=True")
        places = jnp.sort(jr.permutation(key, x.shape[0])[: self.count])
        with on_mesh_of(x):
            return x[places], places

    def restore(
        self, kept: Float[Array, "kept dim"], places: Int[Array, " kept"], others: Float[Array, "seq dim"]
    ) -> Float[Array, "seq dim"]:
        """The whole sequence: `kept` at `places`, and `others`, such as a mask token, elsewhere."""
        return others.astype(kept.dtype).at[places].set(kept)


def _active(layer: Dropout | DropPath, name: str, key: PRNGKeyArray | None, inference: bool | None) -> bool:
    if (layer.inference if inference is None else inference) or layer.rate == 0:
        return False
    if key is None:
        raise ValueError(f"{name} needs key=... in training: pass one, or inference=True")
    return True
