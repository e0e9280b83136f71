"""Weight of the adversarial term by the gradients of the decoder's last layer (Esser et al. 2021, arXiv:2012.09841,
equation 7).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from eqxgen._widen import widen

LARGEST = 1e4


def adaptive_weight(
    reconstruction: PyTree, adversarial: PyTree, *, scale: float = 0.8, largest: float = LARGEST
) -> Float[Array, ""]:
    """scale · min(largest, |∇ reconstruction| / (|∇ adversarial| + 1e-4)), in float32 at least and without a gradient.

    Args:
        reconstruction: gradient of the reconstruction loss, perceptual term included, by the last layer's weight, of
            the whole batch.
        adversarial: of the generator's loss.
        scale: 0.8 in taming-transformers.
        largest: bound of the ratio.
    """
    ratio = jnp.clip(_norm(reconstruction) / (_norm(adversarial) + 1e-4), 0.0, largest)
    return scale * jax.lax.stop_gradient(ratio)


def last_layer_gradient(
    layer: Any, weight: Callable[[Any], Array], features: Float[Array, "batch *shape"], slopes: Float[Array, "batch *y"]
) -> Float[Array, "..."]:
    """Gradient by a layer's weight of a loss whose gradient by the layer's results is known; in float32 at least.

    Args:
        layer: of one example.
        weight: (layer) -> its weight.
        features: what the layer is called with, of each example.
        slopes: gradient of the summed loss by its results.
    """

    def results(own: Array) -> Array:
        changed = eqx.tree_at(weight, layer, own)
        return jax.vmap(changed)(features)

    return widen(jax.vjp(results, weight(layer))[1](slopes)[0])


def _norm(tree: PyTree) -> Float[Array, ""]:
    return jnp.sqrt(sum((jnp.sum(widen(x) ** 2) for x in jax.tree.leaves(tree)), jnp.zeros(())))
