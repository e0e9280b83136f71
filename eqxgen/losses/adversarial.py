"""Non-saturating adversarial losses (Goodfellow et al. 2014, arXiv:1406.2661) and the R1 penalty (Mescheder et al.
2018, arXiv:1801.04406). A positive logit means real.
"""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Tree = TypeVar("Tree")


def generator_loss(on_fake: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """softplus(-D(fake)): the generator's loss from the discriminator's logits of its samples."""
    return jax.nn.softplus(-on_fake)


def discriminator_loss(on_real: Float[Array, "*batch"], on_fake: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """softplus(-D(real)) + softplus(D(fake)): the discriminator's loss from its logits."""
    return jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake)


def r1_penalty(
    discriminator: Callable[[Float[Array, "*shape"]], Float[Array, ""]], real: Float[Array, "*shape"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Logit of one real example, and |∇ D(real)|² / 2, to be weighted by γ; both from one pass."""
    logit, slope = jax.value_and_grad(discriminator)(real)
    return logit, jnp.sum(slope.astype(jnp.float32) ** 2) / 2


def held(tree: Tree) -> Tree:
    """The tree with no gradient through its arrays: the other player, or its samples, in a shared forward pass."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree)
