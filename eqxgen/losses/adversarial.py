"""Adversarial losses of a generator and a discriminator, and penalties of the discriminator. A positive logit means
real.

With r and f the discriminator's logits of a real and a made example, and s the softplus:

    form             generator     discriminator                       source
    non_saturating   s(-f)         s(-r) + s(f)                        Goodfellow et al. 2014, arXiv:1406.2661
    logistic         s(-f)         (s(-r) + s(f)) / 2                  "vanilla" of enhancing-transformers
    vanilla          -f            (s(-r) + s(f)) / 2                  taming-transformers
    hinge            -f            (max(0, 1-r) + max(0, 1+f)) / 2     Lim and Ye 2017, arXiv:1705.02894; taming
    least_squares    f²            ((1-r)² + (1+f)²) / 2               Mao et al. 2017, arXiv:1611.04076, equation 8;
                                                                       enhancing-transformers
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen
from eqxgen.nn import _check

Tree = TypeVar("Tree")


class Form(NamedTuple):
    """The generator's loss of a logit of a made example, and the discriminator's of a real and of a made one."""

    generator: Callable[[Array], Array]
    real: Callable[[Array], Array]
    made: Callable[[Array], Array]


FORMS = {
    "non_saturating": Form(
        lambda fake: jax.nn.softplus(-fake), lambda real: jax.nn.softplus(-real), lambda fake: jax.nn.softplus(fake)
    ),
    "logistic": Form(
        lambda fake: jax.nn.softplus(-fake),
        lambda real: jax.nn.softplus(-real) / 2,
        lambda fake: jax.nn.softplus(fake) / 2,
    ),
    "vanilla": Form(
        lambda fake: -fake, lambda real: jax.nn.softplus(-real) / 2, lambda fake: jax.nn.softplus(fake) / 2
    ),
    "hinge": Form(lambda fake: -fake, lambda real: jax.nn.relu(1 - real) / 2, lambda fake: jax.nn.relu(1 + fake) / 2),
    "least_squares": Form(lambda fake: fake**2, lambda real: (1 - real) ** 2 / 2, lambda fake: (1 + fake) ** 2 / 2),
}
"""By name."""


def generator_loss(on_fake: Float[Array, "*batch"], form: str = "non_saturating") -> Float[Array, "*batch"]:
    """The generator's loss from the discriminator's logits of its samples.

    Raises:
        ValueError: another form than those of the module.
    """
    return _form(form).generator(widen(on_fake))


def discriminator_loss(
    on_real: Float[Array, "*batch"], on_fake: Float[Array, "*batch"], form: str = "non_saturating"
) -> Float[Array, "*batch"]:
    """The discriminator's loss from its logits.

    Raises:
        ValueError: another form than those of the module, or logits of two shapes.
    """
    chosen = _form(form)
    _check.same_shape(on_real=on_real, on_fake=on_fake)
    return chosen.real(widen(on_real)) + chosen.made(widen(on_fake))


def r1_penalty(
    discriminator: Callable[[Float[Array, "*shape"]], Float[Array, ""]], real: Float[Array, "*shape"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Logit of one real example, and |∇ D(real)|² / 2, to be weighted by γ; both from one pass (Mescheder et al. 2018,
    arXiv:1801.04406).
    """
    logit, slope = jax.value_and_grad(discriminator)(real)
    return logit, jnp.sum(widen(slope) ** 2) / 2


class Anchors(NamedTuple):
    """Moving averages of the discriminator's logits: of real examples, and of made ones."""

    real: Float[Array, ""]
    made: Float[Array, ""]

    @classmethod
    def zero(cls) -> "Anchors":
        """Before the first batch."""
        return cls(jnp.zeros(()), jnp.zeros(()))

    def moved(self, real: Float[Array, ""], made: Float[Array, ""], decay: float = 0.99) -> "Anchors":
        """After a batch of these mean logits."""
        blend = lambda old, new: decay * old + (1 - decay) * jax.lax.stop_gradient(new).astype(old.dtype)
        return Anchors(blend(self.real, real), blend(self.made, made))


def lecam_penalty(
    on_real: Float[Array, "*batch"], on_fake: Float[Array, "*batch"], anchors: Anchors
) -> Float[Array, "*batch"]:
    """max(0, D(real) - anchor of made)² + max(0, anchor of real - D(made))², which holds the two sets of logits close
    where data are few (Tseng et al. 2021, arXiv:2104.03310, equation 4, in the one-sided form of the authors' code).
    """
    _check.same_shape(on_real=on_real, on_fake=on_fake)
    real, made = (jax.lax.stop_gradient(anchor) for anchor in anchors)
    return jax.nn.relu(on_real - made) ** 2 + jax.nn.relu(real - on_fake) ** 2


def held(tree: Tree) -> Tree:
    """The tree with no gradient through its arrays: the other player, or its samples, in a shared forward pass."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree)


def _form(name: str) -> Form:
    if name not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}: got {name!r}")
    return FORMS[name]
