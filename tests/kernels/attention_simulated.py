"""The Hopper kernels of attention in JAX's simulator of a GPU, and lowered for a GPU that is not there."""

import contextlib
import dataclasses

import jax
import jax.experimental.pallas.mosaic_gpu as plgpu
import numpy as np

from kernels import ALiBi
from kernels.attention import mosaic_gpu, primitives

KERNEL = "custom_call @mosaic_gpu"


@contextlib.contextmanager
def simulated(monkeypatch, **parameters):
    """`implementation="mosaic_gpu"` on the CPU, outside `jax.jit`.

    The simulator keeps memory spaces, copies and barriers apart and fills what is not yet written with NaN. It calls
    back into Python, which a primitive cannot lower, so here the kernels are joined by a `jax.custom_vjp` in the
    primitive's stead.
    """
    mode = plgpu.InterpretGPUParams(**parameters)

    def attend(q, k, v, extras, setting, *, implementation):
        assert implementation == "mosaic_gpu"
        with_bias = lambda bias: dataclasses.replace(extras, bias=bias)

        @jax.custom_vjp
        def attend(q, k, v, bias):
            return mosaic_gpu.attend(q, k, v, with_bias(bias), setting, simulated=mode)

        def forward(*operands):
            results = attend(*operands)
            return results, (operands, results)

        def backward(saved, cotangents):
            (q, k, v, bias), results = saved
            shared = {"with_bias": bias is not None, "simulated": mode}
            grads = mosaic_gpu.gradients(q, k, v, with_bias(bias), setting, *results, *cotangents, **shared)
            if isinstance(bias, ALiBi):
                return *grads[:3], ALiBi(grads[3], np.zeros(bias.offset.shape, jax.dtypes.float0))
            return grads if bias is not None else (*grads, None)

        attend.defvjp(forward, backward)
        return attend(q, k, v, extras.bias)

    with monkeypatch.context() as patch:
        patch.setattr(primitives, "attend", attend)
        yield


def lowered(function, *arguments, device: str | None = None) -> str:
    """The program for CUDA, as text; for the device of that name, where one is given."""
    trace = lambda: jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    if device is None:
        return trace()
    with jax.sharding.use_abstract_mesh(
        jax.sharding.AbstractMesh((), (), abstract_device=jax.sharding.AbstractDevice(device, 132, "cuda"))
    ):
        return trace()
