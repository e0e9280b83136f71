"""The calls, devices and versions that the kernels support."""

import functools
import sys

import jax
import jax.numpy as jnp

from ... import _cuda
from ..problem import Extras, Setting
from .pattern import FINEST, too_fine

_PYTHON = sys.version_info[:2]
WIDEST = 256
HOPPER = "9.0"
HOPPER_NAMES = ("H100", "H200", "H800", "H20", "GH200")
# The assembler of these releases miscompiles warp-specialised kernels with masks.
BROKEN_CUDA = range(12080, 12091)


def supports(q, k, v, extras: Extras, setting: Setting) -> str | None:
    """The reason why the kernels cannot run on this call, or None."""
    if jax.__version_info__ < (0, 11):
        major, minor = _PYTHON
        python = "" if _PYTHON >= (3, 12) else f", and jax 0.11 needs Python 3.12: this is {major}.{minor}"
        return f"it needs jax 0.11 or newer: this is {jax.__version__}{python}"
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"the kernel computes bfloat16 and float16: got {q.dtype}"
    if max(q.shape[-1], v.shape[-1]) > WIDEST:
        return f"head_dim above {WIDEST} does not fit the registers: got {max(q.shape[-1], v.shape[-1])}"
    for x in jax.tree.leaves(extras):
        if x.dtype == jnp.float64:
            return "the kernel adds a bias in float32: got float64"
    if mask := too_fine(extras.mask):
        return f"a pattern of blocks below {FINEST} has too many rows in a tile: got blocks of {mask.block}"
    return None


def device_reason(named: bool) -> str | None:
    """The reason why the program's device cannot run the kernels, or None.

    An unknown device passes if the kernels were requested by name, as for a program compiled ahead of time.
    """
    capability = _capability()
    if capability is None:
        return None if named else "the compute capability that this program is for is not known"
    if capability != HOPPER:
        return f"it compiles for Hopper, compute capability {HOPPER}: this device is {capability}"
    return _toolkit_reason()


def _capability() -> str | None:
    """The compute capability of the program's device, or the device's name if only that is known."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None and device.platform in ("cuda", "gpu"):
        hopper = any(name in device.device_kind for name in HOPPER_NAMES)
        return HOPPER if hopper else device.device_kind
    found = _cuda.device()
    return None if found is None else found.compute_capability


@functools.cache
def _toolkit_reason() -> str | None:
    # A private API: jax has no public one for CUDA's version.
    from jax._src.lib import cuda_versions

    version = cuda_versions.cuda_runtime_get_version() if cuda_versions is not None else 0
    if version not in BROKEN_CUDA:
        return None
    return f"CUDA {version // 1000}.{version % 1000 // 10} compiles such kernels wrongly: use 12.9.1 or newer"
