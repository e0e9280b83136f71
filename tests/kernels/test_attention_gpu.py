"""The Hopper kernels: against the formula in JAX's simulator of a GPU, and lowered for a GPU that is not there."""

import functools
import itertools
import logging
import math
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from bench.gpu import assembler as gpu_assembler
from bench.gpu.lowering import OPTIONS, WIDTHS, passes
from bench.ops.attention_shapes import MASKS, Attention
from kernels import ALiBi, _dispatch, dot_product_attention, masks
from kernels.attention import choice, mosaic_gpu
from kernels.attention.mosaic_gpu import support
from tests.full import FULL
from tests.kernels.attention_cases import inputs, measure
from tests.kernels.attention_oracle import agree

OLD = jax.__version_info__ < (0, 11)
current = pytest.mark.skipif(
    OLD, reason=f"the Hopper kernels need jax 0.11, so Python 3.12, or newer (`nox -s ends`): this is {jax.__version__}"
)
if not OLD:
    from tests.kernels.attention_simulated import KERNEL, lowered, simulated

attend = functools.partial(dot_product_attention, implementation="mosaic_gpu")
shape = functools.partial(Attention, q_seq=70, kv_seq=100, heads=1, kv_heads=1, head_dim=64, v_head_dim=64)
both = lambda *names: lambda draw, a: functools.reduce(operator.and_, (MASKS[name](draw, a) for name in names))
joint = lambda draw, a: both("segments", "pattern")(draw, a) | both("window", "lengths")(draw, a)

# Every mask, option and kind of bias at least once; sizes that leave a tail in every tile. EQXGEN_FULL=1 takes each
# alone, and wide heads.
COMPACT = {
    "plain": shape(q_seq=5, kv_seq=7, head_dim=24, v_head_dim=8),
    "causal multi query": shape(q_seq=150, kv_seq=150, heads=2, mask=MASKS["causal"]),
    "latent window prefix dropout": shape(
        head_dim=192, v_head_dim=128, mask=both("window", "prefix"), dropout_rate=0.3
    ),
    "dense offset alibi": shape(head_dim=96, v_head_dim=96, mask=both("dense", "causal offset"), alibi=True),
    "packed": shape(heads=2, bias=(False, True, True, True), soft_cap=2.0, dropout_rate=0.2, mask=joint),
}
MORE = {
    "prefix key bias": shape(
        batch=2, head_dim=32, v_head_dim=32, mask=MASKS["prefix"], bias=(True, False, False, True)
    ),
    "offset query bias": shape(
        head_dim=128, v_head_dim=128, mask=MASKS["causal offset"], bias=(False, False, True, False)
    ),
    "wide": shape(head_dim=256, v_head_dim=256, mask=MASKS["causal"]),
} | {mask: shape(batch=2, heads=4, kv_heads=2, q_seq=150, kv_seq=200, mask=make) for mask, make in MASKS.items()}
SIMULATED = COMPACT | MORE if FULL else COMPACT


@current
@pytest.mark.parametrize("name", SIMULATED)
def test_the_kernels_have_the_value_and_every_gradient_of_the_formula_in_the_simulator(name, monkeypatch):
    arrays, rest = inputs(SIMULATED[name], dtype=jnp.float16)
    with simulated(monkeypatch):
        got = measure(arrays, rest, "mosaic_gpu")
    agree(got, SIMULATED[name], arrays, rest, tolerance=3e-3)


# More keys, then more queries, than the ring of a kernel has places for.
RINGS = {
    "keys": shape(q_seq=5, kv_seq=600, head_dim=32, v_head_dim=32),
    "queries": shape(q_seq=330, kv_seq=5, head_dim=32, v_head_dim=32, bias=(False, False, True, False)),
}


@current
@pytest.mark.parametrize("name", RINGS)
def test_no_warpgroup_reads_what_another_may_still_write(name, monkeypatch):
    from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call as simulator

    arrays, rest = inputs(RINGS[name], dtype=jnp.float16)
    simulator.reset_gpu_interpret_mode_state()
    with simulated(monkeypatch, detect_races=True):
        measure(arrays, rest, "mosaic_gpu")
    assert not simulator.get_races().races_found


@current
def test_a_number_that_is_not_finite_spoils_the_rows_that_see_it_and_no_other(monkeypatch):
    arrays, _ = inputs(shape(q_seq=9, kv_seq=9), dtype=jnp.float16)
    arrays["value"] = arrays["value"].at[0, 5, 0, 3].set(jnp.inf)
    arrays["key"] = arrays["key"].at[0, 7, 0, 3].set(jnp.nan)
    with simulated(monkeypatch):
        (out, lse), grads = measure(arrays, {"is_causal": True}, "mosaic_gpu")
    assert np.isfinite(out[:, :5]).all()
    assert np.isnan(out[:, 5:]).all(-1).all()
    assert np.isfinite(lse[:, :5]).all()
    assert np.isfinite(grads["query"][:, :5]).all()


# Every width, mask, dtype and option is among these; `bench.gpu.lowering` takes every combination of them.
LOWERED = (
    [(128, mask, "float16") for mask in MASKS]
    + [(width, None, "bfloat16") for width in (32, *WIDTHS)]
    + [(64, "causal", "bfloat16")]
)


@current
@pytest.mark.parametrize(("call", "option"), list(zip(LOWERED, itertools.cycle(OPTIONS))))
def test_every_width_mask_and_option_lowers_for_a_gpu_that_is_not_there(call, option):
    assert [reason for _, reason, _ in passes(*call, option) if reason] == []


@pytest.fixture(scope="module")
def assembler():
    try:
        return gpu_assembler.Assembler()
    except RuntimeError as missing:
        pytest.skip(str(missing))


# The FlashAttention-3 paper's grid; bytes of a thread that registers do not hold. Of the passes that are not named
# here, none.
SPILLED = {
    (128, None): {"backward_kv": 8},
    (128, "causal"): {"backward_kv": 112},
    (256, None): {"backward_q": 32, "backward_kv": 48},
    (256, "causal"): {"backward_q": 32, "backward_kv": 92},
}
IGNORED, SERIAL = "'setmaxnreg' ignored", "wgmma.mma_async instructions are serialized"


@current
@pytest.mark.parametrize(("width", "mask"), list(itertools.product((64, 128, 256), (None, "causal"))))
def test_the_assembler_finds_registers_for_the_kernels_and_no_product_that_must_wait(width, mask, assembler):
    found = [
        assembler.assemble(kernel) for _, _, kernels in passes(width, mask, "bfloat16", "plain") for kernel in kernels
    ]
    shares = mosaic_gpu.shares_registers()
    assert len(found) == (3 if width == 64 or (width == 128 and shares) else 4)
    warned = lambda text: {any(text in warning for warning in x.warnings) for x in found}
    # Where the first fails, this jax gives the kernels their registers, and `shares_registers` can say so.
    assert warned(IGNORED) == {not shares}
    assert warned(SERIAL) == {not shares and width > choice.FITTING}
    allowed = SPILLED.get((width, mask), {}) if shares else dict.fromkeys(("backward_q", "backward_kv"), 32)
    if shares or width <= choice.FITTING:
        assert {
            x.name: x.spilled for x in found if x.spilled > allowed.get(x.name.removeprefix("eqxgen_attention_"), 0)
        } == {}


def test_what_the_assembler_says_is_read():
    said = """ptxas info    : Compiling entry function 'eqxgen_attention_forward_mosaic_gpu_kernel' for 'sm_90a'
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to a function call
    8 bytes stack frame, 4 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers"""
    found = gpu_assembler.read(said)
    assert (found.name, found.registers, found.spilled) == ("eqxgen_attention_forward", 168, 4)
    assert [text.split(": ")[1] for text in found.warnings] == ["(C7510) Potential Performance Loss"]
    with pytest.raises(RuntimeError, match="it does not assemble: ptxas fatal"):
        gpu_assembler.read("ptxas fatal   : Unresolved extern function")


@current
@pytest.mark.parametrize(("width", "kernels"), [(64, 3), (128, 3 if mosaic_gpu.shares_registers() else 4), (256, 4)])
def test_a_gradient_calls_the_forward_kernel_and_two_more_or_three_for_wide_heads(width, kernels):
    x = jax.ShapeDtypeStruct((1, 128, 2, width), jnp.bfloat16)
    assert (
        lowered(jax.grad(lambda *x: jnp.sum(attend(*x).astype(jnp.float32)), (0, 1, 2)), x, x, x).count(KERNEL)
        == kernels
    )


X = jax.ShapeDtypeStruct((2, 256, 4, 64), jnp.bfloat16)


@current
@pytest.mark.parametrize(
    ("device", "kernels", "log"),
    [
        ("NVIDIA H100 80GB HBM3", 1, "runs as mosaic_gpu"),
        ("NVIDIA A100", 0, "compute capability 9.0: this device is NVIDIA A100"),
        (None, 0, "the compute capability that this program is for is not known"),
    ],
)
def test_a_program_takes_the_kernels_unasked_on_hopper_alone(device, kernels, log, caplog):
    _dispatch._log_once.cache_clear()
    with caplog.at_level(logging.INFO, "eqxgen.kernels"):
        assert (
            lowered(functools.partial(dot_product_attention, is_causal=True), X, X, X, device=device).count(KERNEL)
            == kernels
        )
    assert log in caplog.text


@current
def test_a_kernel_that_does_not_build_leaves_the_program_to_another_and_says_so_once(caplog):
    class Strange(masks.Mask):
        """A mask whose condition the compiler for Hopper does not know."""

        def allowed(self, i, j):
            return jnp.sort(jnp.sin(j.astype(jnp.float32)), axis=-1) < 0.0 * i

        def block_bounds(self, i0, i1, j0, j1):
            return (i0 == i0) & (j0 == j0), (i0 != i0) & (j0 != j0)

    jax.tree_util.register_pytree_node(Strange, lambda mask: ((), None), lambda *_: Strange())
    call = functools.partial(dot_product_attention, mask=Strange())
    gradient = jax.grad(lambda *x: jnp.sum(call(*x).astype(jnp.float32)), (0, 1, 2))
    with caplog.at_level(logging.INFO, "eqxgen.kernels"):
        text = lowered(lambda *x: (gradient(*x), gradient(*x)), X, X, X, device="NVIDIA H200")
    assert KERNEL not in text
    assert caplog.text.count("mosaic_gpu: it does not build: ") == 1
    with pytest.raises(NotImplementedError, match="implementation 'mosaic_gpu' cannot run: it does not build"):
        lowered(functools.partial(call, implementation="mosaic_gpu"), X, X, X)


@current
def test_the_kernels_lower_inside_shard_map_with_varying_axes_checked_and_under_vmap():
    gradient = lambda q, ids: jax.grad(
        lambda q: jnp.sum(attend(q, q, q, mask=masks.Segments(ids)).astype(jnp.float32))
    )(q)
    mesh = Mesh(np.array(jax.devices()[:1]), "data")
    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P("data"), check_vma=True)
    ids = jax.ShapeDtypeStruct((2, 256), jnp.int32)
    assert lowered(mapped, X, ids).count(KERNEL) == 3
    many = jax.ShapeDtypeStruct((3, *X.shape), X.dtype)
    assert lowered(jax.vmap(attend, in_axes=(0, None, 0)), many, X, many).count(KERNEL) == 1


REFUSED = {
    "float32": (jnp.float32, 64, {}, "the kernel computes bfloat16 and float16: got float32"),
    "wide": (jnp.bfloat16, 264, {}, "head_dim above 256 does not fit the registers: got 264"),
    "fine": (
        jnp.bfloat16,
        64,
        {"mask": masks.BlockSparse(np.eye(64, dtype=bool), 4)},
        "a pattern of blocks below 8 .* got blocks of 4",
    ),
}


@current
@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_the_kernels_do_not_take_is_refused_with_the_reason(name):
    dtype, width, arguments, reason = REFUSED[name]
    x = jax.ShapeDtypeStruct((1, 256, 2, width), dtype)
    with pytest.raises(NotImplementedError, match="implementation 'mosaic_gpu' cannot run: " + reason):
        jax.eval_shape(functools.partial(attend, **arguments), x, x, x)


@pytest.mark.parametrize(
    ("python", "hint"), [((3, 11), ", and jax 0.11 needs Python 3.12: this is 3.11"), ((3, 12), "")]
)
def test_an_older_jax_is_refused_with_the_reason_and_the_python_that_a_newer_one_needs(python, hint, monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    monkeypatch.setattr(support, "_PYTHON", python)
    reason = f"it needs jax 0.11 or newer: this is {jax.__version__}{hint}"
    with pytest.raises(NotImplementedError, match=rf"implementation 'mosaic_gpu' cannot run: {reason}(\n|$)"):
        jax.eval_shape(attend, X, X, X)


@current
def test_a_program_for_another_platform_says_so():
    with pytest.raises(NotImplementedError, match="it runs on NVIDIA GPUs only, and this program is compiled for cpu"):
        jax.jit(attend).lower(X, X, X)


@current
def test_masks_and_biases_hold_no_square_of_the_length():
    seq = 8192

    def value(q, slopes, ids, length):
        packed = masks.Segments(ids) & (masks.PrefixLM(length) | masks.Window(4096, 512)) & masks.Lengths(length, None)
        sparse = masks.BlockSparse.strided(seq // 128, block=128, stride=4) & masks.Causal(length)
        return jnp.sum(attend(q, q, q, ALiBi(slopes), packed & sparse).astype(jnp.float32))

    shapes = ((1, seq, 2, 64), jnp.bfloat16), ((2,), jnp.float32), ((1, seq), jnp.int32), ((1,), jnp.int32)
    text = lowered(jax.grad(value), *(jax.ShapeDtypeStruct(*x) for x in shapes))
    sizes = [
        math.prod(map(int, re.findall(r"\d+(?=x)", dims))) for dims in set(re.findall(r"tensor<((?:\d+x)+)", text))
    ]
    assert seq * 128 == max(sizes)
