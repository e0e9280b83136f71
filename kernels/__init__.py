"""Attention, norms, grouped products and dropout for TPU, GPU and CPU with one API.

The names are imported on first use, so that importing this package costs nothing. Code outside this checkout imports
them from `eqxgen.ops`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import masks
    from ._dropout import dropout_mask
    from .attention import ALiBi, dot_product_attention
    from .context import context_attention, from_zigzag, to_zigzag
    from .grouped import grouped_matmul
    from .norm import group_norm, layer_norm, rms_norm

# Not eqxgen's version. Hugging Face's `kernels` has the same name, and transformers asks for its version; with one
# outside the range it accepts, transformers runs without that package in a checkout of ours.
__version__ = "0.0.0+eqxgen"
__all__ = [
    "ALiBi",
    "context_attention",
    "dot_product_attention",
    "dropout_mask",
    "from_zigzag",
    "group_norm",
    "grouped_matmul",
    "layer_norm",
    "masks",
    "rms_norm",
    "to_zigzag",
]

_HOME = {
    "dot_product_attention": "attention",
    "context_attention": "context",
    "to_zigzag": "context",
    "from_zigzag": "context",
    "layer_norm": "norm",
    "rms_norm": "norm",
    "group_norm": "norm",
    "grouped_matmul": "grouped",
    "ALiBi": "attention",
    "dropout_mask": "_dropout",
    "masks": "masks",
}


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_HOME[name]}", __name__)
    return module if name == _HOME[name] else getattr(module, name)
