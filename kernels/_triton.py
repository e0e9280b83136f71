"""Launches of Triton kernels: described without triton, and passed to jax-triton in one place."""

import dataclasses
import importlib
import importlib.util
from typing import Any, ClassVar

import jax
from jax import Array

from . import _compat, _cuda

OLDEST = 80  # code for sm_80 runs on every later GPU and on no earlier one


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch of `kernel`, a function in the module `module` of the subpackage `package`.

    It is called with pointers to its inputs, then to its `outputs`. Each op adds the compile-time arguments `sizes`, by
    name, and the `warps` of a program.
    """

    package: ClassVar[str]
    module: str
    kernel: str
    outputs: tuple[jax.ShapeDtypeStruct, ...]
    grid: int


def unavailable() -> str | None:
    """The reason why jax-triton cannot be used in this process or on its GPU, or None."""
    capability = _cuda.capability()
    if capability is not None and capability < OLDEST:
        return f"it compiles for compute capability 8.0 and newer: this device is {capability / 10}"
    missing = [name for name in ("triton", "jax_triton") if importlib.util.find_spec(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; install the extra `cuda`"
    try:
        importlib.import_module("jax_triton")
    except ImportError as error:
        reason = str(error).splitlines()[0]
        return f"jax-triton, which needs jax's CUDA plugin to lower, cannot be imported: {reason}"
    return None


def call(launch: Any, *inputs: Array) -> list[Array]:
    """The outputs of a launch."""
    import jax_triton  # optional, and it cannot be imported without jax's CUDA plugin
    from jax_triton import triton_lib

    _compat.keep_always(triton_lib.triton_kernel_call_p)
    kernels = importlib.import_module(f".{launch.package}.{launch.module}", __package__)
    return jax_triton.triton_call(
        *inputs,
        kernel=getattr(kernels, launch.kernel),
        out_shape=list(launch.outputs),
        grid=(launch.grid,),
        num_warps=launch.warps,
        num_stages=launch.stages,
        name=f"eqxgen_{launch.package.replace('.', '_')}_{launch.kernel}",
        **launch.sizes,
    )
