"""Whether an implementation for NVIDIA GPUs can be built for a call."""

from typing import Any

import jax

from .. import _trial
from .problem import Extras, Setting, accumulator


def build_failure(backend: Any, direction: str, q, k, v, extras: Extras, setting: Setting) -> str | None:
    """What the compiler has against the "forward" or "backward" pass of this call by a backend's module, or None."""
    leaves, tree = jax.tree.flatten(extras)
    operands = [q, k, v, *leaves]
    if direction == "backward":
        out = jax.ShapeDtypeStruct((*q.shape[:3], v.shape[3]), q.dtype)
        numbers = jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1]), accumulator(q.dtype))
        operands += [out, numbers, out, numbers]
    return _trial.build_failure(_run, *operands, backend=backend, tree=tree, setting=setting)


def _run(q, k, v, *rest, backend: Any, tree: Any, setting: Setting):
    extras, rest = jax.tree.unflatten(tree, rest[: tree.num_leaves]), rest[tree.num_leaves :]
    if not rest:
        return backend.forward(q, k, v, extras, setting)
    return backend.backward(q, k, v, extras, setting, *rest, with_bias=extras.bias is not None)
