"""Layer norm, RMS norm and group norm with the residual, the modulation and the activation that stand beside them."""

from .api import group_norm, layer_norm, rms_norm

__all__ = ["group_norm", "layer_norm", "rms_norm"]
