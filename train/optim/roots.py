"""Inverse p-th roots of positive semi-definite matrices by the coupled Newton iteration, shared out over devices.

For M₀ = z A and X₀ = z^(1/p) I, with T = ((p + 1) I - M) / p, the iteration is X ← X T, M ← Tᵖ M; M tends to I and X to
A^(-1/p) (Higham, Functions of Matrices, 2008, equation 7.18; Anil et al. 2020, arXiv:2002.09018, appendix). It takes
matrix products alone, which accelerators do faster than an eigendecomposition.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

LIMIT = 100
"""Largest number of iterations. The smallest eigenvalue grows by 2.25 (p = 2) to e (p large) in each, from the ridge to
1: about 20 are needed for a ridge of 1e-6."""

WORST = 0.1
"""Largest entry of M - I at the end with which a root is taken."""


class Roots(NamedTuple):
    """Inverse roots, and for each whether the iteration came to its end."""

    root: Float[Array, "matrices side side"]
    found: Bool[Array, " matrices"]


def largest_eigenvalue(matrices: Float[Array, "matrices side side"]) -> Float[Array, " matrices"]:
    """Largest eigenvalue of each by 30 steps of the power method from one fixed vector.

    It is never above the eigenvalue, and the Newton iteration allows for one that is below it: z A may have eigenvalues
    up to p + 1, twice of what it is scaled to.

    Args:
        matrices: positive semi-definite, with a largest entry of about 1: squares of their products neither overflow
            nor vanish.
    """
    rng, side = np.random.default_rng(0), matrices.shape[-1]
    start = jnp.asarray(rng.normal(size=(side, 1)), matrices.dtype)
    tiny = jnp.finfo(matrices.dtype).tiny

    def unit(vector: Array) -> Array:
        return vector / jnp.maximum(jnp.sqrt(jnp.sum(vector**2, axis=(-2, -1), keepdims=True)), tiny)

    vector = jax.lax.fori_loop(0, 30, lambda _, vector: matrices @ unit(vector), matrices @ start[None])
    return jnp.sum(unit(vector) * (matrices @ unit(vector)), axis=(-2, -1))


def inverse_roots(matrices: Float[Array, "matrices side side"], p: int, ridge: float) -> Roots:
    """(A + ridge λ I)^(-1/p) of each matrix A, λ being its largest eigenvalue; the identity of a matrix of zeros.

    Args:
        matrices: symmetric, positive semi-definite.
        p: at least 1.
        ridge: positive; float32 has 1e-6 at least.
    """
    dtype, side = matrices.dtype, matrices.shape[-1]
    with jax.default_matmul_precision("highest"):
        identity = jnp.eye(side, dtype=dtype)[None]
        size = jnp.max(jnp.abs(matrices), axis=(-2, -1), keepdims=True)
        empty = size == 0
        normal = jnp.where(empty, identity, matrices / jnp.where(empty, 1, size))
        largest = largest_eigenvalue(normal)[:, None, None]
        scale = jnp.where(empty, 1, size * largest)
        normal = jnp.where(empty, identity, normal / largest + ridge * identity)
        z = jnp.asarray((1 + p) / 2 / (1 + ridge), dtype)
        tolerance = 4 * jnp.finfo(dtype).eps * side**0.5
        apart = lambda m: jnp.max(jnp.abs(m - identity), axis=(-2, -1), keepdims=True)

        def goes_on(carry: tuple) -> Array:
            number, _, _, _, active = carry
            return jnp.any(active) & (number < LIMIT)

        def step(carry: tuple) -> tuple:
            number, m, x, error, active = carry
            t = ((p + 1) * identity - m) / p
            new_m, new_x = _power(t, p) @ m, x @ t
            new_error = apart(new_m)
            # Near its end the error stops falling at what rounding allows; far from it, it may rise by a little.
            better = active & ((new_error < error) | (error > WORST))
            m, x = jnp.where(better, new_m, m), jnp.where(better, new_x, x)
            error = jnp.where(better, new_error, error)
            return number + 1, m, x, error, better & (error > tolerance)

        m, x = z * normal, z ** (1 / p) * identity + jnp.zeros_like(normal)
        error = apart(m)
        _, _, x, error, _ = jax.lax.while_loop(goes_on, step, (0, m, x, error, jnp.isfinite(error)))
        root = (x + x.mT) / 2 * scale ** (-1 / p)
        found = (error < WORST) & jnp.all(jnp.isfinite(root), axis=(-2, -1), keepdims=True)
    return Roots(jnp.where(found, root, identity), found[:, 0, 0])


def shared_roots(
    matrices: list[Array], powers: list[int], ridge: float, mesh: Mesh | AbstractMesh | None
) -> list[Roots]:
    """`inverse_roots` of stacks of matrices, each stack with its p.

    Matrices of one size and one p are computed together. Of a mesh of several devices each takes its share of them, and
    all get all roots.
    """
    results: dict[int, Roots] = {}
    kinds = sorted({(stack.shape[-1], p) for stack, p in zip(matrices, powers)})
    for side, p in kinds:
        members = [n for n, stack in enumerate(matrices) if (stack.shape[-1], powers[n]) == (side, p)]
        together = jnp.concatenate([matrices[n] for n in members])
        found = _over_devices(together, p, ridge, mesh)
        ends = np.cumsum([len(matrices[n]) for n in members])
        for n, end in zip(members, ends):
            part = slice(int(end) - len(matrices[n]), int(end))
            results[n] = Roots(found.root[part], found.found[part])
    return [results[n] for n in range(len(matrices))]


def _over_devices(matrices: Array, p: int, ridge: float, mesh: Mesh | AbstractMesh | None) -> Roots:
    if mesh is None or mesh.size == 1:
        return inverse_roots(matrices, p, ridge)
    count, side = len(matrices), matrices.shape[-1]
    fill = jnp.broadcast_to(jnp.eye(side, dtype=matrices.dtype), (-count % mesh.size, side, side))
    axes = PartitionSpec(mesh.axis_names)
    own = jax.shard_map(lambda part: inverse_roots(part, p, ridge), mesh=mesh, in_specs=axes, out_specs=axes)
    whole = jax.sharding.NamedSharding(mesh, PartitionSpec())
    found = jax.lax.with_sharding_constraint(own(jnp.concatenate([matrices, fill])), whole)
    return Roots(found.root[:count], found.found[:count])


def _power(matrix: Array, p: int) -> Array:
    """The p-th power, by squares."""
    result, square = None, matrix
    while p:
        if p % 2:
            result = square if result is None else result @ square
        p //= 2
        square = square @ square if p else square
    assert result is not None
    return result
