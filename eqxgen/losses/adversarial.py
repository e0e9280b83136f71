"""Adversarial losses of logits. A positive logit means real.

form                  generator             discriminator                          source
non_saturating        softplus(-f)          softplus(-r) + softplus(f)             Goodfellow et al. 2014, 1406.2661
hinge                 -f                    relu(1 - r) + relu(1 + f)              Lim and Ye 2017, 1705.02894
least_squares         (f - 1)² / 2          ((r - 1)² + f²) / 2                    Mao et al. 2016, 1611.04076
wasserstein           -f                    f - r                                  Arjovsky et al. 2017, 1701.07875
relativistic          softplus(-(f - r))    softplus(-(r - f))                     Jolicoeur-Martineau 2018, 1807.00734
logistic              softplus(-f)          (softplus(-r) + softplus(f)) / 2       "vanilla" of enhancing-transformers
vanilla               -f                    (softplus(-r) + softplus(f)) / 2       taming-transformers
half_hinge            -f                    (relu(1 - r) + relu(1 + f)) / 2        taming- and enhancing-transformers
signed_least_squares  f²                    ((1 - r)² + (1 + f)²) / 2              enhancing-transformers

r and f are the logits of a real and of a generated image; those of `relativistic` are pairs. Everything is computed in
float32 at least.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from eqxgen._widen import widen
from eqxgen.nn import _check

Tree = TypeVar("Tree")
Logits = Float[Array, "*batch"]


class Objective(NamedTuple):
    """The losses of one form.

    Attributes:
        generator: (logits of generated images, logits of real ones where `paired`) -> losses.
        discriminator: (logits of real images, logits of generated ones) -> losses. Raises `ValueError` unless both have
            one shape.
        paired: the generator's loss needs the logits of real images.
    """

    generator: Callable[..., Logits]
    discriminator: Callable[[Logits, Logits], Logits]
    paired: bool = False


def _apart(
    generator: Callable[[Array], Array], real: Callable[[Array], Array], fake: Callable[[Array], Array]
) -> Objective:
    """Losses of each logit alone; the discriminator's are those of a real and of a generated image."""

    def discriminator(on_real: Logits, on_fake: Logits) -> Logits:
        _check.same_shape(on_real=on_real, on_fake=on_fake)
        return real(widen(on_real)) + fake(widen(on_fake))

    return Objective(lambda on_fake, on_real=None: generator(widen(on_fake)), discriminator)


def _of_pairs(**logits: Any) -> Logits:
    """Loss of the first logit of a pair, which should be above the second."""
    if logits["on_real"] is None:
        raise ValueError("on_real must be given for the form relativistic, whose losses are of pairs: got None")
    _check.same_shape(**logits)
    better, worse = map(widen, logits.values())
    return jax.nn.softplus(worse - better)


_softplus, _relu = jax.nn.softplus, jax.nn.relu

OBJECTIVES = {
    "non_saturating": _apart(lambda f: _softplus(-f), lambda r: _softplus(-r), _softplus),
    "hinge": _apart(lambda f: -f, lambda r: _relu(1 - r), lambda f: _relu(1 + f)),
    "least_squares": _apart(lambda f: (f - 1) ** 2 / 2, lambda r: (r - 1) ** 2 / 2, lambda f: f**2 / 2),
    "wasserstein": _apart(lambda f: -f, lambda r: -r, lambda f: f),
    "relativistic": Objective(
        lambda on_fake, on_real=None: _of_pairs(on_fake=on_fake, on_real=on_real),
        lambda on_real, on_fake: _of_pairs(on_real=on_real, on_fake=on_fake),
        paired=True,
    ),
    "logistic": _apart(lambda f: _softplus(-f), lambda r: _softplus(-r) / 2, lambda f: _softplus(f) / 2),
    "vanilla": _apart(lambda f: -f, lambda r: _softplus(-r) / 2, lambda f: _softplus(f) / 2),
    "half_hinge": _apart(lambda f: -f, lambda r: _relu(1 - r) / 2, lambda f: _relu(1 + f) / 2),
    "signed_least_squares": _apart(lambda f: f**2, lambda r: (1 - r) ** 2 / 2, lambda f: (1 + f) ** 2 / 2),
}
"""Forms of the losses by name."""


def objective(form: str) -> Objective:
    """The losses of a form.

    Raises:
        ValueError: the form is none of `OBJECTIVES`.
    """
    if form not in OBJECTIVES:
        raise ValueError(f"form must be one of {', '.join(OBJECTIVES)}: got {form!r}")
    return OBJECTIVES[form]


def held(tree: Tree) -> Tree:
    """The tree with no gradient through its arrays: the other player, or its samples, in a shared forward pass."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree)
