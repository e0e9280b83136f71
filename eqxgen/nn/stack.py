"""A stack of like blocks under one compiled body."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree
from numpy.typing import DTypeLike

from eqxgen import ops
from eqxgen.nn import _check

REMATS = ("none", "dots", "full")


class Stack(eqx.Module):
    """`depth` like blocks, one after another, compiled once whatever the depth.

    The parameters of all blocks lie stacked along a leading axis and `jax.lax.scan` runs over it.

    Args:
        block: makes one block from a key.
        depth: how many.
        remat: what the backward pass computes again rather than keep, memory for time: "none"; "dots", all but the results of products with
            parameters, so that no attention matrix is kept; "full", or true, each block's whole inside.
    """

    blocks: eqx.Module
    fetch: Callable[[PyTree], PyTree] | None
    depth: int = eqx.field(static=True)
    remat: str = eqx.field(static=True)

    def __init__(self, block: Callable[[PRNGKeyArray], eqx.Module], depth: int, *, remat: bool | str = "none", key: PRNGKeyArray):
        _check.positive(depth=depth)
        policy = remat if isinstance(remat, str) else "full" if remat else "none"
        _check.one_of("remat", policy, REMATS)
        self.blocks = eqx.filter_vmap(block)(jr.split(key, depth))
        self.depth, self.remat, self.fetch = depth, policy, None

    def fetching(self, fetch: Callable[[PyTree], PyTree]) -> "Stack":
        """The same stack, which calls `fetch` on the arrays of each block just before the block runs, in both passes.

        For parameters that lie in parts on several devices, or elsewhere. The backward pass keeps the results of matrix products and
        fetches the parameters again, rather than keep those of all blocks.
        """
        return eqx.tree_at(lambda stack: stack.fetch, self, fetch, is_leaf=lambda x: x is None)

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *context: Array,
        mask: "Bool[Array, '...'] | ops.masks.Mask | None" = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """Every block is given the same `context` behind x and, if there is one, the same `mask`."""
        options = {"inference": inference} | ({} if mask is None else {"mask": mask})

        def step(block: Any, x: Array, key: PRNGKeyArray | None):
            return block(x, *context, key=key, **options), None

        return self._scan(step, x, None if key is None else jr.split(key, self.depth))[0]

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> PyTree:
        """The blocks' empty caches of `length` tokens, stacked as their parameters are."""
        return eqx.filter_vmap(lambda block: block.cache(length, dtype))(self.blocks)

    def extend(self, x: Float[Array, "seq dim"], caches: PyTree, *, count: Array | None = None) -> tuple[Float[Array, "seq dim"], PyTree]:
        """The stack's result for tokens that follow those in the caches, and the caches with them in it; see `TransformerBlock.extend`."""
        arrays, rest = eqx.partition(caches, eqx.is_array)

        def step(block: Any, x: Array, cache: PyTree):
            x, cache = block.extend(x, eqx.combine(cache, rest), count=count)
            return x, eqx.filter(cache, eqx.is_array)

        x, arrays = self._scan(step, x, arrays)
        return x, eqx.combine(arrays, rest)

    def unrolled(self) -> "Unrolled":
        """The same blocks one by one, for decoding: a scan would copy each one's parameters out of the stack at every token."""
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        return Unrolled(tuple(eqx.combine(jax.tree.map(lambda x, i=i: x[i], arrays), rest) for i in range(self.depth)))

    def _scan(self, step: Callable[..., tuple[Array, PyTree]], x: Array, others: PyTree) -> tuple[Array, PyTree]:
        """`step(block, x, other) -> (x, result)` through the depth, with one slice of `others` for each block."""
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def body(x: Array, layer):
            block, other = layer
            block = block if self.fetch is None else self.fetch(block)
            return step(eqx.combine(block, rest), x, other)

        if self.remat == "full":
            body = jax.checkpoint(body, prevent_cse=False)  # scan already keeps the two passes apart
        elif self.remat == "dots":
            body = jax.checkpoint(body, prevent_cse=False, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
        elif self.fetch is not None:
            body = jax.checkpoint(body, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)
        return jax.lax.scan(body, x, (arrays, others))


class Unrolled(eqx.Module):
    """The blocks of a `Stack`, each with arrays of its own. It decodes as the stack does, and compiles as many blocks as there are."""

    blocks: tuple[Any, ...]

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> PyTree:
        """As `Stack.cache`, but one for each block."""
        return tuple(block.cache(length, dtype) for block in self.blocks)

    def extend(self, x: Float[Array, "seq dim"], caches: PyTree, *, count: Array | None = None) -> tuple[Float[Array, "seq dim"], PyTree]:
        """As `Stack.extend`."""
        after = []
        for block, cache in zip(self.blocks, caches):
            x, cache = block.extend(x, cache, count=count)
            after.append(cache)
        return x, tuple(after)
