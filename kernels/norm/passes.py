"""The two passes of a norm as one primitive: vmap adds a batch axis, and the backend is chosen when the program is
lowered.

Only then is it known for which platform the program is compiled, on how many devices, and whether it is divided among
them by hand (`shard_map`) or by XLA's partitioner, which cannot divide a kernel: there XLA's own operations run, and
stay where their rows are.
"""

import dataclasses
import functools

import jax
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.sharding import PartitionSpec

from .. import _trial
from .._dispatch import choose
from . import mosaic_tpu, triton_cuda, triton_launch, xla, xla_cpu
from .reference import accumulator
from .spec import Spec

KERNELS = {"mosaic_tpu": mosaic_tpu.supports, "triton": triton_cuda.supports}

pass_p = Primitive("eqxgen_norm_pass")
pass_p.multiple_results = True


@dataclasses.dataclass(frozen=True)
class Route:
    """A norm, and which implementation was asked for; `interpret` runs the TPU kernels anywhere, slowly."""

    op: str
    spec: Spec
    requested: str | None = None
    interpret: bool = False


@dataclasses.dataclass(frozen=True)
class Forward:
    """`(x, [residual], factor, term) -> (y, [h], [mean], rstd)`."""

    route: Route
    residual: bool

    def plain(self, *args):
        return self._run(xla.forward, args)

    def on_cpu(self, *args):
        return self._run(xla_cpu.forward, args)

    def _run(self, forward, args):
        rows, (factor, term) = args[:-2], args[-2:]
        y, h, mean, rstd = forward(rows[0], rows[1] if self.residual else None, factor, term, self.route.spec)
        return [a for a in (y, h if self.residual else None, mean, rstd) if a is not None]

    def triton(self, *args):
        return triton_cuda.forward(args[:-2], args[-2:], self.route.spec)

    def mosaic_tpu(self, *args):
        rows, params = args[:-2], args[-2:]
        out = mosaic_tpu.forward(rows, params, self.route.spec, self.route.interpret)
        # The backward kernel does not read these; they are compiled away unless a plain derivative does.
        return [
            *out,
            *(a for a in xla.statistics(out[-1] if self.residual else rows[0], self.route.spec) if a is not None),
        ]


@dataclasses.dataclass(frozen=True)
class Backward:
    """`(h, dy, [dh], factor, term, [mean], rstd) -> (dh, dfactor, dterm)`."""

    route: Route
    residual: bool

    def plain(self, *args):
        h, dy, dh, factor, term, mean, rstd = self._split(args)
        return list(xla.backward(h, mean, rstd, factor, term, dy, dh, self.route.spec))

    def on_cpu(self, *args):
        h, dy, dh, factor, term, mean, rstd = self._split(args)
        return list(xla_cpu.backward(h, mean, rstd, factor, term, dy, dh, self.route.spec))

    def triton(self, *args):
        h, dy, dh, factor, term, mean, rstd = self._split(args)
        return triton_cuda.backward((h, dy) if dh is None else (h, dy, dh), (factor, term), mean, rstd, self.route.spec)

    def mosaic_tpu(self, *args):
        h, dy, dh, factor, term, *_ = self._split(args)
        return mosaic_tpu.backward(
            (h, dy) if dh is None else (h, dy, dh), (factor, term), self.route.spec, self.route.interpret
        )

    def _split(self, args):
        h, dy, *rest = args
        dh = rest.pop(0) if self.residual else None
        factor, term, *stats = rest
        return h, dy, dh, factor, term, stats[0] if self.route.spec.center else None, stats[-1]


def run(work: Forward | Backward, *args: Array) -> list[Array]:
    """The results of one pass."""
    return pass_p.bind(*args, work=work)


@functools.cache
def _compiled(work):
    return jax.jit(functools.partial(pass_p.bind, work=work))


def _impl(*args, work):
    # Outside of jit the primitive compiles itself, and with jit switched off there is no compiler to ask.
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return work.plain(*args)
    return _compiled(work)(*args)


def _abstract_eval(*avals, work):
    x, *_ = avals
    if isinstance(work, Backward):
        return [x, *avals[3 if work.residual else 2 :][:2]]
    spec = work.route.spec
    batch = x.ndim - 1 if spec.batch_dims is None else spec.batch_dims
    kept = x.sharding.update(spec=PartitionSpec(*x.sharding.spec[:batch], None))
    stat = x.update(shape=(*x.shape[:batch], spec.groups), dtype=accumulator(x.dtype), sharding=kept)
    return [x] * (1 + work.residual) + [stat] * (1 + spec.center)


def _batch(args, dims, *, work):
    size = next(a.shape[d] for a, d in zip(args, dims) if d is not None)
    # Parameters without the axis get it too, since their gradients need one row for each of its elements.
    args = [batching.bdim_at_front(a, d, size) for a, d in zip(args, dims)]
    spec = work.route.spec
    if spec.batch_dims is not None:
        spec = dataclasses.replace(spec, batch_dims=spec.batch_dims + 1)
    out = run(dataclasses.replace(work, route=dataclasses.replace(work.route, spec=spec)), *args)
    return out, [0] * len(out)


def _lower(kernel_name: str | None, operations: str, ctx, *args, work):
    """Lower to the platform's kernel, where it has one that can run, or to XLA's operations."""
    route = work.route
    elsewhere = {
        name: lambda: "the program is compiled for another platform" for name in KERNELS if name != kernel_name
    }
    here = {kernel_name: lambda: _refusal(kernel_name, ctx, work)} if kernel_name else {}
    chosen = choose(route.op, route.requested, here | {"xla": lambda: None} | elsewhere)
    body = getattr(work, "mosaic_tpu" if route.interpret else operations if chosen == "xla" else chosen)
    return mlir.lower_fun(body, multiple_results=True)(ctx, *args)


def _refusal(kernel_name, ctx, work):
    x, factor = ctx.avals_in[0], ctx.avals_in[3 if work.residual else 2]
    if reason := KERNELS[kernel_name](x, factor.shape, work.route.spec):
        return reason
    if kernel_name == "triton" and (reason := triton_launch.unavailable()):
        return reason
    if reason := _division(ctx):
        return reason
    return _trial.build_failure(_attempt, *ctx.avals_in, work=work) if kernel_name == "triton" else None


def _attempt(*args, work):
    return work.triton(*args)


def _division(ctx) -> str | None:
    """Why a kernel cannot be part of this program, or `None` where it runs on one device or is divided by hand."""
    context = ctx.module_context.axis_context
    manual = getattr(context, "manual_axes", frozenset())
    mesh = getattr(context, "mesh", None)
    if mesh is not None and set(manual) == set(mesh.axis_names):
        return None
    devices = getattr(context, "num_devices", None) if mesh is None else mesh.size
    if devices != 1:
        return f"the program is partitioned over {devices} devices by XLA, which cannot divide a kernel; call it inside shard_map"
    return None


pass_p.def_impl(_impl)
pass_p.def_abstract_eval(_abstract_eval)
batching.primitive_batchers[pass_p] = _batch
mlir.register_lowering(pass_p, functools.partial(_lower, None, "plain"))
mlir.register_lowering(pass_p, functools.partial(_lower, None, "on_cpu"), platform="cpu")
mlir.register_lowering(pass_p, functools.partial(_lower, "mosaic_tpu", "plain"), platform="tpu")
mlir.register_lowering(pass_p, functools.partial(_lower, "triton", "plain"), platform="cuda")
