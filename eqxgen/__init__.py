"""Equinox layers and generative models on fused JAX kernels."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eqxgen.overview import summary
    from eqxgen.rng import RNG

__version__ = "0.1.0"
__all__ = ["RNG", "summary"]


def __getattr__(name: str):
    # Imported on first use: the command line reads eqxgen.configs, and must not wait for jax to do so.
    if name == "RNG":
        from eqxgen.rng import RNG

        return RNG
    if name == "summary":
        from eqxgen.overview import summary

        return summary
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
