"""Layer, RMS and group norm with fused residual add, modulation and activation."""

from .api import group_norm, layer_norm, rms_norm

__all__ = ["group_norm", "layer_norm", "rms_norm"]
