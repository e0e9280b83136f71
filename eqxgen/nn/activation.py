"""Activations by name, each to its published formula."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # Hendrycks and Gimpel 2016, x Φ(x)
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),  # the same paper's tanh form; BERT in JAX, GPT-2
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # the same paper's sigmoid form; CLIP
    "swish": jax.nn.silu,
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),  # slope 0.2, as the discriminators of StyleGAN
    "tanh": jnp.tanh,
    "mish": jax.nn.mish,
}


class Activation(eqx.Module):
    """An elementwise function by name: one of `ACTIVATIONS`."""

    name: str = eqx.field(static=True)

    def __init__(self, name: str = "gelu"):
        _check.one_of("name", name, ACTIVATIONS)
        self.name = name

    def __call__(self, x: Float[Array, "*shape"], *, key: PRNGKeyArray | None = None) -> Float[Array, "*shape"]:
        return ACTIVATIONS[self.name](x)
