"""The norms as a fused op on folded parameters: the choice of a backend, and the derivatives between the two passes.

h, the folded parameters, the mean and the reciprocal deviation are kept between the passes. With x_hat = (h - mean) *
rstd and g the cotangent of x_hat, the tangent of x_hat and its transpose are

    dx_hat = rstd * (dh - E[dh] - x_hat * E[x_hat * dh]),     dh = rstd * (g - E[g] - x_hat * E[x_hat * g]).
"""

import dataclasses
import string
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from .. import _dispatch, _fused, _trial, _triton
from .._blocks import SYMBOLIC, known
from .._fused import Axes, Op, Places, Primitives, Target
from . import mosaic_tpu, triton, xla
from .spec import Arrays, Spec, accumulator

KERNELS = {"mosaic_tpu": mosaic_tpu, "triton": triton}
PRIMITIVES = Primitives("eqxgen_norm")


@dataclasses.dataclass(frozen=True)
class Norm(Op):
    """`(x, [residual], factor, term) -> (y, [h], [mean], rstd)`; y and h have derivatives in h, factor and term."""

    name: str
    spec: Spec
    residual: bool
    implementation: str | None = None
    places: Places | None = None

    core = 3
    sparse = True

    @property
    def results(self) -> int:
        return 1 + self.residual

    def check(self, x: Array, factor: Array) -> str | None:
        """The named implementation; raises while tracing if it is unknown or cannot run this call on any platform."""
        if self.implementation is None:
            return None
        return _dispatch.choose(self.name, self.implementation, self._candidates(None, "forward", (x,), (factor,)))

    def __call__(self, rows: Arrays, params: Arrays) -> tuple[Array, Array]:
        """`(y, h)`, with h = x + residual."""
        outputs = PRIMITIVES.bind(self, *rows, *params)
        return outputs[0], outputs[1] if self.residual else rows[0]

    def shapes(self, x, *rest):
        batch = self.spec.batch(x.ndim)
        kept = x.sharding.update(spec=PartitionSpec(*x.sharding.spec[:batch], None))
        stat = x.update(shape=(*x.shape[:batch], self.spec.groups), dtype=accumulator(x.dtype), sharding=kept)
        return [x] * self.results + [stat] * (1 + self.spec.center)

    def forward(self, target: Target, *operands):
        rows, params = operands[:-2], operands[-2:]
        backend, options = self._backend(target, "forward", rows, params)
        return backend.normalise(rows, params, self.spec, **options)

    def backward(self, target: Target, primals, saved, cotangents, count):
        rows, params = _rows(primals, cotangents), primals[1:]
        if rows is None:
            return cotangents[1], *map(jnp.zeros_like, params)
        backend, options = self._backend(target, "backward", rows, params, *saved)
        return backend.gradients(rows, params, *self._pair(saved), self.spec, **options)

    def plain(self, *operands):
        return xla.normalise(operands[:-2], operands[-2:], self.spec, cpu=False)

    def linearise(self, operands, outputs, tangents):
        h, dh = operands[0], tangents[0]
        if self.residual:
            h, dh = outputs[1], _add(dh, tangents[1])
        return (h, *operands[-2:]), outputs[self.results :], (dh, *tangents[-2:])

    def tangent(self, primals, saved, moving):
        h, *params = primals
        mean, rstd = xla.kept_statistics(h, *self._pair(saved), self.spec)
        return (xla.tangent(h, tuple(params), mean, rstd, moving, self.spec), moving[0])[: self.results]

    def pullback(self, primals, saved, cotangents, count):
        rows, params = _rows(primals, cotangents), primals[1:]
        if rows is None:
            return cotangents[1], *map(jnp.zeros_like, params)
        mean, rstd = xla.kept_statistics(primals[0], *self._pair(saved), self.spec)
        return xla.gradients(rows, params, mean, rstd, self.spec)

    def mapped(self) -> "Norm":
        if self.spec.batch_dims is None:
            return self
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, batch_dims=self.spec.batch_dims + 1))

    def axes(self, x, *rest) -> Axes:
        batch = string.ascii_lowercase[: self.spec.batch(x.ndim)]
        rows = batch.ljust(x.ndim, "-")
        results = (rows,) * self.results + (f"{batch}-",) * (1 + self.spec.center)
        return Axes((rows,) * (1 + len(rest)), results, {letter: letter for letter in batch})

    def _pair(self, saved: Arrays) -> tuple[Array | None, Array]:
        return saved[0] if self.spec.center else None, saved[-1]

    def _backend(self, target: Target, direction: str, rows, params, *saved) -> tuple[Any, dict[str, bool]]:
        """The module of the implementation to run, and what it is told about the target."""
        candidates = self._candidates(target, direction, rows, params, *saved)
        name = _dispatch.choose(self.name, self.implementation, candidates)
        if name == "xla":
            return xla, {"cpu": target.platform == "cpu"}
        return KERNELS[name], {"interpret": target.platform != "tpu"} if name == "mosaic_tpu" else {}

    def _candidates(
        self, target: Target | None, direction: str, rows, params, *saved
    ) -> Mapping[str, Callable[[], str | None]]:
        """The reason why each implementation cannot run, or None, best first. While tracing the target is None."""

        def reason(name: str, platform: str) -> str | None:
            refused = None if known(*rows[0].shape) else SYMBOLIC
            refused = refused or _fused.refusal(target, platform)
            return refused or KERNELS[name].supports(rows[0], params[0].shape, self.spec)

        def triton_reason() -> str | None:
            refused = reason("triton", "cuda")
            if refused or target is None:
                return refused
            arrays, static = (*rows, *params, *saved), {"direction": direction, "count": len(rows), "spec": self.spec}
            return _triton.unavailable() or _trial.build_failure(_run_triton, *arrays, **static)

        every = {
            "xla": lambda: None,
            "mosaic_tpu": lambda: reason("mosaic_tpu", "tpu"),
            "triton": triton_reason,
            "reference": lambda: None,  # outside the primitive
        }
        best = {"tpu": ("mosaic_tpu",), "cuda": ("triton",)}.get(target.platform, ()) if target else ()
        return {name: every[name] for name in (*best, *every)}


def _rows(primals: Arrays, cotangents: tuple[Array | None, ...]) -> Arrays | None:
    """`(h, dy, [dh])`, or None where y has no cotangent."""
    if cotangents[0] is None:
        return None
    return (primals[0], *(c for c in cotangents if c is not None))


def _add(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _run_triton(*arrays, direction: str, count: int, spec: Spec):
    rows, params, saved = arrays[:count], arrays[count : count + 2], arrays[count + 2 :]
    if direction == "forward":
        return triton.normalise(rows, params, spec)
    return triton.gradients(rows, params, saved[0] if spec.center else None, saved[-1], spec)
