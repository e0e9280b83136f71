"""Number types of a run, and the guard of its state against numbers that are not finite.

`policy` is text and needs no jax; `layers` gives single layers a policy of their own; `scale` holds the loss scales,
`guard` the update that is made only if every gradient is finite.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .policy import ISLANDS, Policy

if TYPE_CHECKING:
    from .guard import Guarded, Skipped, SpikesSkipped, all_finite, check_skipped, choose, guarded_update
    from .layers import WithPolicy, to_compute, to_output, to_params, with_policy
    from .scale import DynamicLossScale, LossScale, NoLossScale, StaticLossScale, cast, scale_for

__all__ = [
    "ISLANDS",
    "DynamicLossScale",
    "Guarded",
    "LossScale",
    "NoLossScale",
    "Policy",
    "Skipped",
    "SpikesSkipped",
    "StaticLossScale",
    "WithPolicy",
    "all_finite",
    "cast",
    "check_skipped",
    "choose",
    "guarded_update",
    "scale_for",
    "to_compute",
    "to_output",
    "to_params",
    "with_policy",
]

_HOMES = {
    "guard": ("Guarded", "Skipped", "SpikesSkipped", "all_finite", "check_skipped", "choose", "guarded_update"),
    "layers": ("WithPolicy", "to_compute", "to_output", "to_params", "with_policy"),
    "scale": ("DynamicLossScale", "LossScale", "NoLossScale", "StaticLossScale", "cast", "scale_for"),
}


def __getattr__(name: str) -> Any:
    # On first use: a config reads a policy's text, and must not wait for jax to do so.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
