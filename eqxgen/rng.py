"""Key streams: one name instead of a dozen split keys."""

from collections.abc import Iterator

import jax
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray, Scalar, UInt32


@jax.tree_util.register_pytree_node_class
class RNG(Iterator[PRNGKeyArray]):
    """A stream of keys: `next(rng)` gives a fresh one.

    Each key is `jax.random.fold_in(key, count)`, so a stream traces to one small operation per key drawn and needs no splitting ahead of
    time. It is a pytree, so it may pass through `jax.jit`; the caller's stream does not advance by what a jitted function draws from its
    copy, so hand a function a stream of its own: `RNG(next(rng))`.

    >>> rng = RNG(jax.random.key(0))
    >>> kernel, bias = next(rng), next(rng)

    Args:
        key: a typed key (`jax.random.key`), a legacy `uint32[2]` key, or an integer seed.

    Raises:
        TypeError: `key` is none of these.
    """

    def __init__(self, key: "PRNGKeyArray | UInt32[Array, '2'] | int"):
        if isinstance(key, int) and not isinstance(key, bool):
            key = jr.key(key)
        elif not isinstance(key, jax.Array) or not _is_key(key):
            raise TypeError(f"key must be a JAX random key or an integer seed: got {key!r}; make one by jax.random.key(seed)")
        self.key = key
        self.count: int | Scalar = 0

    def __next__(self) -> PRNGKeyArray:
        key = jr.fold_in(self.key, self.count)
        self.count += 1
        return key

    def __repr__(self) -> str:
        return f"RNG({self.key}, count={self.count})"

    def tree_flatten(self):
        return (self.key, self.count), None

    @classmethod
    def tree_unflatten(cls, _, children):
        rng = object.__new__(cls)
        rng.key, rng.count = children
        return rng


def _is_key(key: jax.Array) -> bool:
    return jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) or (key.dtype == "uint32" and key.shape == (2,))
