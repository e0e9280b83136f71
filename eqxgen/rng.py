"""Key streams: one name instead of a dozen split keys."""

import contextlib
import contextvars
import warnings
from collections.abc import Iterator

import jax
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, PRNGKeyArray, Scalar, UInt32


class KeyReuse(UserWarning):
    """A key stream gives a key that was given before, so that two draws will be equal. `warnings.simplefilter("error",
    KeyReuse)` raises it.
    """


_seen: contextvars.ContextVar[dict[bytes, list[int]] | None] = contextvars.ContextVar("seen", default=None)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Within this, `KeyReuse` is also said of streams that were made apart from equal keys, such as two layers given
    the same key.

    Not so by default, for there are good reasons to begin again from a key: two equal models, an example that is run
        twice.
    """
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


@jax.tree_util.register_pytree_node_class
class RNG(Iterator[PRNGKeyArray]):
    """A stream of keys: `next(rng)` gives a fresh one.

    Each key is `jax.random.fold_in(key, count)`, so a stream traces to one small operation per key drawn and needs no
    splitting ahead of time.

    >>> rng = RNG(jax.random.key(0))
    >>> kernel, bias = next(rng), next(rng)

    It is a pytree and may pass through `jax.jit`. There a copy is drawn from, of which the caller's stream knows
    nothing: hand over a stream of its own, `RNG(next(rng))`, or return the copy and go on with that. A warning,
        `KeyReuse`, says so where

    - a stream is drawn from after it was handed to a compiled function or another transformation of trees;
    - a stream and its `copy.copy` are both drawn from;
    - a stream made outside a compiled function is drawn from inside: it would give the same keys at every call;
    - within `watching()`, two streams made from equal keys are drawn from.

    The checks are made in Python, of what is known while it runs: a compiled program has nothing of them. So unseen
        remain: what is drawn
    from several copies inside one compiled program; equal keys in it; a stream restored twice from a file or by
    `copy.deepcopy`. Nor is it seen when a key is both handed to a stream and used by itself, even though
    `jax.random.split(key)[i]` and the stream's key number i are the same key; of uses by `jax.random` alone
    `jax.debug_key_reuse(True)` tells. Wrongly warned is who only looked at the arrays of a stream by `jax.tree.leaves`,
    to save it for example, and draws on.

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
        self._begin(key, 0)

    def _begin(self, key: PRNGKeyArray, count: int | Scalar) -> None:
        self.key, self.count = key, count
        self._drawn = [0]  # one more than the highest count drawn, a list so that a copy of this object shares it
        self._lent = False
        self._made = get_opaque_trace_state(convention="flax")

    def __next__(self) -> PRNGKeyArray:
        key = jr.fold_in(self.key, self.count)
        self._check(inside=isinstance(key, Tracer))
        self.count += 1
        return key

    def __repr__(self) -> str:
        return f"RNG({self.key}, count={self.count})"

    def tree_flatten(self):
        self._lent = True
        return (self.key, self.count), None

    @classmethod
    def tree_unflatten(cls, _, children):
        rng = object.__new__(cls)
        rng._begin(*children)
        return rng

    def _check(self, *, inside: bool) -> None:
        if self._lent:
            self._lent = False
            self._warn(
                "was handed to a compiled function or copied as a tree, and what is drawn there is drawn here again"
            )
        if inside:
            if not isinstance(self.key, Tracer) and self._made != get_opaque_trace_state(convention="flax"):
                self._warn(
                    "was made outside the function that is being compiled, which will use the same key at every call"
                )
            return
        seen, count = _seen.get(), int(self.count)
        drawn = self._drawn if seen is None else seen.setdefault(np.asarray(jr.key_data(self.key)).tobytes(), [0])
        if count < drawn[0]:
            self._warn("was drawn from already, by a copy or by a stream made from the same key")
        drawn[0] = max(drawn[0], count + 1)

    def _warn(self, reason: str) -> None:
        cure = "give each place a stream of its own: RNG(next(rng))"
        warnings.warn(
            f"key {self.count} of a stream is used twice: the stream {reason}; {cure}", KeyReuse, stacklevel=4
        )


def _is_key(key: jax.Array) -> bool:
    return jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) or (key.dtype == "uint32" and key.shape == (2,))
