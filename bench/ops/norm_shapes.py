"""The norms' cases, shared by the tests and the benchmark."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels import group_norm, layer_norm, rms_norm

OPS = {"layer_norm": layer_norm, "rms_norm": rms_norm, "group_norm": group_norm}


@dataclasses.dataclass(frozen=True)
class Case:
    """One call: `scale`, `bias` and `residual` say whether they are given, `modulation` has its shape, `options` the
    other arguments.
    """

    op: str
    shape: tuple[int, ...]
    scale: bool = True
    bias: bool = False
    residual: bool = False
    modulation: tuple[int, ...] | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        parts = [
            self.op,
            "x".join(map(str, self.shape)),
            *(n for n in ("scale", "bias", "residual") if getattr(self, n)),
        ]
        parts += [f"modulation{'x'.join(map(str, self.modulation))}"] if self.modulation else []
        return "-".join([*parts, *(f"{k}{v}" for k, v in self.options)])

    def arguments(self, dtype: Any = jnp.float32, seed: int = 0) -> dict[str, Any]:
        """The array arguments: x, its residual and their cotangents of `dtype`, the parameters float32."""
        rng = np.random.default_rng(seed)

        def normal(shape, dtype=jnp.float32):
            return jnp.asarray(rng.standard_normal(shape).astype("f"), dtype)

        row = self.shape[-1:]
        arguments: dict[str, Any] = {"x": normal(self.shape, dtype)}
        arguments |= {"scale": normal(row)} if self.scale else {}
        arguments |= {"bias": normal(row)} if self.bias else {}
        arguments |= {"residual": normal(self.shape, dtype)} if self.residual else {}
        arguments |= {"modulation": (normal(self.modulation), normal(self.modulation))} if self.modulation else {}
        return arguments

    def call(self, arguments: dict[str, Any], implementation: str | None = None) -> Any:
        """The op on these arguments."""
        return OPS[self.op](**arguments, **dict(self.options), implementation=implementation)

    def forward_and_backward(self, arguments: dict[str, Any], cotangent: Any, implementation: str | None = None) -> Any:
        """The result and the gradients of the array arguments."""
        y, pull = jax.vjp(lambda a: self.call(a, implementation), arguments)
        return y, pull(cotangent)[0]

    def cotangent(self, dtype: Any = jnp.float32, seed: int = 1) -> Any:
        """A cotangent of the result."""
        dy = self.arguments(dtype, seed)["x"]
        return (dy, self.arguments(dtype, seed + 1)["x"]) if self.residual else dy


LAYER, RMS, GROUP = "layer_norm", "rms_norm", "group_norm"

ODD = (
    Case(LAYER, (5, 123), bias=True),
    Case(LAYER, (1, 1), scale=False),
    Case(LAYER, (3, 1), bias=True),
    Case(LAYER, (50, 40), bias=True, residual=True),
    Case(LAYER, (1, 7, 40), scale=False, modulation=(1, 1, 40)),
    Case(LAYER, (2, 19, 12), bias=True, residual=True, modulation=(2, 1, 12)),
    Case(LAYER, (2, 3, 5, 8), modulation=(2, 3, 1, 8)),
    Case(LAYER, (2, 3, 8), modulation=(1, 3, 8)),
    Case(LAYER, (2, 70001), bias=True),
    Case(RMS, (17,)),
    Case(RMS, (4, 33), residual=True, options=(("scale_offset", 1.0),)),
    Case(RMS, (3, 21, 16), modulation=(16,)),
    Case(GROUP, (2, 5, 7, 12), bias=True, options=(("groups", 3), ("activation", "silu"))),
    Case(GROUP, (1, 1, 4), bias=True, options=(("groups", 1),)),
    Case(GROUP, (3, 6), scale=False, options=(("groups", 1),)),
    Case(GROUP, (2, 3, 4, 8), bias=True, modulation=(2, 1, 1, 8), options=(("groups", 4), ("activation", "silu"))),
    Case(GROUP, (5, 6, 8), bias=True, options=(("groups", 2), ("batch_dims", 0))),
)

MEASURED = (
    Case(LAYER, (4096, 768), bias=True),
    Case(LAYER, (4096, 768), bias=True, residual=True),
    Case(LAYER, (16, 256, 768), bias=True, modulation=(16, 1, 768)),
    Case(RMS, (4096, 768)),
    Case(GROUP, (256, 64, 320), bias=True, options=(("groups", 32),)),
    Case(GROUP, (256, 64, 320), bias=True, options=(("groups", 32), ("activation", "silu"))),
)

ON_CUDA = (
    Case(LAYER, (16384, 4096), bias=True),
    Case(LAYER, (65536, 768), bias=True),
    Case(LAYER, (8192, 1152), bias=True),
    Case(RMS, (16384, 4096)),
    Case(RMS, (16384, 4096), residual=True),
    Case(LAYER, (64, 1024, 768), scale=False, modulation=(64, 1, 768)),
    Case(GROUP, (256, 16, 16, 320), bias=True, options=(("groups", 32), ("activation", "silu"))),
    Case(GROUP, (16, 128, 128, 320), bias=True, options=(("groups", 32), ("activation", "silu"))),
)
