"""The one door to the kernels, and the import for users: `from eqxgen.ops import dot_product_attention`."""

import importlib
from types import ModuleType


def _kernels() -> ModuleType:
    """The kernels beside this file in a wheel, or at the top of a checkout."""
    try:
        return importlib.import_module("._kernels", __package__)
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}._kernels":
            raise
    package = importlib.import_module("kernels")
    if not getattr(package, "__version__", "").endswith("+eqxgen"):
        raise ImportError(
            f"eqxgen needs its own package `kernels`, but Python finds another of that name at {package.__file__}: "
            "run from the top of the eqxgen checkout, or install the wheel, which carries its kernels inside"
        )
    return package


_package = _kernels()
dot_product_attention = _package.dot_product_attention
layer_norm = _package.layer_norm
rms_norm = _package.rms_norm
group_norm = _package.group_norm
dropout_mask = _package.dropout_mask
ALiBi = _package.ALiBi
masks = _package.masks

__all__ = ["ALiBi", "dot_product_attention", "dropout_mask", "group_norm", "layer_norm", "masks", "rms_norm"]
