"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (arXiv:2409.11321, algorithm 3).

For a matrix G with statistics L = E[G Gᵀ], R = E[Gᵀ G] and their orthonormal bases P, Q, the update is P N Qᵀ, N being
Adam's in the basis, where the gradient is Pᵀ G Q. Every so many steps each basis is brought nearer to the eigenvectors
by one power iteration and a QR decomposition.

Where we differ: matrices are cut into blocks of at most `block` by `block`, each with its own bases, as Shampoo's
distributed form does (arXiv:2309.06497); a stack of layers is a batch of matrices; a convolution's kernel is a matrix
of all but the last axis by the last; the first gradient makes the first bases and moves nothing, since in bases of its
own it is diagonal, and Adam would blow up the rounding beside the diagonal. Vectors have plain Adam. Statistics and
bases are float32.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..config.optim import OptimConfig
from .groups import Group, groups_of


class Bases(NamedTuple):
    """Statistics and eigenbases of the blocks of one array; empty for a vector."""

    left: Float[Array, "blocks rows rows"]
    right: Float[Array, "blocks columns columns"]
    left_basis: Float[Array, "blocks rows rows"]
    right_basis: Float[Array, "blocks columns columns"]


class SoapState(NamedTuple):
    """Gradients seen so far, first moment in the parameters' own basis, second moment in the bases of the blocks, and
    those bases.
    """

    seen: Array
    first: PyTree
    second: PyTree
    bases: PyTree


class Cut(NamedTuple):
    """Blocks of a matrix: so many layers of (rows x columns), each side in equal blocks, padded with zeros."""

    layers: int
    sides: tuple[int, int]
    counts: tuple[int, int]
    block: tuple[int, int]


def cut_of(group: Group, limit: int) -> Cut:
    """The cut of an array of one group into blocks of at most limit by limit."""
    shape = group.shape[int(group.stacked) :]
    sides = (math.prod(shape[:-1]), shape[-1])
    counts = (max(-(-sides[0] // limit), 1), max(-(-sides[1] // limit), 1))
    return Cut(
        group.shape[0] if group.stacked else 1, sides, counts, (-(-sides[0] // counts[0]), -(-sides[1] // counts[1]))
    )


def split(x: Array, cut: Cut, dtype: jax.typing.DTypeLike = jnp.float32) -> Float[Array, "blocks rows columns"]:
    """The blocks of an array, in float32 or another type."""
    (down, across), (rows, columns) = cut.counts, cut.block
    x = x.astype(dtype).reshape(cut.layers, *cut.sides)
    x = jnp.pad(x, ((0, 0), (0, down * rows - cut.sides[0]), (0, across * columns - cut.sides[1])))
    return x.reshape(cut.layers, down, rows, across, columns).swapaxes(2, 3).reshape(-1, rows, columns)


def join(blocks: Float[Array, "blocks rows columns"], cut: Cut, shape: tuple[int, ...]) -> Array:
    """The inverse of `split`."""
    (down, across), (rows, columns) = cut.counts, cut.block
    x = (
        blocks.reshape(cut.layers, down, across, rows, columns)
        .swapaxes(2, 3)
        .reshape(cut.layers, down * rows, across * columns)
    )
    return x[:, : cut.sides[0], : cut.sides[1]].reshape(shape)


def scale_by_soap(config: OptimConfig) -> optax.GradientTransformation:
    """The transformation; decay of weights, learning rate and clipping are other steps of the chain."""
    beta1, beta2, epsilon = config.beta1, config.beta2, config.epsilon

    def init(params: PyTree) -> SoapState:
        groups = groups_of(config, params)
        first = jax.tree.map(jnp.zeros_like, params)
        second = jax.tree.map(lambda g: jnp.zeros(_second_shape(g, config.block), jnp.float32), groups)
        return SoapState(
            jnp.zeros((), jnp.int32), first, second, jax.tree.map(lambda g: _start(g, config.block), groups)
        )

    def update(updates: PyTree, state: optax.OptState, params: PyTree | None = None) -> tuple[PyTree, SoapState]:
        assert isinstance(state, SoapState)
        begun = state.seen > 0
        corrections = [1 - beta ** jnp.maximum(state.seen, 1) for beta in (beta1, beta2)]

        def adam(first: Array, gradient: Array, second: Array) -> tuple[Array, Array]:
            """Adam's step and second moment, all in one basis."""
            second = jnp.where(begun, beta2 * second + (1 - beta2) * gradient**2, second)
            return begun * first / corrections[0] / (jnp.sqrt(second / corrections[1]) + epsilon), second

        def one(group: Group, gradient: Array, first: Array, second: Array, bases: Bases | None) -> tuple:
            first = jnp.where(begun, beta1 * first + (1 - beta1) * gradient, first)
            if bases is None:
                step, second = adam(first, gradient.astype(jnp.float32), second)
                return step.astype(gradient.dtype), first, second, None
            cut = cut_of(group, config.block)
            bases = _follow(bases, split(gradient, cut), state.seen, beta2, config.every)
            step, second = adam(_turn(split(first, cut), bases), _turn(split(gradient, cut), bases), second)
            return join(_turn_back(step, bases), cut, gradient.shape).astype(gradient.dtype), first, second, bases

        leaves, treedef = jax.tree.flatten(groups_of(config, updates))
        rest = [treedef.flatten_up_to(tree) for tree in (updates, state.first, state.second, state.bases)]
        results = [one(*arguments) for arguments in zip(leaves, *rest)]
        steps, first, second, bases = (treedef.unflatten(column) for column in zip(*results))
        return steps, SoapState(state.seen + 1, first, second, bases)

    return optax.GradientTransformation(init, update)


def _second_shape(group: Group, limit: int) -> tuple[int, ...]:
    if not group.matrix:
        return group.shape
    cut = cut_of(group, limit)
    return (cut.layers * cut.counts[0] * cut.counts[1], *cut.block)


def _start(group: Group, limit: int) -> Bases | None:
    if not group.matrix:
        return None
    blocks, rows, columns = _second_shape(group, limit)
    zeros = lambda side: jnp.zeros((blocks, side, side), jnp.float32)
    return Bases(zeros(rows), zeros(columns), zeros(rows), zeros(columns))


def _follow(bases: Bases, gradient: Array, count: Array, beta2: float, every: int) -> Bases:
    """The statistics with one more gradient, and now and then the bases that follow them."""
    left = beta2 * bases.left + (1 - beta2) * gradient @ gradient.mT
    right = beta2 * bases.right + (1 - beta2) * gradient.mT @ gradient
    # Descending, as the power iteration orders them: the second moments of ever later bases then stay with their
    # directions.
    eigen = lambda statistic, basis: jnp.linalg.eigh(statistic)[1][..., ::-1]
    power = lambda statistic, basis: jnp.linalg.qr(statistic @ basis)[0]
    keep = lambda statistic, basis: basis
    which = jnp.where(count == 0, 0, jnp.where(count % every == 0, 1, 2))
    turn = lambda statistic, basis: jax.lax.switch(which, (eigen, power, keep), statistic, basis)
    return Bases(left, right, turn(left, bases.left_basis), turn(right, bases.right_basis))


def _turn(x: Array, bases: Bases) -> Array:
    return bases.left_basis.mT @ x @ bases.right_basis


def _turn_back(x: Array, bases: Bases) -> Array:
    return bases.left_basis @ x @ bases.right_basis.mT
