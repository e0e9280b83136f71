"""Distributed Shampoo (Gupta et al. 2018, arXiv:1802.09568; Anil et al. 2020, arXiv:2002.09018; Shi et al. 2023,
arXiv:2309.06497, algorithm 2).

For a matrix with gradients G and first moment M (bias-corrected), the statistics are L ← β₂ L + (1 - β₂) G Gᵀ and
R ← β₂ R + (1 - β₂) Gᵀ G, and the direction is L^(-1/2k) M R^(-1/2k), k being the number of sides that have statistics.
Its norm is that of the grafted rule, one of Adam, RMSProp, AdaGrad and SGD, whose update of M it replaces; vectors, and
all in the first `graft_steps` updates, have the grafted rule itself.

Where we differ: a convolution's kernel is a matrix of all but the last axis by the last, a stack of layers a batch of
matrices, each grafted by itself; blocks are of equal size; the first moment is that of the gradient, and not of the
preconditioned update, with Nesterov's look-ahead β₁ M + (1 - β₁) G on request; a side above `max_side` has no
statistics, and the other the exponent -1/2.

The roots are computed where they are due by `jax.lax.cond` inside the one step: other steps run none of it, nothing
compiles a second time, and the count that decides is of the updates made, which a skipped one does not move. A step of
its own, as that of a lazy turn, is chosen by the number of the step, and would compile the backward pass twice.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from ..config.optim import OptimConfig
from .groups import Group, groups_of
from .quantised import Stored, dequantised, quantised, shrunk
from .roots import shared_roots
from .soap import Cut, cut_of, join, split


class Factors(NamedTuple):
    """Statistics of an array's blocks and their inverse roots: of rows and of columns, None of a side without."""

    statistics: tuple[Stored | None, Stored | None]
    roots: tuple[Stored | None, Stored | None]


class ShampooState(NamedTuple):
    """Updates made, first moments, second moments of the grafted rule (None of SGD), factors of each matrix (None of
    others), and the number of roots that were not found, in whose place the ones before stay.
    """

    made: Int[Array, ""]
    first: PyTree
    second: PyTree
    factors: PyTree
    failed: Int[Array, ""]


def sides_of(group: Group, config: OptimConfig) -> tuple[bool, bool]:
    """The sides of an array that have statistics: rows, columns."""
    if not group.matrix:
        return False, False
    rows, columns = cut_of(group, config.block).sides
    return rows <= config.max_side, columns <= config.max_side


def power_of(group: Group, config: OptimConfig) -> int:
    """p of the exponent -1/p: twice the number of sides with statistics, or `root`."""
    return config.root or 2 * sum(sides_of(group, config))


def scale_by_shampoo(config: OptimConfig, mesh: Mesh | None = None) -> optax.GradientTransformation:
    """The transformation; decay of weights, learning rate and clipping are other steps of the chain.

    Args:
        mesh: its devices share the roots out among them.
    """
    beta1 = config.beta1

    def init(params: PyTree) -> ShampooState:
        second = None if config.graft == "sgd" else jax.tree.map(jnp.zeros_like, params)
        factors = jax.tree.map(lambda g, p: _start(g, config, _wide(p)), groups_of(config, params), params)
        zero = jnp.zeros((), jnp.int32)
        return ShampooState(zero, jax.tree.map(jnp.zeros_like, params), second, factors, zero)

    def update(updates: PyTree, state: optax.OptState, params: PyTree | None = None) -> tuple[PyTree, ShampooState]:
        assert isinstance(state, ShampooState)
        count = state.made + 1
        groups, treedef = jax.tree.flatten(groups_of(config, updates))
        gradients = treedef.flatten_up_to(updates)
        first = [
            beta1 * m + (1 - beta1) * g for m, g in zip(treedef.flatten_up_to(state.first), gradients, strict=True)
        ]
        moments = [_looked_ahead(m, g, count, config) for m, g in zip(first, gradients, strict=True)]
        before = [None] * len(groups) if state.second is None else treedef.flatten_up_to(state.second)
        second = [_second(v, g, config) for v, g in zip(before, gradients, strict=True)]
        grafted = [_grafted(m, v, count, config) for m, v in zip(moments, second, strict=True)]

        factors = treedef.flatten_up_to(state.factors)
        gather = functools.partial(_gather, groups, gradients, config, state.made)
        if config.statistics_every == 1:
            factors = gather(factors)
        else:
            counted = state.made % config.statistics_every == 0
            factors = jax.lax.cond(counted, gather, lambda factors: factors, factors)
        since = state.made - config.graft_steps
        due = (since >= 0) & (since % config.every == 0)
        renew = functools.partial(_renew, groups, config, mesh)
        factors, failed = jax.lax.cond(due, renew, lambda factors: (factors, jnp.int32(0)), factors)

        steps = [
            jnp.where(since >= 0, _preconditioned(group, moment, graft, factor, config), graft)
            if any(sides_of(group, config))
            else graft
            for group, moment, graft, factor in zip(groups, moments, grafted, factors, strict=True)
        ]
        back = treedef.unflatten
        after = None if state.second is None else back(second)
        return back(steps), ShampooState(count, back(first), after, back(factors), state.failed + failed)

    return optax.GradientTransformation(init, update)


def _looked_ahead(first: Array, gradient: Array, count: Array, config: OptimConfig) -> Array:
    """The first moment, with Nesterov's look-ahead or without, without its bias."""
    beta1 = config.beta1
    if config.nesterov:
        corrected = beta1 * first / (1 - beta1 ** (count + 1)) + (1 - beta1) * gradient / (1 - beta1**count)
    else:
        corrected = first / (1 - beta1**count)
    return corrected.astype(gradient.dtype)


def _second(second: Array | None, gradient: Array, config: OptimConfig) -> Array | None:
    if second is None:
        return None
    if config.graft == "adagrad":
        return second + gradient**2
    return config.beta2 * second + (1 - config.beta2) * gradient**2


def _grafted(moment: Array, second: Array | None, count: Array, config: OptimConfig) -> Array:
    """The update of the grafted rule."""
    if second is None:
        return moment
    if config.graft == "adam":
        second = (second / (1 - config.beta2**count)).astype(moment.dtype)
    return moment / (jnp.sqrt(second) + config.epsilon)


def _preconditioned(group: Group, moment: Array, graft: Array, factors: Factors, config: OptimConfig) -> Array:
    """The first moment between the roots, each layer with the norm of its grafted update."""
    cut = cut_of(group, config.block)
    blocks = split(moment, cut, _wide(moment))
    rows, columns = map(_whole, factors.roots)
    with jax.default_matmul_precision("highest"):
        blocks = blocks if rows is None else rows @ blocks
        blocks = blocks if columns is None else blocks @ columns
    direction = join(blocks, cut, moment.shape)
    axes = tuple(range(int(group.stacked), moment.ndim))
    norm = lambda x: jnp.sqrt(jnp.sum(jnp.square(x.astype(direction.dtype)), axis=axes, keepdims=True))
    own = norm(direction)
    return (direction * norm(graft) / jnp.where(own > 0, own, 1)).astype(graft.dtype)


def _gather(groups: list, gradients: list, config: OptimConfig, made: Array, factors: list) -> list:
    """The factors with one more gradient in their statistics."""
    beta2, results = config.beta2, []
    for number, (group, gradient, factor) in enumerate(zip(groups, gradients, factors, strict=True)):
        if factor is None:
            results.append(None)
            continue
        blocks = split(gradient, cut_of(group, config.block), _wide(gradient))
        with jax.default_matmul_precision("highest"):
            products = (blocks @ blocks.mT, blocks.mT @ blocks)
        moved = [
            None
            if old is None
            else _stored(
                beta2 * dequantised(old) + (1 - beta2) * new,
                config,
                jr.fold_in(jr.fold_in(jr.key(side), number), made),
            )
            for side, (old, new) in enumerate(zip(factor.statistics, products, strict=True))
        ]
        results.append(Factors((moved[0], moved[1]), factor.roots))
    return results


def _renew(groups: list, config: OptimConfig, mesh: Mesh | None, factors: list) -> tuple[list, Array]:
    """The factors with new roots where they were found, and the number of those that were not."""
    places = [
        (n, side)
        for n, factor in enumerate(factors)
        if factor is not None
        for side in (0, 1)
        if factor.statistics[side] is not None
    ]
    matrices = [shrunk(factors[n].statistics[side], config.beta2) for n, side in places]
    powers = [power_of(groups[n], config) for n, _ in places]
    roots = [list(factor.roots) if factor is not None else [None, None] for factor in factors]
    failed = jnp.int32(0)
    for (n, side), new in zip(places, shared_roots(matrices, powers, config.ridge, mesh), strict=True):
        stored = _stored(new.root, config)
        keep = lambda new, old, found=new.found: jnp.where(jnp.expand_dims(found, range(1, new.ndim)), new, old)
        roots[n][side] = jax.tree.map(keep, stored, roots[n][side])
        failed += jnp.sum(~new.found).astype(jnp.int32)
    renewed = [
        None if factor is None else Factors(factor.statistics, (own[0], own[1]))
        for factor, own in zip(factors, roots, strict=True)
    ]
    return renewed, failed


def _start(group: Group, config: OptimConfig, dtype: jax.typing.DTypeLike) -> Factors | None:
    """No statistics yet, and the identity for roots."""
    sides = sides_of(group, config)
    if not any(sides):
        return None
    cut: Cut = cut_of(group, config.block)
    count = cut.layers * cut.counts[0] * cut.counts[1]
    zeros = lambda side: jnp.zeros((count, side, side), dtype)
    ones = lambda side: jnp.broadcast_to(jnp.eye(side, dtype=dtype), (count, side, side))
    made = lambda make: tuple(
        _stored(make(side), config) if has else None for side, has in zip(cut.block, sides, strict=True)
    )
    (left, right), (left_root, right_root) = made(zeros), made(ones)
    return Factors((left, right), (left_root, right_root))


def _stored(matrices: Array, config: OptimConfig, key: Array | None = None) -> Stored:
    return matrices if config.statistics == "float32" else quantised(matrices, config.statistics, key)


def _whole(stored: Stored | None) -> Array | None:
    return None if stored is None else dequantised(stored)


def _wide(x: Array) -> jnp.dtype:
    """Type of the statistics: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)
