"""The CUDA kernels of the norms without a GPU: in Triton's interpreter, compiled by ptxas, and lowered by jax-triton.

Each runs in a process of its own, which is this file as a script, because Triton decides on import whether it
interprets.
"""

import importlib
import importlib.util
import logging
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.ops.norm_shapes import GROUP, LAYER, ODD, RMS, Case
from kernels import _dispatch, _triton, layer_norm, rms_norm
from kernels.norm import triton, xla
from kernels.norm.fold import fold
from kernels.norm.spec import Spec
from kernels.norm.triton import launch as launching
from kernels.norm.triton import tiling

HAS_TRITON = importlib.util.find_spec("triton") is not None
HAS_JAX_TRITON = HAS_TRITON and all(importlib.util.find_spec(name) for name in ("jax_triton", "jax_cuda13_plugin"))
ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
SILU = (("groups", 32), ("activation", "silu"))
LARGE = (
    Case(LAYER, (16384, 4096), bias=True),
    Case(RMS, (16384, 4096), residual=True),
    Case(LAYER, (65536, 768), bias=True),
    Case(LAYER, (8, 1024, 1152), scale=False, modulation=(8, 1, 1152)),
    Case(LAYER, (4096, 8192), bias=True, residual=True),
    Case(LAYER, (64, 20000), bias=True, residual=True),
    Case(GROUP, (256, 64, 320), bias=True, modulation=(256, 1, 320), options=SILU),
    Case(GROUP, (8, 64, 64, 320), bias=True, options=SILU),
)


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed (extra `cuda`)")
@pytest.mark.parametrize(
    ("what", "environment"),
    [("interpreted", {"TRITON_INTERPRET": "1"}), ("compiled_for_80", {}), ("compiled_for_90", {})],
    ids=str,
)
def test_kernels_are_right_in_the_interpreter_and_accepted_by_ptxas(what, environment, tmp_path):
    run_script(what, environment | {"TRITON_CACHE_DIR": str(tmp_path)})


@pytest.mark.skipif(not HAS_JAX_TRITON, reason="jax-triton with jax's CUDA plugin is not installed (extra `cuda`)")
def test_programs_for_cuda_are_lowered_to_the_kernels():
    run_script("lowered", {})


@pytest.fixture
def without_triton(monkeypatch):
    monkeypatch.setattr(_triton.importlib.util, "find_spec", lambda name: None)
    _dispatch._log_once.cache_clear()


def test_without_jax_triton_a_cuda_program_runs_xla_and_the_reason_is_logged(without_triton, caplog):
    with caplog.at_level(logging.INFO, "eqxgen.kernels"):
        for_cuda(lambda x: layer_norm(x), jnp.ones((2, 8)))
    assert "layer_norm runs as xla (triton: not installed: triton, jax_triton; install the extra `cuda`" in caplog.text


def test_the_named_kernels_without_jax_triton_are_refused(without_triton):
    with pytest.raises(NotImplementedError, match="'triton' cannot run: not installed: triton, jax_triton"):
        for_cuda(lambda x: rms_norm(x, implementation="triton"), jnp.ones((2, 8)))


def for_cuda(function, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def run_script(what, environment):
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, __file__, what],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)} | environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


class Pointer:
    """A NumPy array as the interpreter asks for a tensor."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype
        self.cpu = self.untyped_storage = lambda: self
        self.new_empty = lambda *_, **__: Pointer(array)
        self.data_ptr = lambda: array.ctypes.data
        self.set_ = self.copy_ = self.storage_offset = self.size = self.stride = lambda *_: None


def interpret(launch, *inputs):
    kernel = getattr(importlib.import_module(f"kernels.{launch.package}.{launch.module}"), launch.kernel)
    outputs = [np.full(o.shape, np.nan, o.dtype) for o in launch.outputs]
    kernel[(launch.grid,)](*(Pointer(np.array(a)) for a in inputs), *map(Pointer, outputs), **launch.sizes)
    return [jnp.asarray(o) for o in outputs]


def passes(case, arguments, cotangent, backend, spec):
    """The results of both passes of a backend, of the backward pass from its own h and statistics."""
    factor, term = fold(arguments["x"], *(arguments.get(n) for n in ("scale", "bias", "modulation")), spec)
    if backend is triton and triton.supports(arguments["x"], factor.shape, spec):
        return None
    rows = (arguments["x"], arguments["residual"]) if case.residual else (arguments["x"],)
    out = backend.normalise(rows, (factor, term), spec)
    h, stats = (out[1], out[2:]) if case.residual else (rows[0], out[1:])
    cotangents = cotangent if case.residual else (cotangent,)
    mean = stats[0] if spec.center else None
    return out, list(backend.gradients((h, *cotangents), (factor, term), mean, stats[-1], spec))


def spec_of(case):
    options = dict(case.options)
    if case.op != GROUP:
        return Spec(1e-5, center=case.op == LAYER, **options)
    return Spec(1e-5, batch_dims=options.pop("batch_dims", 1), **options)


def interpreted():
    """Every case in blocks that cover it and in the smallest, against float64."""
    launching.call = interpret
    seen = set()
    for small in (False, True):
        for i, case in enumerate(ODD):
            # A long row in small blocks is minutes of interpreting.
            if small and case.shape[-1] > 1000:
                continue
            tiling.TILE, tiling.LONGEST, tiling.PROGRAMS = (32, 64, 3) if small else (4096, 8192, 264)
            # Not bfloat16, to which the interpreter truncates where a GPU rounds.
            dtype = "float16" if small and i % 2 else "float32"
            seen.add(check(case, dtype))
    assert seen == {True, False}, "no case was refused, or every one"
    for row in (np.full(64, 1.5e38), np.full(64, -7e8), np.tile([1e30, -1e30], 32), np.full(64, 0.0)):
        x = jnp.asarray(np.broadcast_to(row, (3, 64)), jnp.float32)
        for case, options in (Case(LAYER, (3, 64)), ()), (Case(GROUP, (3, 64)), (("groups", 2),)):
            spec = spec_of(Case(case.op, case.shape, options=options))
            got = passes(case, {"x": x, "scale": jnp.ones(64)}, jnp.ones((3, 64)), triton, spec)
            assert all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(got))


def check(case, dtype):
    spec, arguments, cotangent = spec_of(case), case.arguments(dtype), case.cotangent(dtype)
    got = passes(case, arguments, cotangent, triton, spec)
    if got is None:
        return False
    base = passes(case, arguments, cotangent, xla, spec)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (arguments, cotangent))
        true = jax.tree.map(np.asarray, passes(case, *wide, xla, spec))
    for g, b, t in zip(*map(jax.tree.leaves, (got, base, true)), strict=True):
        assert (g.dtype, g.shape) == (b.dtype, b.shape)
        error, allowed = (np.abs(np.asarray(a, np.float64) - t).max() for a in (g, b))
        unit = ROUNDING[str(g.dtype)] * np.abs(t).max()
        assert error <= 2 * allowed + 2 * unit, (case, dtype, error, allowed, unit)
    return True


def launches():
    """Every launch that both passes of the cases make, with the types of its pointers."""
    found = []

    def record(launch, *inputs):
        found.append((launch, [a.dtype.name for a in (*inputs, *launch.outputs)]))
        return [jnp.zeros(o.shape, o.dtype) for o in launch.outputs]

    launching.call = record
    for i, case in enumerate((*LARGE, *ODD)):
        dtype = tuple(ROUNDING)[i % 3] if case in ODD else "bfloat16"
        row = jax.ShapeDtypeStruct(case.shape[-1:], jnp.float32)
        x = jax.ShapeDtypeStruct(case.shape, dtype)
        given = {"x": x, "scale": row, "bias": row} | ({"residual": x} if case.residual else {})
        if case.modulation:
            given["modulation"] = (jax.ShapeDtypeStruct(case.modulation, jnp.float32),) * 2
        jax.eval_shape(
            lambda a, b, case=case: passes(case, a, b, triton, spec_of(case)), given, (x, x) if case.residual else x
        )
    return found


def compiled(capability):
    from jaxtyping import install_import_hook
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    short = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}
    with install_import_hook("kernels", "beartype.beartype"):
        kernels = ("forward", "backward")
        modules = {name: importlib.import_module(f"kernels.norm.triton.{name}") for name in kernels}
    used = set()
    for launch, types in launches():
        kernel = getattr(modules[launch.module], launch.kernel)
        signature = dict(zip(kernel.arg_names, map(short.get, types))) | dict.fromkeys(launch.sizes, "constexpr")
        aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(types))}
        source = ASTSource(kernel, signature, constexprs=launch.sizes, attrs=aligned)
        out = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": launch.warps})
        assert len(out.asm["cubin"]) > 0
        assert out.metadata.shared <= 99 << 10, (launch, out.metadata.shared)
        used.add((launch.module, launch.kernel))
    assert len(used) == 9, used


def lowered():
    from jax._src.lib import gpu_triton  # it asks the driver, which is not there, what it compiles for

    gpu_triton.get_compute_capability = lambda device: 90
    calls = lambda function, *arguments: for_cuda(function, *arguments).count(
        "stablehlo.custom_call @triton_kernel_call"
    )
    for case, count in ((ODD[5], 2), (ODD[8], 3), (ODD[10], 2), (ODD[12], 2), (LARGE[-1], 2)):
        shapes = jax.eval_shape(lambda case=case: (case.arguments("bfloat16"), case.cotangent("bfloat16")))
        assert calls(lambda a, b, case=case: case.forward_and_backward(a, b, "triton"), *shapes) == count, case
    x, scale = jnp.ones((8, 5, 16)), jnp.ones(16)
    loss = lambda x, s: jnp.sum(jnp.sin(layer_norm(x, s, implementation="triton")))
    assert calls(jax.vmap(jax.grad(loss, (0, 1)), (0, None)), x, scale) == 2
    assert calls(lambda x, s: jax.jvp(jax.grad(loss), (x, s), (x, s))[1], x, scale) == 1
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    inner = lambda x, s: jax.grad(lambda x, s: jax.lax.psum(loss(x, s), "data"), (0, 1))(x, s)
    assert calls(jax.shard_map(inner, mesh=mesh, in_specs=(P("data"), P()), out_specs=(P("data"), P())), x, scale) == 2


if __name__ == "__main__":
    {"interpreted": interpreted, "lowered": lowered}.get(sys.argv[1], lambda: compiled(int(sys.argv[1][-2:])))()
