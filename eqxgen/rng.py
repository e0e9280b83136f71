"""Key streams: one name instead of a dozen split keys."""

import contextlib
import contextvars
import warnings
from collections.abc import Iterator

import jax
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jax.extend.source_info_util import register_exclusion
from jaxtyping import Array, PRNGKeyArray, Scalar, UInt32

register_exclusion(__file__)  # the line that draws a key is the caller's


@jax.tree_util.register_pytree_node_class
class RNG(Iterator[PRNGKeyArray]):
    """A stream of keys: `next(rng)` gives a fresh one.

    Each key is `jax.random.fold_in(key, count)`, so a stream traces to one small operation per key drawn and needs no
    splitting ahead of time.

    >>> rng = RNG(jax.random.key(0))
    >>> kernel, bias = next(rng), next(rng)

    A stream is a pytree and may pass through `jax.jit`. A compiled function draws from a copy, and the caller's stream
    does not advance: pass a stream of its own, `RNG(next(rng))`, or return the copy and continue with it. A key that
    made a stream must not be used again: `jax.random.split(key)[i]` and key number i of `RNG(key)` are equal.

    Two draws of one key are errors of the caller that a stream does not see. `watching()` finds them while debugging.

    Args:
        key: a typed key (`jax.random.key`), a legacy `uint32[2]` key, or an integer seed.

    Raises:
        TypeError: `key` is none of these.
    """

    def __init__(self, key: "PRNGKeyArray | UInt32[Array, '2'] | int"):
        if isinstance(key, int) and not isinstance(key, bool):
            key = jr.key(key)
        elif not isinstance(key, jax.Array) or not _is_key(key):
            raise TypeError(
                f"key must be a JAX random key or an integer seed: got {key!r}; make one by jax.random.key(seed)"
            )
        self.key, self.count = key, 0

    def __next__(self) -> PRNGKeyArray:
        key = jr.fold_in(self.key, self.count)
        if _given.get() is not None and not isinstance(key, Tracer):
            _note(key, self.count)
        self.count += 1
        return key

    def __repr__(self) -> str:
        return f"RNG({self.key}, count={self.count})"

    def tree_flatten(self) -> tuple[tuple[PRNGKeyArray, int | Scalar], None]:
        return (self.key, self.count), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple) -> "RNG":
        rng = object.__new__(cls)
        rng.key, rng.count = children
        return rng


class KeyReuse(UserWarning):
    """A key stream gives a key that was given before. `warnings.simplefilter("error", KeyReuse)` raises it."""


_given: contextvars.ContextVar[set[bytes] | None] = contextvars.ContextVar("given", default=None)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Debug mode: within this context a `KeyReuse` warning names every key that streams give twice.

    Found are copies of a stream and streams made from equal keys, such as two layers made from one key. Not found are
    draws inside a compiled function, and uses of a key by `jax.random` itself: `jax.debug_key_reuse(True)` finds these.
    `eqxgen.check_keys` finds all of these, and keys that are drawn and never used, in a function that can be traced.
    """
    token = _given.set(set())
    try:
        yield
    finally:
        _given.reset(token)


def _note(key: PRNGKeyArray, count: int | Scalar) -> None:
    given, data = _given.get(), np.asarray(jr.key_data(key)).tobytes()
    if given is not None and data in given:
        hint = "give each place a stream of its own: RNG(next(rng))"
        warnings.warn(f"key {count} of a stream was given before: {hint}", KeyReuse, stacklevel=3)
    elif given is not None:
        given.add(data)


def _is_key(key: jax.Array) -> bool:
    return jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) or (key.dtype == "uint32" and key.shape == (2,))
