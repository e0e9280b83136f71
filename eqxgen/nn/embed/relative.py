"""Attention biases from relative positions."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check
from eqxgen.nn.linear import Embedding, Initializer


class T5Bias(eqx.Module):
    """A learned bias for each head and each class of distances (Raffel et al. 2020, arXiv:1910.10683, section 2.1).

    Half of the buckets hold one distance each; the widths of the others grow by a constant factor up to `max_distance`,
    and the last holds all larger distances. Without `causal`, the first half of the buckets is for keys up to the
    query, the second for later keys. T5 shares one bias among all layers, and its attention has no scale.

    Args:
        heads: number of query heads.
        buckets: number of classes.
        max_distance: approximate start of the last bucket.
        causal: for causal attention (T5's decoder); later keys share the bucket of distance 0.
        init: initializer of the table; by default normal with deviation 0.02.
    """

    table: Embedding
    max_distance: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)

    def __init__(
        self,
        heads: int,
        *,
        buckets: int = 32,
        max_distance: int = 128,
        causal: bool = False,
        init: Initializer = jax.nn.initializers.normal(0.02),  # noqa: B008
        key: PRNGKeyArray,
    ):
        _check.positive(heads=heads, buckets=buckets, max_distance=max_distance)
        single = buckets // (2 if causal else 4)
        if single == 0 or buckets % (2 if causal else 4):
            raise ValueError(f"buckets must be a multiple of {2 if causal else 4}, as causal={causal}: got {buckets}")
        if max_distance <= single:
            raise ValueError(
                f"max_distance must be greater than the {single} distances with a bucket each: got {max_distance}"
            )
        self.table = Embedding(buckets, heads, init=init, key=key)
        self.max_distance, self.causal = max_distance, causal

    def __call__(
        self,
        queries: Int[ArrayLike, " q_seq"] | list,
        keys: Int[ArrayLike, " kv_seq"] | list | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "heads q_seq kv_seq"]:
        """The bias between queries and keys at these positions, by default the same ones: the argument `bias` of the
        attention layers and op.
        """
        queries, keys = (_check.integers(queries if at is None else at, "positions") for at in (queries, keys))
        queries, keys = jnp.asarray(queries), jnp.asarray(keys)
        _check.example(queries, "q_seq", name="queries")
        _check.example(keys, "kv_seq", name="keys")
        return jnp.moveaxis(self.table(self.bucket(keys[None, :] - queries[:, None])), -1, 0)

    def bucket(self, offset: Int[Array, "*leading"]) -> Int[Array, "*leading"]:
        """The bucket of `key position - query position`."""
        side = self.table.vocab if self.causal else self.table.vocab // 2
        distance = jnp.maximum(-offset, 0) if self.causal else jnp.abs(offset)
        starts = jnp.asarray(self._starts(side)).reshape(*(1,) * distance.ndim, -1)
        found = jnp.sum(starts <= distance[..., None], axis=-1, dtype=jnp.int32)
        return found if self.causal else found + side * (offset > 0)

    def _starts(self, side: int) -> np.ndarray:
        """The first distances of buckets 1, 2, ..., computed on the host: a logarithm on the device may fall short of
        an integer.
        """
        exact = side // 2
        far = np.arange(exact, self.max_distance + 1)
        growth = (
            np.log((far / exact).astype(np.float32))
            / np.float32(math.log(self.max_distance / exact))
            * np.float32(side - exact)
        )
        grown = np.minimum(exact + growth.astype(np.int32), side - 1)
        return np.concatenate(
            [np.arange(1, exact + 1), [far[np.argmax(grown >= i)] for i in range(exact + 1, side)]]
        ).astype(np.int32)


def alibi(heads: int) -> ops.ALiBi:
    """Press et al.'s bias of -slope * distance, for the `bias` of attention layers and op (arXiv:2108.12409).

    For a power of two of heads the slopes are 2^(-8/heads), its square, its cube, ...; for another number those of the
    next lower power n, then every other one of 2n, as in the authors' code.
    """
    _check.positive(heads=heads)
    lower = 2 ** int(math.log2(heads))
    finer = ops.ALiBi.geometric(2 * lower).slopes[::2]
    return ops.ALiBi(jnp.concatenate([ops.ALiBi.geometric(lower).slopes, finer[: heads - lower]]))
