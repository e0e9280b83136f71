"""Equinox layers and generative models on fused JAX kernels."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqxgen import configs as configs
    from eqxgen import decoding as decoding
    from eqxgen import losses as losses
    from eqxgen import metrics as metrics
    from eqxgen import models as models
    from eqxgen import nn as nn
    from eqxgen import ops as ops
    from eqxgen import pretrained as pretrained
    from eqxgen.key_use import check_keys as check_keys
    from eqxgen.overview import summary as summary
    from eqxgen.rng import RNG as RNG
    from eqxgen.tree import check_tree as check_tree

__version__ = "0.1.0"
__all__ = [
    "RNG",
    "check_keys",
    "check_tree",
    "configs",
    "decoding",
    "losses",
    "metrics",
    "models",
    "nn",
    "ops",
    "pretrained",
    "summary",
]

_HOMES = {
    "RNG": "eqxgen.rng",
    "check_keys": "eqxgen.key_use",
    "check_tree": "eqxgen.tree",
    "summary": "eqxgen.overview",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line reads eqxgen.configs, which must not wait for jax.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(_HOMES.get(name, f"eqxgen.{name}"))
    return getattr(home, name) if name in _HOMES else home


def __dir__() -> list[str]:
    return ["__version__", *__all__]
