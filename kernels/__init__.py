"""Attention and norms for TPU, GPU and CPU behind one API.

The names below are imported on first use, so that importing this package costs nothing. Code outside this checkout
imports them from `eqxgen.ops`.
"""

import importlib

# Not eqxgen's version. Hugging Face's `kernels` shares this name, and transformers asks for its version; one outside
# the window it accepts makes transformers go on without that package when it runs in a checkout of ours.
__version__ = "0.0.0+eqxgen"

_HOME = {
    "dot_product_attention": "attention",
    "layer_norm": "norm",
    "rms_norm": "norm",
    "group_norm": "norm",
    "ALiBi": "attention",
    "dropout_mask": "_dropout",
    "masks": "masks",
}
__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_HOME[name]}", __name__)
    return module if name == _HOME[name] else getattr(module, name)
