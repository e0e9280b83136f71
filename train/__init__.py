"""Recipes, the engine under them, and the parts of it for a training step of your own."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqxgen.rng import RNG

    from .engine.ddp import ddp, gradients, replicate, unreplicate
    from .engine.recipes import load
    from .params.selection import (
        apply_gradients,
        freeze,
        parameterise,
        parameters,
        select,
        select_states,
        unfreeze,
        update,
        update_states,
    )
    from .precision import (
        DynamicLossScale,
        NoLossScale,
        Policy,
        Skipped,
        SpikesSkipped,
        StaticLossScale,
        guarded_update,
        with_policy,
    )

__all__ = [
    "RNG",
    "DynamicLossScale",
    "NoLossScale",
    "Policy",
    "Skipped",
    "SpikesSkipped",
    "StaticLossScale",
    "apply_gradients",
    "ddp",
    "freeze",
    "gradients",
    "guarded_update",
    "load",
    "parameterise",
    "parameters",
    "replicate",
    "select",
    "select_states",
    "unfreeze",
    "unreplicate",
    "update",
    "update_states",
    "with_policy",
]

_HOMES = {
    "eqxgen.rng": ("RNG",),
    ".precision": (
        "DynamicLossScale",
        "NoLossScale",
        "Policy",
        "Skipped",
        "SpikesSkipped",
        "StaticLossScale",
        "guarded_update",
        "with_policy",
    ),
    ".engine.recipes": ("load",),
    ".engine.ddp": ("ddp", "gradients", "replicate", "unreplicate"),
    ".params.selection": (
        "apply_gradients",
        "freeze",
        "parameterise",
        "parameters",
        "select",
        "select_states",
        "unfreeze",
        "update",
        "update_states",
    ),
}


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line must not wait for jax.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
