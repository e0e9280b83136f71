"""Arrays of tests from NumPy: an eager `jax.random` or `jnp` operation compiles a program for each shape."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

Seed = int | np.random.Generator
"""A generator draws what follows its earlier numbers, for several inputs of one seed."""


def drawn(shape: tuple[int, ...], seed: Seed = 0) -> jax.Array:
    """Standard normal numbers in float32."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def integers(shape: tuple[int, ...], bound: int, seed: Seed = 0) -> jax.Array:
    """Integers from 0 and below `bound`."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, bound, shape), jnp.int32)


def filled(make: Callable[[Any], Any], seed: int = 0) -> Any:
    """The model that `make(key)` builds, with drawn parameters in place of its initialisers', which are not run.

    Scales are near one; other parameters are normal, so that none is zero. Numbers of other types than floats are
    refused with a TypeError: their values would be wrong.
    """
    rng = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"{name} must be of floats: got {leaf.dtype}; build the model by its constructor")
        values = 0.2 * rng.standard_normal(leaf.shape) + (name.split(".")[-1] == "scale")
        return jnp.asarray(values.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(fill, eqx.filter_eval_shape(make, jr.key(0)))
