"""A race of one layer: ours and its rivals, each with what it is called on, forward and then with all gradients."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

Runs = dict[str, Callable[[], Any]]
PHASES = ("forward", "forward and backward")


class Race(NamedTuple):
    """One layer's row. Each contender is made when its turn comes, and is `(function, *arguments)` with one array as
    its result.

    ours: in JAX; `batched(layer)` is the usual function, and the layer itself the first argument.
    equinox: the same of `equinox.nn`, in its layout; `None` where it has no such layer.
    torch: `(module, *tensors)`; `None` where it has none. Of several results the first counts.
    """

    ours: Callable[[], tuple[Any, ...]]
    equinox: Callable[[], tuple[Any, ...]] | None = None
    torch: Callable[[], tuple[Any, ...]] | None = None

    def runs(self) -> dict[str, Runs]:
        """For each phase, functions without arguments by contender."""
        found = {"ours": in_jax(*self.ours())}
        found |= {"equinox": in_jax(*self.equinox())} if self.equinox else {}
        found |= {"torch": in_torch(*self.torch())} if self.torch else {}
        return {phase: {name: runs[phase] for name, runs in found.items()} for phase in PHASES}


def batched(layer: Any, x: jax.Array) -> jax.Array:
    """A layer of one example on a batch."""
    return jax.vmap(layer)(x)


def each_token(layer: Any, x: jax.Array) -> jax.Array:
    """A layer of one token on a batch of sequences."""
    return jax.vmap(jax.vmap(layer))(x)


def torch_layers() -> Any:
    """`torch.nn`, imported when a race against it begins."""
    import torch

    return torch.nn


def normal(*shape: int) -> jax.Array:
    return jr.normal(jr.key(0), shape)


def in_jax(function: Callable, *arguments: Any) -> Runs:
    arrays, rest = eqx.partition(arguments, eqx.is_inexact_array)
    call = lambda arrays: function(*eqx.combine(arrays, rest))

    def both(arrays: Any, dy: jax.Array):
        y, pull = jax.vjp(call, arrays)
        return y, pull(dy)[0]

    forward = jax.jit(call)
    dy = jr.normal(jr.key(1), forward(arrays).shape)
    return {"forward": functools.partial(forward, arrays), PHASES[1]: functools.partial(jax.jit(both), arrays, dy)}


def in_torch(module: Any, *tensors: Any) -> Runs:
    import torch

    torch.set_num_threads(2)
    torch.manual_seed(0)
    leaves = [*getattr(module, "parameters", list)(), *(tensor.requires_grad_() for tensor in tensors)]

    def call():
        y = module(*tensors)
        return y[0] if isinstance(y, tuple) else y

    def forward():
        with torch.no_grad():
            call()

    dy = torch.randn(call().shape)
    return {"forward": forward, PHASES[1]: lambda: torch.autograd.grad(call(), leaves, dy)}


def tensor(x: jax.Array) -> Any:
    """The same numbers for torch; images channels first, in its own layout."""
    import numpy as np
    import torch

    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1) if x.ndim > 3 else np.asarray(x)).contiguous()


def first(x: jax.Array) -> jax.Array:
    """A batch of images channels first, as `equinox.nn` takes it."""
    return jnp.moveaxis(x, -1, 1)
