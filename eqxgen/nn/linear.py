"""Affine maps and embedding tables."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._check import ids as check_ids  # noqa: F401 - imported by the models
from eqxgen.nn._mesh import summed, take_rows

Initializer = jax.nn.initializers.Initializer

torch_uniform: Initializer = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2)
"""Uniform in ±1/sqrt(fan_in) for weights of shape (out, in): the default of torch and Equinox."""


class Projection(eqx.Module):
    """`x @ weight.T + bias` over the last axis.

    Args:
        in_dim: size of the last axis of the input.
        out_dim: size of the last axis of the output.
        bias: adds a bias, zero at initialisation.
        init: a `jax.nn.initializers` function for the weight, of shape `(out_dim, in_dim)`. By default uniform in
            ±1/sqrt(in_dim).
    """

    weight: Float[Array, "out_dim in_dim"]
    bias: Float[Array, " out_dim"] | None
    in_dim: int = eqx.field(static=True)
    out_dim: int = eqx.field(static=True)

    def __init__(
        self, in_dim: int, out_dim: int, *, bias: bool = True, init: Initializer = torch_uniform, key: PRNGKeyArray
    ):
        _check.positive(in_dim=in_dim, out_dim=out_dim)
        self.weight = init(key, (out_dim, in_dim), jnp.float32)
        self.bias = jnp.zeros(out_dim) if bias else None
        self.in_dim, self.out_dim = int(in_dim), int(out_dim)

    def __call__(
        self, x: Float[Array, "*leading in_dim"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*leading out_dim"]:
        _check.last_axis(x, "in_dim", self.in_dim)
        y = times_rows(x, self.weight)
        return y if self.bias is None else y + _expand(self.bias.astype(x.dtype), y)


class Embedding(eqx.Module):
    """A table of vectors, looked up by gathering.

    Ids outside [0, vocab) are an error where their values are known. Inside a compiled program they give NaN, so that
    the loss shows them; JAX's own indexing would clamp them silently.

    Args:
        vocab: number of rows.
        dim: size of each row.
        init: a `jax.nn.initializers` function for the table. By default normal with deviation 1, as torch.

    Raises:
        ValueError: ids are not integers, or out of range.
    """

    weight: Float[Array, "vocab dim"]
    vocab: int = eqx.field(static=True)
    dim: int = eqx.field(static=True)

    def __init__(self, vocab: int, dim: int, *, init: Initializer = jax.nn.initializers.normal(1.0), key: PRNGKeyArray):  # noqa: B008
        _check.positive(vocab=vocab, dim=dim)
        self.weight = init(key, (vocab, dim), jnp.float32)
        self.vocab, self.dim = int(vocab), int(dim)

    def __call__(self, ids: _check.Ids, *, key: PRNGKeyArray | None = None) -> Float[Array, "*leading dim"]:
        """The rows of some ids: an array, an integer, or lists of integers."""
        return take_rows(self.weight, _check.ids(ids, self.vocab, "ids", "vocab"))

    def attend(self, x: Float[Array, "*leading dim"]) -> Float[Array, "*leading vocab"]:
        """The tied output head: logits as products with every row."""
        return times_rows(x, self.weight)


def times_rows(
    x: Float[Array, "*leading in_dim"], weight: Float[Array, "out_dim in_dim"], *, wide: bool = False
) -> Float[Array, "*leading out_dim"]:
    """`x @ weight.T`, as one product over the last axis of both. For a single x, XLA would first transpose the weight
    in memory.

    Args:
        x: vectors; the weight is cast to their dtype.
        weight: a row for each output.
        wide: returns float32 at least.

    Raises:
        ValueError: x is not of a floating-point type, in which the weight would lose its fractions.
    """
    _check.inexact(x, "x")
    kind = jnp.promote_types(x.dtype, jnp.float32) if wide else None
    contract = (((x.ndim - 1,), (1,)), ((), ()))
    weight = weight.astype(x.dtype)
    return jax.lax.dot_general(x, weight, contract, preferred_element_type=kind, out_sharding=summed(x, weight))


def _expand(vector: Array, like: Array) -> Array:
    return jnp.expand_dims(vector, tuple(range(like.ndim - 1)))  # implicit rank promotion is an error in our tests
