"""Functions of exponential integrators, and polynomials through nodes."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

TERMS = 14


def phi(order: int, z: Float[Array, ""]) -> Float[Array, ""]:
    """phi_k(z) = sum of z^j / (j + k)!: phi_0 is exp, phi_k = (phi_{k-1} - 1 / (k - 1)!) / z.

    Below 1 in magnitude it is the series, since the recursion cancels there.
    """
    small = jnp.where(jnp.abs(z) < 1, z, 0)
    series = sum(small**j * (1 / math.factorial(j + order)) for j in range(TERMS))
    large = jnp.where(jnp.abs(z) < 1, 1, z)
    found = jnp.expm1(large) / large if order else jnp.exp(z)
    for k in range(2, order + 1):
        found = (found - 1 / math.factorial(k - 1)) / large
    return jnp.where(jnp.abs(z) < 1, series, found)


def lagrange(
    nodes: Float[Array, " nodes"], used: Bool[Array, " nodes"], at: Float[Array, " points"]
) -> Float[Array, "nodes points"]:
    """Values of the polynomials that are 1 at one used node and 0 at the others; zeros for nodes that are not used."""
    apart = nodes[:, None] - nodes[None, :]
    pairs = used[:, None] & used[None, :] & ~jnp.eye(len(nodes), dtype=bool)
    over = (at[None, None, :] - nodes[None, :, None]) / jnp.where(pairs, apart, 1)[..., None]
    return jnp.where(used[:, None], jnp.prod(jnp.where(pairs[..., None], over, 1), axis=1), 0)


def vandermonde(nodes: Sequence[Float[Array, ""]], moments: Sequence[Float[Array, ""]]) -> list[Float[Array, ""]]:
    """Weights w of few nodes r with sum of w_k r_k^i = moment i for each i."""
    weights = []
    for k, node in enumerate(nodes):
        poly = [jnp.ones_like(node)]
        for other in (*nodes[:k], *nodes[k + 1 :]):
            shifted, scaled = [0, *poly], [*(other * p for p in poly), 0]
            poly = [(a - b) / (node - other) for a, b in zip(shifted, scaled)]
        weights.append(sum(p * m for p, m in zip(poly, moments)))
    return weights
