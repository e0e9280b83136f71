"""The Triton kernels of attention without a GPU: in Triton's interpreter, compiled by ptxas, and lowered by jax-triton.

Each runs in a process of its own, which is this file as a script, because Triton decides on import whether it
interprets.
"""

import dataclasses
import importlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import _trial, dot_product_attention, masks
from kernels.attention import choice, primitives, triton
from kernels.attention.problem import Extras, Setting
from kernels.attention.triton import launch as launching
from kernels.attention.triton import schedule, terms, tiling

ROOT = pathlib.Path(__file__).parents[2]
HAS_TRITON = importlib.util.find_spec("triton") is not None
HAS_JAX_TRITON = HAS_TRITON and all(importlib.util.find_spec(name) for name in ("jax_triton", "jax_cuda13_plugin"))
# The fewest of `bench.ops.attention_shapes.ATTENTION` that reach every line of the kernels; as a script this file takes
# other names, or all of them.
CASES = ("multi query", "latent", "key bias", "alibi", "window", "pattern", "everything")


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed (extra `cuda`)")
@pytest.mark.parametrize(
    ("what", "environment"),
    [("interpreted", {"TRITON_INTERPRET": "1"}), ("compiled_for_80", {}), ("compiled_for_90", {})],
    ids=str,
)
def test_kernels_are_right_in_the_interpreter_and_accepted_by_ptxas(what, environment, tmp_path):
    run_script([what, *(CASES if what == "interpreted" else ())], environment | {"TRITON_CACHE_DIR": str(tmp_path)})


@pytest.mark.skipif(not HAS_JAX_TRITON, reason="jax-triton with jax's CUDA plugin is not installed (extra `cuda`)")
def test_programs_for_cuda_are_lowered_to_the_kernels():
    run_script(["lowered"], {})


def run_script(arguments, environment):
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


class Odd(masks.Mask):
    """A mask of one's own."""


X = jax.ShapeDtypeStruct((2, 40, 4, 64), jnp.float32)
MANY = masks.Window(1, 2) | masks.Window(3, 4) | masks.Window(5, 6) | masks.Window(7, 8)
REFUSED = {
    "float64": (
        (jax.ShapeDtypeStruct(X.shape, jnp.float64),) * 3,
        Extras(),
        "computes float32, bfloat16 and float16: got float64",
    ),
    "head_dim": ((jax.ShapeDtypeStruct((2, 40, 4, 257), jnp.float32),) * 3, Extras(), "head_dim above 256 .*: got 257"),
    "long": (
        (jax.ShapeDtypeStruct((1, 2**25, 1, 64), jnp.bfloat16),) * 3,
        Extras(),
        "elements of an example in 32 bits: got query",
    ),
    "foreign mask": ((X,) * 3, Extras(mask=Odd() & masks.Causal()), "it supports the masks of kernels.masks: got Odd"),
    "many terms": ((X,) * 3, Extras(mask=MANY), "at most 24 terms .*: got 64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_the_kernels_cannot_compute_is_refused_with_the_reason(name):
    arrays, extras, reason = REFUSED[name]
    with jax.enable_x64(True):
        assert re.search(reason, triton.supports(*arrays, extras, Setting(1.0)) or "nothing")
    assert triton.supports(X, X, X, Extras(mask=masks.Causal()), Setting(1.0)) is None


def test_a_mask_becomes_clauses_of_alternatives():
    code = terms.terms_of((masks.Causal() | masks.Window(3, None)) & masks.Window(None, 2)).code
    assert np.reshape(code, (-1, 7))[:, :4].tolist() == [
        [0, terms.UPPER, 0, -1],
        [1, terms.LOWER, 3, 0],
        [1, terms.UPPER, 2, -1],
    ]


@pytest.mark.parametrize(
    "mask", [None, masks.Causal(), masks.Window(20, 9), masks.Causal(7) & masks.Window(12, None)], ids=str
)
@pytest.mark.parametrize("by_keys", [False, True])
def test_rows_of_one_run_name_the_blocks_that_a_list_would(mask, by_keys, monkeypatch):
    sizes = (1, 1, 70, 90, 8, 8)

    def visited():
        row = schedule.schedule_of(mask, sizes, 8, 16, by_keys=by_keys)
        table = np.asarray(row.entries).reshape(-1, row.plan[3])
        return row.plan[0], [
            ([_column(r, n, row, False) for n in range(r[0])], [_column(r, n, row, True) for n in range(r[2])])
            for r in table
        ]

    run = visited()
    monkeypatch.setattr(schedule, "_in_one_run", lambda blocks: False)
    listed = visited()
    assert (run[0], listed[0]) == (0, 1)
    assert run[1] == [(sorted(a), sorted(b)) for a, b in listed[1]]


def _column(row, n, rows, masked):
    if rows.plan[0]:
        return int(row[4 + (row[0] + n if masked else n)])
    if not masked:
        return int(row[1] + n)
    return int(row[3] + n if row[3] + n < row[1] else row[3] + n + row[0])


def line(**change):
    row = choice.Row("a GPU", "bfloat16", 64, 2048, "causal", "forward", ("cudnn", "triton", "mosaic_gpu", "xla"))
    return json.loads(json.dumps(dataclasses.asdict(row))) | change


def test_a_measured_order_is_written_read_and_followed(tmp_path, monkeypatch):
    row = choice._row(line())
    choice.write([row], tmp_path / "choice.json")
    assert choice.read((tmp_path / "choice.json").read_text()) == [row]
    monkeypatch.setattr(choice, "table", lambda: {row.key: row})
    q = jax.ShapeDtypeStruct((2, 1000, 4, 50), jnp.bfloat16)
    ask = lambda device, direction: choice.order(device, q, q, Extras(mask=masks.Causal()), direction)
    assert ask("a GPU", "forward") == row.order
    monkeypatch.setattr(choice, "shares_registers", lambda: True)
    assert ask("a GPU", "backward") == choice.NAMES
    assert ask("NVIDIA H200", "forward") == ("mosaic_gpu", "cudnn", "triton", "xla")
    assert ask(None, "forward") == ("mosaic_gpu", "triton", "xla", "cudnn")
    monkeypatch.setattr(choice, "shares_registers", lambda: False)
    assert ask("a GPU", "forward") == row.order
    assert ask("a GPU", "backward") == choice.NAMES
    assert ask("NVIDIA H200", "forward") == ("cudnn", "mosaic_gpu", "triton", "xla")
    assert choice.rule("NVIDIA H200", q.dtype, "causal", 256) == ("cudnn", "triton", "mosaic_gpu", "xla")
    assert choice.rule("NVIDIA H200", q.dtype, "packed", 256) == ("triton", "mosaic_gpu", "cudnn", "xla")


WRONG = {
    "not a list": ({}, "must be a list of rows: got dict"),
    "a foreign field": ([line(more=1)], "must have the fields"),
    "a dtype": ([line(dtype="int8")], "dtype must be one of .*: got 'int8'"),
    "a length": ([line(length=100)], "length must be one of .*: got 100"),
    "an order": ([line(order=["triton"])], "order must hold each of .*: got"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_with_anything_else_in_it_is_refused(name):
    content, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        choice.read(json.dumps(content))


def test_the_committed_table_can_be_read():
    assert all(row.key == key for key, row in choice.table().items())


KINDS = {
    "none": Extras(),
    "causal": Extras(mask=masks.Causal()),
    "window": Extras(mask=masks.Causal() & masks.Window(8, None)),
    "packed": Extras(mask=masks.Causal() & masks.Segments(np.zeros((1, 5), int))),
    "bias": Extras(bias=np.zeros((1, 1, 5, 5)), mask=masks.Causal()),
    "other": Extras(mask=masks.PrefixLM(3)),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_call_has_the_class_of_its_mask(name):
    assert choice.kind(KINDS[name]) == name


class Pointer:
    """A NumPy array as the interpreter asks for a tensor."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype
        self.cpu = self.untyped_storage = lambda: self
        self.new_empty = lambda *_, **__: Pointer(array)
        self.data_ptr = lambda: array.ctypes.data
        self.set_ = self.copy_ = self.storage_offset = self.size = self.stride = lambda *_: None


def interpret(launch, *inputs):
    kernel = getattr(importlib.import_module(f"kernels.attention.triton.{launch.module}"), launch.kernel)
    outputs = [np.full(o.shape, np.nan, o.dtype) for o in launch.outputs]
    kernel[(launch.grid,)](*(Pointer(np.array(a)) for a in inputs), *map(Pointer, outputs), **launch.sizes)
    return [jnp.asarray(o) for o in outputs]


def attend(q, k, v, extras, setting, *, implementation):
    """The primitives for concrete arrays alone."""
    from kernels import ALiBi

    assert implementation == "triton"
    with_bias = lambda bias: dataclasses.replace(extras, bias=bias)

    @jax.custom_vjp
    def attend(q, k, v, bias):
        return triton.attend(q, k, v, with_bias(bias), setting)

    def forward(*operands):
        results = attend(*operands)
        return results, (operands, results)

    def backward(saved, cotangents):
        (q, k, v, bias), results = saved
        grads = triton.gradients(q, k, v, with_bias(bias), setting, *results, *cotangents, with_bias=bias is not None)
        if isinstance(bias, ALiBi):
            return *grads[:3], ALiBi(grads[3], np.zeros(bias.offset.shape, jax.dtypes.float0))
        return grads if bias is not None else (*grads, None)

    attend.defvjp(forward, backward)
    return attend(q, k, v, extras.bias)


def loops_may_end_at_a_loaded_number():
    """The interpreter holds a scalar as an array of one element, which NumPy 2.5 no longer takes for a number."""
    from triton.runtime import interpreter

    before = interpreter._patch_lang_tensor

    def patch(tensor, scope):
        before(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch


def interpreted(names):
    from bench.ops.attention_shapes import ATTENTION
    from tests.kernels.attention_cases import inputs, measure
    from tests.kernels.attention_oracle import agree

    loops_may_end_at_a_loaded_number()
    launching.call, primitives.attend = interpret, attend
    for table in tiling.TABLES.values():
        for dim in table:
            table[dim] = tiling.Tile(32, 32, 4, 1)
    tiling.FORWARD[32] = tiling.Tile(32, 64, 4, 1)
    for name in names or ATTENTION:
        case = ATTENTION[name]
        arrays, rest = inputs(case)
        print(name, flush=True)
        agree(measure(arrays, rest, "triton"), case, arrays, rest)


def launches(dim, dtype, mask, *, bias=None, alibi=False, rate=0.0, cap=None):
    """Every launch of both passes, with the types of its pointers."""
    from kernels import ALiBi

    found = []

    def record(launch, *inputs):
        found.append((launch, [a.dtype.name for a in (*inputs, *launch.outputs)]))
        return [jnp.zeros(o.shape, o.dtype) for o in launch.outputs]

    launching.call = record
    shape = jax.ShapeDtypeStruct
    q, k = shape((2, 1000, 4, dim), dtype), shape((2, 1000, 2, dim), dtype)
    bias = shape(bias, dtype) if bias else ALiBi(shape((1, 4), jnp.float32), shape((1,), jnp.int32)) if alibi else None
    setting = Setting(dim**-0.5, cap, rate)

    def both(q, k, bias, mask, seeds):
        extras = Extras(bias, mask, seeds)
        out, lse = triton.attend(q, k, k, extras, setting)
        return triton.gradients(q, k, k, extras, setting, out, lse, out, lse, with_bias=bias is not None)

    jax.eval_shape(both, q, k, bias, mask, shape((2, 4, 2), jnp.int32) if rate else None)
    return found


def compiled(capability):
    """The forward pass spills no more than four registers at head_dim 64 and 128, and every kernel with everything in
    it is accepted.
    """
    tiling.capability = lambda: capability
    ids = jax.ShapeDtypeStruct((2, 1000), jnp.int32)
    every = masks.Segments(ids, ids) & masks.Causal() | masks.PrefixLM(5)
    for dim in (64, 128):
        for mask in (None, masks.Causal()):
            launch, types = launches(dim, jnp.bfloat16, mask)[0]
            # Triton 3.6 needs none of them; 3.7 needs four for a causal mask at head_dim 128 on sm_90.
            assert spilled(*build(launch, types, capability), capability) <= 16, launch
    for dtype, options in (
        (jnp.float16, {"bias": (1, 4, 1000, 1000), "rate": 0.1}),
        (jnp.float32, {"alibi": True, "cap": 3.0}),
    ):
        found = launches(32, dtype, every, **options)
        assert len(found) == 4
        for launch, types in found:
            build(launch, types, capability)
    for launch, types in launches(256, jnp.bfloat16, masks.Causal()):
        build(launch, types, capability)


def build(launch, types, capability):
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    short = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16", "int32": "*i32", "int8": "*i8"}
    kernel = getattr(importlib.import_module(f"kernels.attention.triton.{launch.module}"), launch.kernel)
    signature = dict(zip(kernel.arg_names, map(short.get, types))) | dict.fromkeys(launch.sizes, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(types))}
    source = ASTSource(kernel, signature, constexprs=launch.sizes, attrs=aligned)
    out = compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.warps, "num_stages": launch.stages},
    )
    assert out.metadata.shared <= (227 if capability == 90 else 99) << 10, (launch, out.metadata.shared)
    return out.asm["ptx"], launch.kernel


def spilled(ptx, name, capability):
    """Bytes that ptxas says it stores because registers do not hold them."""
    from triton.backends.nvidia.compiler import get_ptxas

    ptxas = get_ptxas(capability).path
    file = pathlib.Path(os.environ["TRITON_CACHE_DIR"]) / f"{name}.ptx"
    file.write_text(ptx)
    arch = f"sm_{capability}" + "a" * (capability == 90)
    said = subprocess.run(
        [ptxas, "-v", f"--gpu-name={arch}", file, "-o", os.devnull], capture_output=True, text=True, check=True
    ).stderr
    return sum(map(int, re.findall(r"(\d+) bytes spill stores", said)))


def lowered():
    from jax._src.lib import gpu_triton  # it asks the driver, which is not there, what it compiles for

    text = lambda f, *x: jax.jit(f).trace(*x).lower(lowering_platforms=("cuda",)).as_text()
    x = jax.ShapeDtypeStruct((2, 64, 4, 32), jnp.bfloat16)
    by = lambda name: text(lambda x: dot_product_attention(x, x, x, implementation=name), x)
    assert "triton_kernel_call" not in by(None)
    with pytest.raises(NotImplementedError, match="implementation 'triton' cannot run: it does not build: "):
        by("triton")

    _trial._failure.cache_clear()
    gpu_triton.get_compute_capability = lambda device: 90
    calls = lambda f, *x: text(f, *x).count("stablehlo.custom_call @triton_kernel_call")
    bias = jax.ShapeDtypeStruct((4, 64, 64), jnp.bfloat16)
    attend = lambda q, bias: dot_product_attention(q, q, q, bias, is_causal=True)
    loss = lambda q, bias: jnp.sum(attend(q, bias).astype(jnp.float32))
    assert calls(attend, x, bias) == 1
    assert calls(jax.grad(loss), x, bias) == 3
    assert calls(jax.grad(loss, (0, 1)), x, bias) == 4
    assert calls(jax.vmap(jax.grad(loss, (0, 1)), (0, None)), jax.ShapeDtypeStruct((3, *x.shape), x.dtype), bias) == 4
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    inner = lambda q, bias: jax.grad(lambda q, bias: jax.lax.psum(loss(q, bias), "data"), (0, 1))(q, bias)
    assert calls(jax.shard_map(inner, mesh=mesh, in_specs=(P("data"), P()), out_specs=(P("data"), P())), x, bias) == 4


if __name__ == "__main__":
    what, *names = sys.argv[1:]
    {"interpreted": lambda: interpreted(names), "lowered": lowered}.get(what, lambda: compiled(int(what[-2:])))()
