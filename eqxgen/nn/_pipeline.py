"""Stages on several devices, each with a part of the blocks of a stack."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree, Shaped

from eqxgen._widen import widen

MICRO = 4
"""The most micro-batches of a device: with n devices, 4n of 5n - 1 turns do work (Huang et al. 2019, arXiv:1811.06965,
section 2.3, find the idle turns negligible from there).
"""


def pipelined(
    stage: Callable[..., Array], blocks: PyTree, x: Float[Array, "seq dim"], options: PyTree, axis: str
) -> Float[Array, "seq dim"]:
    """`stage(blocks, x, options) -> x` on all devices of a mesh axis, one after another, each with its own blocks.

    Every device has examples of its own, and gets the results of them. Under `jax.vmap` over a device's examples these
    are micro-batches of equal size, at most `MICRO`, that follow one another through the devices: in turn t, device d
    computes micro-batch t - d. A micro-batch comes to the first device, and goes home from the last, against the
    direction of the stages, one device a turn. One example alone is a micro-batch.

    The derivative is that of the turns, which go backwards: all turns of the forward pass come first, and each device
    keeps of its blocks what it would keep of all blocks for its own examples, and up to a quarter more.

    Args:
        stage: keeps the shape of x.
        blocks: the same for all examples.
        options: more of an example, arrays and else, that each stage gets too.
        axis: name of a manual mesh axis.

    Raises:
        ValueError: the blocks differ between the examples of a `vmap`.
    """
    weights, rest = eqx.partition(blocks, eqx.is_array)
    arrays, others = eqx.partition(options, eqx.is_array)
    keyed = jax.tree.map(lambda x: jr.key_impl(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else None, arrays)
    plain = lambda x, impl: x if impl is None else jr.key_data(x)
    arrays = jax.tree.map(plain, arrays, keyed)
    leaves, structure = jax.tree.flatten(arrays)

    def run(weights: PyTree, x: Array, leaves: list[Array]) -> Array:
        key = lambda x, impl: x if impl is None else jr.wrap_key_data(x, impl=impl)
        arrays = jax.tree.map(key, jax.tree.unflatten(structure, leaves), keyed)
        return stage(eqx.combine(weights, rest), x, eqx.combine(arrays, others))

    @jax.custom_batching.custom_vmap
    def whole(weights: PyTree, x: Array, leaves: list[Array]) -> Array:
        return _turns(run, weights, x[None], leaves, [None] * len(leaves), axis)[0]

    @whole.def_vmap
    def _(size: int, batched: Any, weights: PyTree, x: Array, leaves: list[Array]) -> tuple[Array, bool]:
        if any(jax.tree.leaves(batched[0])):
            raise ValueError("the blocks of a pipeline must be the same for all examples of a vmap: got blocks of each")
        x = x if batched[1] else jnp.broadcast_to(x, (size, *x.shape))
        return _turns(run, weights, x, leaves, [0 if each else None for each in batched[2]], axis), True

    return whole(weights, x, leaves)


def _turns(
    run: Callable[..., Array], weights: PyTree, x: Array, leaves: list[Array], axes: list[int | None], axis: str
) -> Array:
    """The results of this device's examples, `x` and those of `leaves` that have 0 in `axes`, of which the others are
    the same for all examples.
    """
    count, here = jax.lax.axis_size(axis), jax.lax.axis_index(axis)
    micro = next(number for number in range(min(MICRO, len(x)), 0, -1) if len(x) % number == 0)
    names = {axis}.union(*(_varying(x) for x in [*jax.tree.leaves(weights), x, *leaves]))
    parts = lambda x: _vary(x.reshape(micro, -1, *x.shape[1:]), names)
    own = [parts(x), *(parts(leaf) for leaf, of in zip(leaves, axes) if of == 0)]
    # Narrow weights are cast in each turn, so that the turns' gradients are added up in float32.
    wide = jax.tree.map(lambda w: widen(w) if eqx.is_inexact_array(w) else w, weights)
    narrow = lambda: jax.tree.map(lambda w, like: w.astype(like.dtype), wide, weights)
    several = jax.vmap(run, in_axes=(None, 0, axes))

    def given(moved: list[Array]) -> list[Array]:
        found = iter(moved)
        return [leaf if of is None else next(found) for leaf, of in zip(leaves, axes)]

    up = [(place, (place + 1) % count) for place in range(count)]
    down = [(after, before) for before, after in up]
    send = lambda tree, to: jax.tree.map(lambda x: jax.lax.ppermute(x, axis, to), tree)

    def turn(carry: Any, t: Array) -> tuple[Any, None]:
        waiting, worked, finished, results = carry
        fresh = [part[jnp.minimum(t // count, micro - 1)] for part in own]
        waiting = _select(t % count == 0, fresh, waiting)
        x, *rest = _select(here == 0, waiting, worked)
        y = several(narrow(), x, given(rest))
        finished = jnp.where(here == count - 1, y, finished)
        # Home of the micro-batches of round r in turn r * count + 2 * count - 2; what comes before is written over.
        place = jnp.maximum(-((2 * count - 2 - t) // count), 0)
        results = results.at[place].set(finished)
        waiting, finished = send((waiting, finished), down)
        return (waiting, send([y, *rest], up), finished, results), None

    first = [part[0] for part in own]  # devices without work yet compute what is finite
    carry = (first, first, first[0], jnp.zeros_like(own[0]))
    (*_, results), _ = jax.lax.scan(turn, carry, jnp.arange(micro * count + count - 1, dtype=jnp.int32))
    return results.reshape(x.shape)


def _select(condition: Array, first: list[Array], second: list[Array]) -> list[Array]:
    return [jnp.where(condition, a, b) for a, b in zip(first, second)]


def _varying(x: Array) -> frozenset[str]:
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def _vary(x: Shaped[Array, "*shape"], names: set[str]) -> Shaped[Array, "*shape"]:
    rest = tuple(sorted(names - _varying(x)))
    return jax.lax.pcast(x, rest, to="varying") if rest else x
