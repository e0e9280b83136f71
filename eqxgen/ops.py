"""The kernels, as users and the layers import them: `from eqxgen.ops import dot_product_attention`.

A wheel has them in `eqxgen/_kernels`, a checkout at its top.
"""

# A type checker knows one of the two packages, and gives every name its type from there alone: a name imported
# explicitly from both would be unknown.
try:
    from ._kernels import *  # noqa: F403
except ModuleNotFoundError as error:
    if error.name != f"{__package__}._kernels":
        raise
    import kernels

    if not getattr(kernels, "__version__", "").endswith("+eqxgen"):
        raise ImportError(
            f"eqxgen needs its own package `kernels`, but Python finds another of that name at {kernels.__file__}: "
            "run from the top of the eqxgen checkout, or install the wheel, which contains its kernels"
        ) from None
    from kernels import *  # noqa: F403

__all__ = [
    "ALiBi",  # noqa: F405
    "context_attention",  # noqa: F405
    "dot_product_attention",  # noqa: F405
    "dropout_mask",  # noqa: F405
    "from_zigzag",  # noqa: F405
    "group_norm",  # noqa: F405
    "grouped_matmul",  # noqa: F405
    "layer_norm",  # noqa: F405
    "masks",  # noqa: F405
    "rms_norm",  # noqa: F405
    "to_zigzag",  # noqa: F405
]
