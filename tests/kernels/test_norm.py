"""The norms: every implementation against float64 on the same cases, and the properties they share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from bench.ops.norm_shapes import ODD, Case
from kernels import group_norm, layer_norm, rms_norm
from kernels.norm.mosaic_tpu import tiling
from tests.full import full

ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
# Unoptimised code, which conftest.py asks for, has a coarser rsqrt.
OPTIMISED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
PLAIN = Case("layer_norm", (3, 8), bias=True)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def interpreted(monkeypatch):
    """Run the TPU kernels in Pallas' interpreter, in blocks of 16 rows or two examples, so that small cases have
    several.
    """
    monkeypatch.setenv("EQXGEN_INTERPRET", "1")
    monkeypatch.setattr(tiling, "BLOCK_BYTES", 1)
    monkeypatch.setattr(tiling, "MAX_EXAMPLES", 2)
    jax.clear_caches()
    yield
    jax.clear_caches()


@functools.cache
def compiled(case, implementation):
    # The reference rounds where its formula does; XLA would otherwise keep `x + residual` in float32 on its way to the
    # norm.
    options = {"xla_allow_excess_precision": False} if implementation == "reference" else OPTIMISED
    return jax.jit(
        functools.partial(case.forward_and_backward, implementation=implementation), compiler_options=options
    )


@functools.cache
def reference(case, dtype):
    """The reference in this precision and, on the same (rounded) numbers, in float64."""
    arguments, cotangent = case.arguments(dtype), case.cotangent(dtype)
    baseline = compiled(case, "reference")(arguments, cotangent)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (arguments, cotangent))
        return baseline, jax.tree.map(np.asarray, compiled(case, "reference")(*wide))


def assert_close(case, run, dtype):
    ours, (baseline, truth) = run(case.arguments(dtype), case.cotangent(dtype)), reference(case, dtype)
    for got, base, true in zip(*map(jax.tree.leaves, (ours, baseline, truth)), strict=True):
        assert (got.dtype, got.shape) == (base.dtype, base.shape)
        error, allowed = (np.abs(np.asarray(a, np.float64) - true).max() for a in (got, base))
        unit = ROUNDING[str(got.dtype)] * np.abs(true).max()
        assert error <= 2 * allowed + unit, (error, allowed, unit)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(c, d, marks=full if i % 2 else (), id=f"{c}-{d}")
        for i, c in enumerate(ODD)
        for d in ROUNDING
        if d != "float16" or i % 4 == 0
    ],
)
def test_xla_is_as_near_to_float64_as_the_reference(case, dtype):
    assert_close(case, compiled(case, "xla"), dtype)


IN_KERNELS = [c for c in ODD if c.op != "group_norm" and c.shape[-1] < 1000 and c.modulation != (1, 3, 8)]
# One group norm with parameters for each example, and one with shared ones and an odd batch.
IN_GROUP_KERNELS = [(ODD[15], "float32"), (ODD[14], "bfloat16")]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [pytest.param(c, "float32", marks=full if i % 2 else ()) for i, c in enumerate(IN_KERNELS)]
    + [pytest.param(c, "bfloat16", marks=full if i % 2 else ()) for i, c in enumerate(IN_KERNELS[::2])]
    + IN_GROUP_KERNELS,
    ids=str,
)
def test_tpu_kernels_are_as_near_to_float64_as_the_reference(case, dtype, interpreted):
    run = functools.partial(case.forward_and_backward, implementation="mosaic_tpu")
    assert_close(case, jax.jit(run, compiler_options=OPTIMISED), dtype)


@pytest.mark.parametrize("case", [ODD[i] for i in (5, 10, 15)], ids=str)
def test_derivatives_agree_with_finite_differences_to_second_order(case):
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), case.arguments())
        small = jax.tree.map(lambda a: a[tuple(slice(0, 3) for _ in a.shape[:-1])], arguments)
        check_grads(
            jax.jit(lambda a: case.call(a, "xla")), (small,), order=2, modes=("fwd", "rev"), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("case", [ODD[i] for i in (5, 10, 15, 16)], ids=str)
def test_vmap_of_gradients_agrees_with_a_loop(case):
    with jax.enable_x64(True):
        batch = [
            jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), case.arguments(seed=i)) for i in range(2)
        ]

        def loss(x, rest):
            return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(case.call({"x": x, **rest}, "xla")))

        xs, rest = jnp.stack([b["x"] for b in batch]), {k: v for k, v in batch[0].items() if k != "x"}
        got = jax.jit(jax.grad(lambda xs, rest: jnp.sum(jax.vmap(loss, (0, None))(xs, rest)), (0, 1)))(xs, rest)
        one = [jax.jit(jax.grad(loss, (0, 1)))(x, rest) for x in xs]
        want = jnp.stack([g for g, _ in one]), jax.tree.map(lambda *g: sum(g), *(g for _, g in one))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10), got, want)


def test_gradients_pass_through_scan_and_remat_in_tpu_kernels(interpreted):
    case = Case("layer_norm", (2, 19, 12), bias=True, residual=True, modulation=(2, 1, 12))
    arguments = case.arguments()

    def loss(a, implementation):
        def body(x, _):
            y, h = jax.checkpoint(lambda x: case.call({**a, "x": x}, implementation))(x)
            return y + 0.5 * h, None

        return jnp.sum(jax.lax.scan(body, a["x"], None, length=3)[0] ** 2)

    got, want = (jax.jit(jax.grad(loss), static_argnums=1)(arguments, i) for i in ("mosaic_tpu", "reference"))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-3), got, want)


def test_forward_over_reverse_runs_in_tpu_kernels(interpreted):
    arguments = PLAIN.arguments()

    def product(implementation):
        loss = lambda a: jnp.sum(jnp.sin(PLAIN.call(a, implementation)))
        return jax.jvp(jax.grad(loss), (arguments,), (jax.tree.map(jnp.ones_like, arguments),))[1]

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), product("mosaic_tpu"), product("reference")
    )


def test_gradients_without_jit_are_the_same():
    arguments, cotangent = PLAIN.arguments(), PLAIN.cotangent()
    compiled_once = PLAIN.forward_and_backward(arguments, cotangent)
    with jax.disable_jit():
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-6),
            compiled_once,
            PLAIN.forward_and_backward(arguments, cotangent),
        )


@pytest.mark.parametrize(
    "case",
    [Case("layer_norm", (64, 128), bias=True), Case("group_norm", (2, 32, 128), options=(("groups", 4),))],
    ids=str,
)
def test_no_float32_copy_of_x_is_kept(case):
    _, pull = jax.vjp(lambda a: case.call(a, "xla"), case.arguments("bfloat16"))
    kept = [a for a in jax.tree.leaves(pull) if hasattr(a, "dtype")]
    wide = sum(a.size for a in kept if a.dtype == jnp.float32)
    assert sum(a.size for a in kept if a.dtype == jnp.bfloat16) == 64 * 128
    assert wide <= 4 * 128 + 2 * 64, [(a.shape, a.dtype) for a in kept]


# At 1.5e38 the derivative that JAX makes of the reference meets inf * 0; ours does not.
@pytest.mark.parametrize(
    ("implementation", "value"),
    [(i, v) for v in (0.0, 3.0, -7e8, 1e19, 1e30) for i in ("xla", "reference")] + [("xla", 1.5e38)],
)
@pytest.mark.parametrize("spread", ["constant", "alternating"])
def test_constant_and_huge_rows_stay_finite(implementation, value, spread):
    sign = jnp.ones(8) if spread == "constant" else jnp.tile(jnp.array([1.0, -1.0]), 4)
    x = jnp.broadcast_to(value * sign, (3, 8))
    for call in (layer_norm, rms_norm, functools.partial(group_norm, groups=2)):
        y, pull = jax.vjp(lambda x, s, call=call: call(x, s, implementation=implementation), x, jnp.ones(8))
        assert all(bool(jnp.isfinite(a).all()) for a in (y, *pull(jnp.ones_like(y))))


def test_a_constant_row_gives_the_bias():
    bias = jnp.arange(8.0)
    np.testing.assert_array_equal(layer_norm(jnp.full((3, 8), 4.0), jnp.ones(8), bias), jnp.broadcast_to(bias, (3, 8)))


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_a_mean_of_ten_thousand_keeps_a_thousandth(implementation):
    x = np.random.default_rng(0).standard_normal((16, 512)).astype("f") + np.float32(1e4)
    true = (x.astype("d") - x.astype("d").mean(-1, keepdims=True)) / np.sqrt(
        x.astype("d").var(-1, keepdims=True) + 1e-5
    )
    for y in (
        layer_norm(jnp.asarray(x), implementation=implementation),
        group_norm(jnp.asarray(x), groups=1, implementation=implementation),
    ):
        assert np.abs(y - true).max() < 1e-3 * np.abs(true).max()


@pytest.mark.parametrize("op", [layer_norm, rms_norm, functools.partial(group_norm, groups=2)])
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(op):
    x, scale = jnp.zeros((0, 3, 4)), jnp.ones(4)
    y, pull = jax.vjp(lambda x, s: op(x, s), x, scale)
    dx, dscale = pull(y)
    assert y.shape == dx.shape == x.shape
    np.testing.assert_array_equal(dscale, jnp.zeros(4))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 99), st.floats(0.1, 100), st.floats(-100, 100))
def test_layer_norm_ignores_the_scale_and_the_mean_of_its_rows(seed, factor, offset):
    x = jax.random.normal(jax.random.key(seed), (4, 32))
    y, moved = (layer_norm(a, epsilon=1e-12, implementation="xla") for a in (x, x * factor + offset))
    np.testing.assert_allclose(moved, y, rtol=0, atol=1e-5 * (10 + abs(offset) / factor))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 99), st.sampled_from([1, 2, 4, 8]))
def test_group_norm_of_whole_groups_commutes_with_a_permutation_of_space(seed, groups):
    x = jax.random.normal(jax.random.key(seed), (2, 9, 8))
    order = jax.random.permutation(jax.random.key(seed + 1), 9)
    norm = functools.partial(group_norm, groups=groups, activation="silu", implementation="xla")
    np.testing.assert_allclose(norm(x)[:, order], norm(x[:, order]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "case", [c for c in ODD if not c.residual and not c.modulation and c.options in ((), ODD[12].options)], ids=str
)
def test_values_and_gradients_equal_those_of_torch(case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed, so its norms cannot be compared with")
    arguments, cotangent = case.arguments(), case.cotangent()
    tensors = {k: torch.tensor(np.asarray(v), requires_grad=True) for k, v in arguments.items()}
    y = _in_torch(torch, case, **tensors)
    y.backward(torch.tensor(np.asarray(cotangent)))
    got, grads = case.forward_and_backward(arguments, cotangent)
    np.testing.assert_allclose(got, y.detach().numpy(), rtol=2e-5, atol=2e-5)
    for name, grad in grads.items():
        np.testing.assert_allclose(
            grad, tensors[name].grad.numpy(), rtol=2e-4, atol=1e-5 + 2e-4 * float(jnp.abs(grad).max())
        )


def _in_torch(torch, case, x, scale=None, bias=None):
    functional = torch.nn.functional
    if case.op == "layer_norm":
        return functional.layer_norm(x, x.shape[-1:], scale, bias)
    if case.op == "rms_norm":
        return functional.rms_norm(x, x.shape[-1:], scale, 1e-6)
    options = dict(case.options)
    y = functional.group_norm(x.movedim(-1, 1), options["groups"], scale, bias).movedim(1, -1)
    return functional.silu(y) if options.get("activation") else y
