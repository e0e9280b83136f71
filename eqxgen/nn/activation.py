"""Activations by name, each by its published formula."""

import functools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.nn import _check

Function = Callable[[Array], Array]


def keeping_slope(both: Callable[[Array], tuple[Array, Array]]) -> Function:
    """An activation from a function that returns value and slope together, in float32 at least.

    The backward pass keeps the slope only, in the dtype of the input. JAX alone would keep each factor of the chain
    rule, three or four arrays of the widest activations of a model, and reading them is most of the time.

    The kept array is 1 / slope, as a divisor: XLA on a CPU computes a quotient once for all its uses, but a product
    again for each use, and the gradient of the weights uses it transposed, with strided reads. The difference is a
    tenth of the step of a small GPT.
    """

    def narrow(x: Array) -> tuple[Array, Array]:
        value, slope = both(widen(x))
        # The lower bound keeps the square of the reciprocal finite, which second derivatives need.
        least = max(1e-12, float(jnp.finfo(x.dtype).tiny))
        slope = jnp.where(slope < 0, jnp.minimum(slope, -least), jnp.maximum(slope, least))
        return value.astype(x.dtype), (1 / slope).astype(x.dtype)

    function = jax.custom_jvp(lambda x: narrow(x)[0])

    @function.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        value, inverse = narrow(*primals)
        return value, tangents[0] / inverse

    return function


def _gelu(x: Array) -> tuple[Array, Array]:
    cdf = 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))
    return x * cdf, cdf + x * jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def _gelu_tanh(x: Array) -> tuple[Array, Array]:
    scale = math.sqrt(2 / math.pi)
    tanh = jnp.tanh(scale * (x + 0.044715 * x * x * x))
    cdf = 0.5 + 0.5 * tanh
    return x * cdf, cdf + 0.5 * x * (1 - tanh * tanh) * scale * (1 + 3 * 0.044715 * x * x)


def _swish(x: Array, beta: float = 1.0) -> tuple[Array, Array]:
    gate = jax.nn.sigmoid(beta * x)
    return x * gate, gate + beta * x * gate * (1 - gate)


ACTIVATIONS: dict[str, Function] = {
    "gelu": keeping_slope(_gelu),  # Hendrycks and Gimpel 2016 (arXiv:1606.08415), x Φ(x)
    "gelu_tanh": keeping_slope(_gelu_tanh),  # the same paper's x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))); GPT-2
    "quick_gelu": keeping_slope(functools.partial(_swish, beta=1.702)),  # the same paper's sigmoid form; CLIP
    "swish": keeping_slope(_swish),  # x σ(x); Ramachandran et al. 2017, arXiv:1710.05941
    "hard_swish": jax.nn.hard_swish,  # x clip(x + 3, 0, 6) / 6; Howard et al. 2019, arXiv:1905.02244
    "mish": jax.nn.mish,  # x tanh(ln(1 + exp(x))); Misra 2019, arXiv:1908.08681
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "squared_relu": lambda x: jnp.square(jax.nn.relu(x)),  # So et al. 2021 (Primer), arXiv:2109.08668
    "leaky_relu": lambda x: jax.nn.leaky_relu(
        x, 0.2
    ),  # slope 0.2, as in StyleGAN's discriminator; torch's default: 0.01
    "elu": jax.nn.elu,  # exp(x) - 1 below zero; Clevert et al. 2015, arXiv:1511.07289
    "selu": jax.nn.selu,  # Klambauer et al. 2017, arXiv:1706.02515
    "softplus": jax.nn.softplus,  # ln(1 + exp(x))
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "identity": lambda x: x,
}

ALIASES: dict[str, str] = {
    "egelu": "gelu",  # exact
    "ngelu": "gelu_tanh",
    "gelu_new": "gelu_tanh",  # transformers' name
    "agelu": "quick_gelu",  # approximate
    "quick": "quick_gelu",
    "silu": "swish",
    "relu2": "squared_relu",
}
"""Other names of the same functions."""


class Activation(eqx.Module):
    """An elementwise function by name, from `ACTIVATIONS` or `ALIASES`.

    Raises:
        ValueError: the name is unknown; the message suggests names of similar spelling.
    """

    name: str = eqx.field(static=True)

    def __init__(self, name: str = "gelu", *, key: PRNGKeyArray | None = None):
        _check.one_of("name", name, (*ACTIVATIONS, *ALIASES))
        self.name = ALIASES.get(name, name)

    def __call__(self, x: Float[Array, "*shape"], *, key: PRNGKeyArray | None = None) -> Float[Array, "*shape"]:
        return ACTIVATIONS[self.name](x)
