"""Stacks of equal blocks with one compiled body."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray, PyTree

from eqxgen.nn import _check, _split
from eqxgen.nn._call import given
from eqxgen.nn._mesh import explicit_axes
from eqxgen.nn._pipeline import pipelined
from eqxgen.nn.attention.self_attention import Bias, Mask
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.nn.transformer.moe import Routing

REMATS = ("none", "dots", "full")
UNROLLED = 6
"""Most blocks of a scan that are compiled one after the other. Copies of parameters and residuals by a scan take an
eighth of a step on a CPU; each further block adds about a third of a second of compilation to the four of the scan.
"""


class Stack(eqx.Module):
    """`depth` equal blocks in sequence, compiled once for any depth above six.

    The parameters of all blocks are stacked along a leading axis, and `jax.lax.scan` runs over it: unrolled where it is
    short and the backward pass computes nothing again.

    Args:
        block: makes one block from a key.
        depth: number of blocks.
        remat: rematerialisation in the backward pass, which trades time for memory: "none"; "dots", which keeps only
            the results of products with parameters and no attention matrix; "full" or true, which keeps only the inputs
            of the blocks.

    Raises:
        ValueError: `depth` is not a positive integer, or `remat` is unknown.
    """

    blocks: eqx.Module
    fetch: Callable[[PyTree], PyTree] | None
    depth: int = eqx.field(static=True)
    remat: str = eqx.field(static=True)

    def __init__(
        self, block: Callable[[PRNGKeyArray], eqx.Module], depth: int, *, remat: bool | str = "none", key: PRNGKeyArray
    ):
        _check.positive(depth=depth)
        policy = remat if isinstance(remat, str) else "full" if remat else "none"
        _check.one_of("remat", policy, REMATS)
        self.blocks = eqx.filter_vmap(block)(jr.split(key, depth))
        self.depth, self.remat, self.fetch = depth, policy, None

    def fetching(self, fetch: Callable[[PyTree], PyTree] | None) -> "Stack":
        """The same stack with `fetch` called on the arrays of each block before the block runs, in both passes.

        For parameters that are sharded over devices, or stored elsewhere. The backward pass keeps the results of matrix
        products and fetches the parameters again, so that those of one block at a time are in memory.
        """
        return eqx.tree_at(lambda stack: stack.fetch, self, fetch, is_leaf=lambda x: x is None)

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *context: Array,
        mask: Mask | None = None,
        bias: Bias | None = None,
        positions: Int[Array, " seq"] | None = None,
        context_mask: Mask | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """Every block gets the same `context` after x and, where they are given, the same `mask`, `bias`, `positions`
        and `context_mask`.
        """
        if x.ndim != 2:
            _check.example(x, "seq", "dim")

        def stage(blocks: Any, x: Array, more: Any) -> Array:
            context, options, key = more

            def step(block: Any, x: Array, key: PRNGKeyArray | None):
                return block(x, *context, key=key, inference=inference, **options), None

            keys = None if key is None else jr.split(key, self.depth)
            return self._scan(blocks, step, x, keys if axis is None else _split.own_blocks(keys, axis))[0]

        options = given(mask=mask, bias=bias, positions=positions, context_mask=context_mask)
        more, axis = (context, options, key), self._axis()
        return stage(self.blocks, x, more) if axis is None else pipelined(stage, self.blocks, x, more, axis)

    def routed(
        self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> tuple[Float[Array, "seq dim"], Routing]:
        """The result of blocks with an `MoE`, and their routings, stacked; see `TransformerBlock.routed`."""
        step = lambda block, x, key: block.routed(x, key=key, inference=inference)
        return self.scan(step, x, None if key is None else jr.split(key, self.depth))

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> PyTree:
        """Empty caches of the blocks for `length` tokens, stacked like their parameters."""
        return self.each(lambda block: block.cache(length, dtype))

    def each(self, function: Callable[..., PyTree], *others: PyTree) -> PyTree:
        """`function(block, *its slices of others)` of all blocks at once, fetched where they must be; the results are
        stacked.
        """
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        of = lambda block, *others: function(self._whole(block, rest), *others)
        return eqx.filter_vmap(of)(arrays, *others)

    def bound(self, blocks: PyTree) -> "Stack":
        """The stack with what `each` made of its blocks in their place; nothing is left to fetch."""
        return eqx.tree_at(lambda stack: stack.blocks, self.fetching(None), blocks)

    def extend(
        self,
        x: Float[Array, "seq dim"],
        caches: PyTree,
        *context: Array,
        count: int | Int[Array, ""] | None = None,
        bias: Bias | None = None,
    ) -> tuple[Float[Array, "seq dim"], PyTree]:
        """The results of the tokens after those in the caches, and the caches with them; see `TransformerBlock.extend`.

        Every block gets the same `context` after its cache, as in `DecoderBlock.extend`.
        """
        arrays, rest = eqx.partition(caches, eqx.is_array)
        options = given(bias=bias)

        def step(block: Any, x: Array, cache: PyTree):
            x, cache = block.extend(x, eqx.combine(cache, rest), *context, count=count, **options)
            return x, eqx.filter(cache, eqx.is_array)

        x, arrays = self.scan(step, x, arrays)
        return x, eqx.combine(arrays, rest)

    def unrolled(self) -> "Unrolled":
        """The same blocks with arrays of their own, for decoding: a scan would copy the parameters of each block out of
        the stack at every token, and fetch them at every token. All are fetched, so that all are in memory.
        """
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        block = lambda i: self._whole(jax.tree.map(lambda x: x[i], arrays), rest)
        return Unrolled(tuple(block(i) for i in range(self.depth)))

    def scan(self, step: Callable[..., tuple[Array, PyTree]], x: Array, others: PyTree) -> tuple[Array, PyTree]:
        """`step(block, x, other) -> (x, result)` for each block in order, with its slice of `others`; the results are
        stacked.

        Raises:
            ValueError: the blocks are split, see `split_over`: only a call gives the results of all.
        """
        if (axis := self._axis()) is not None:
            raise ValueError(
                f"blocks split over the mesh axis {axis!r} must be called as a Stack: got a model that goes through "
                "them by itself; leave blocks=None in split_over"
            )
        return self._scan(self.blocks, step, x, others)

    def _scan(
        self, blocks: Any, step: Callable[..., tuple[Array, PyTree]], x: Array, others: PyTree
    ) -> tuple[Array, PyTree]:
        arrays, rest = eqx.partition(blocks, eqx.is_array)

        def body(x: Array, layer):
            block, other = layer
            return step(self._whole(block, rest), x, other)

        if self.remat == "full":
            body = jax.checkpoint(body, prevent_cse=False)  # scan already separates the passes
        elif self.remat == "dots":
            body = jax.checkpoint(
                body, prevent_cse=False, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            )
        elif self.fetch is not None:
            body = jax.checkpoint(body, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)
        # What is computed again must stay apart from the forward pass, as the loop keeps it. An unrolled loop with both
        # explicit and automatic axes in its body has no derivative in JAX 0.10.2.
        again = self.remat != "none" or self.fetch is not None
        short = self.depth <= UNROLLED and not again and not explicit_axes(x)
        return jax.lax.scan(body, x, (arrays, others), unroll=short)

    def _axis(self) -> str | None:
        """The mesh axis over which the blocks are split; None where all are here."""
        found = jax.tree.leaves(eqx.filter(self.blocks, eqx.is_array))
        return _split.blocks_axis() if found and len(found[0]) != self.depth else None

    def _whole(self, arrays: PyTree, rest: PyTree) -> Any:
        """A block of its arrays, fetched where they must be, and all else."""
        return eqx.combine(arrays if self.fetch is None else self.fetch(arrays), rest)


class Unrolled(eqx.Module):
    """The blocks of a `Stack`, each with arrays of its own. It decodes as the stack does and compiles every block."""

    blocks: tuple[Any, ...]

    def cache(self, length: int, dtype: DTypeLike = jnp.float32) -> PyTree:
        """As `Stack.cache`, as a tuple with one for each block."""
        return self.each(lambda block: block.cache(length, dtype))

    def each(self, function: Callable[..., PyTree], *others: PyTree) -> PyTree:
        """As `Stack.each`, of and as tuples with one for each block."""
        return tuple(function(*given) for given in zip(self.blocks, *others))

    def bound(self, blocks: PyTree) -> "Unrolled":
        """As `Stack.bound`."""
        return Unrolled(blocks)

    def extend(
        self,
        x: Float[Array, "seq dim"],
        caches: PyTree,
        *context: Array,
        count: int | Int[Array, ""] | None = None,
        bias: Bias | None = None,
    ) -> tuple[Float[Array, "seq dim"], PyTree]:
        """As `Stack.extend`."""
        after = []
        for block, cache in zip(self.blocks, caches):
            x, cache = block.extend(x, cache, *context, count=count, **given(bias=bias))
            after.append(cache)
        return x, tuple(after)


class Joined(eqx.Module):
    """A block after a projection that joins x with the result of an earlier block: `block(join([x, skip]))`."""

    join: Projection
    block: eqx.Module


class LongSkipStack(eqx.Module):
    """A stack with skip connections from block i to block depth - 1 - i, as in a U-Net: `x = block(join([x, skip]))`,
    where `join` is a projection from `2 * dim` to `dim` (U-ViT: Bao et al. 2023, arXiv:2209.12152, section 3.1).

    Two scans, one for each half, and a block between them.

    Args:
        block: makes one block from a key.
        depth: number of blocks; odd, at least 3.
        dim: width of a token.
        remat: see `Stack`.
        init: initializer of the weights of the joins.

    Raises:
        ValueError: `depth` is even or below 3.
    """

    first: Stack
    middle: eqx.Module
    second: Stack

    def __init__(
        self,
        block: Callable[[PRNGKeyArray], eqx.Module],
        depth: int,
        *,
        dim: int,
        remat: bool | str = "none",
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(depth=depth, dim=dim)
        if depth < 3 or depth % 2 == 0:
            raise ValueError(f"depth must be odd and at least 3, for two halves and a middle: got {depth}")

        def joined(key: PRNGKeyArray) -> Joined:
            join_key, block_key = jr.split(key)
            return Joined(Projection(2 * dim, dim, init=init, key=join_key), block(block_key))

        first_key, middle_key, second_key = jr.split(key, 3)
        self.first = Stack(block, depth // 2, remat=remat, key=first_key)
        self.middle = block(middle_key)
        self.second = Stack(joined, depth // 2, remat=remat, key=second_key)

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *context: Array,
        mask: Mask | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        """Every block gets the same `context` after x and, where it is given, the same `mask`."""
        if x.ndim != 2:
            _check.example(x, "seq", "dim")
        first_key, middle_key, second_key = (None,) * 3 if key is None else jr.split(key, 3)
        keys = lambda key: None if key is None else jr.split(key, self.first.depth)
        run = lambda block, x, key: block(x, *context, key=key, inference=inference, **given(mask=mask))

        def down(block: Any, x: Array, key: PRNGKeyArray | None):
            x = run(block, x, key)
            return x, x

        def up(joined: Any, x: Array, other):
            key, skip = other
            return run(joined.block, joined.join(jnp.concatenate([x, skip], -1)), key), None

        x, skips = self.first.scan(down, x, keys(first_key))
        x = run(self.middle, x, middle_key)
        return self.second.scan(up, x, (keys(second_key), skips[::-1]))[0]
