"""A state as named arrays that Orbax can write, and back."""

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PyTree

from ..params.paths import named_arrays
from ..run.weights import check_arrays, with_arrays

NAMED = ("opt_state", "scale", "skipped")
"""Parts of a state that have an entry for each player or turn."""

HINTS = {
    "opt_state": "was --optim.name, or what it averages, changed?",
    "model": "were --model's sizes, or the model's code, changed?",
    "ema": "were --ema, --model's sizes, or the model's code, changed?",
    "state": "were --model's sizes, or the model's code, changed?",
    "averaged_state": "were --ema, --model's sizes, or the model's code, changed?",
}
"""The likely cause of a difference, by the first word of a leaf's path."""


def to_save(state: PyTree) -> dict[str, Any]:
    """The arrays of a state by their paths; keys as their integers."""
    return {name: jr.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in named_arrays(state).items()}


def to_restore(template: PyTree) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, type and place of the arrays of a state, of which some or all may be `ShapeDtypeStruct`s.

    A leaf that says no place goes to the first device.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        data = jax.eval_shape(jr.key_data, leaf) if _is_key(leaf) else leaf
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=leaf.sharding or here)

    return {name: place(leaf) for name, leaf in named_arrays(template).items()}


def stored_names(wanted: Iterable[str], saved: Container[str]) -> dict[str, str]:
    """The name under which a checkpoint holds each leaf.

    Optimisers, loss scales and counters had no player's and no turn's name in the versions of one player and one turn:
    `opt_state.model.1.mu` is then `opt_state.1.mu`.
    """

    def one(name: str) -> str:
        first, *rest = name.split(".")
        before = ".".join([first, *rest[1:]])
        return before if first in NAMED and name not in saved and before in saved else name

    return {name: one(name) for name in wanted}


def check_leaves(where: Path, wanted: dict[str, jax.ShapeDtypeStruct], saved: dict[str, Any]) -> None:
    """Raises `UserError` that names the first leaf of another name, shape or type, and the likely flag.

    Orbax itself would cast to the template's type without a word.
    """
    check_arrays(where, {name: (leaf.shape, leaf.dtype) for name, leaf in wanted.items()}, saved, _cure)


def restored(template: PyTree, arrays: dict[str, Any]) -> PyTree:
    """The state with the arrays in their places."""
    wanted = named_arrays(template)
    keys = {
        name: jr.wrap_key_data(arrays[name], impl=_implementation(leaf))
        for name, leaf in wanted.items()
        if _is_key(leaf)
    }
    return with_arrays(template, arrays | keys)


def _cure(name: str) -> str:
    cause = HINTS.get(name.split(".")[0], "was the run's precision or code changed?")
    return f"{cause} Give the flags of the run, or another --run-dir"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _implementation(leaf: Any) -> Any:
    """The generator of a key, which may be only a shape."""
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jr.key_impl(key)), leaf)
    return found[0]
