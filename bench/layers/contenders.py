"""Contenders of one layer: ours, `equinox.nn`'s and PyTorch's, each with its arguments in its own layout."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from bench.race import Makers, Side, jax_side, torch_side


class Race(NamedTuple):
    """One layer's row. A contender is a function that makes `(function, *arguments)`; the function has one array as its
    result.

    Attributes:
        ours: in JAX; `batched` is the usual function, and the layer itself the first argument.
        equinox: the same of `equinox.nn`, in its layout; `None` without such a layer.
        torch: `(module, *tensors)`; `None` without such a layer. Of several results the first counts.
    """

    ours: Callable[[], tuple[Any, ...]]
    equinox: Callable[[], tuple[Any, ...]] | None = None
    torch: Callable[[], tuple[Any, ...]] | None = None

    def makers(self, phase: str) -> Makers:
        """The contenders in one of `bench.race.PHASES`, forward or with all gradients."""
        in_jax = {"ours": self.ours} | ({"equinox": self.equinox} if self.equinox else {})
        makers = {name: functools.partial(_jax, make, phase) for name, make in in_jax.items()}
        return makers | ({"torch": functools.partial(_torch, self.torch, phase)} if self.torch else {})


def batched(layer: Any, x: jax.Array) -> jax.Array:
    """A layer of one example on a batch."""
    return jax.vmap(layer)(x)


def each_token(layer: Any, x: jax.Array) -> jax.Array:
    """A layer of one token on a batch of sequences."""
    return jax.vmap(jax.vmap(layer))(x)


def torch_layers() -> Any:
    """`torch.nn`, imported at its first use."""
    import torch

    return torch.nn


def normal(*shape: int) -> jax.Array:
    return jr.normal(jr.key(0), shape)


def _jax(make: Callable[[], tuple[Any, ...]], phase: str) -> Side:
    function, *arguments = make()
    arrays, rest = eqx.partition(arguments, eqx.is_inexact_array)
    call = lambda arrays: function(*eqx.combine(arrays, rest))
    dy = jr.normal(jr.key(1), jax.eval_shape(call, arrays).shape)
    return jax_side(call, arrays, phase=phase, cotangent=dy)


def _torch(make: Callable[[], tuple[Any, ...]], phase: str) -> Side:
    import torch

    torch.manual_seed(0)
    module, *tensors = make()
    inputs = [*getattr(module, "parameters", list)(), *(tensor.requires_grad_() for tensor in tensors)]

    def call() -> Any:
        y = module(*tensors)
        return y[0] if isinstance(y, tuple) else y

    return torch_side(call, inputs, torch.randn(call().shape), phase)


def tensor(x: jax.Array) -> Any:
    """The same numbers for PyTorch; images channels first."""
    import numpy as np
    import torch

    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1) if x.ndim > 3 else np.asarray(x)).contiguous()


def first(x: jax.Array) -> jax.Array:
    """A batch of images channels first, `equinox.nn`'s layout."""
    return jnp.moveaxis(x, -1, 1)
