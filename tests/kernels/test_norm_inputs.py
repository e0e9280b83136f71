"""Bad arguments of the norms: each is refused with the argument, its constraint and the values."""

import functools
import inspect

import jax.numpy as jnp
import pytest

from kernels import group_norm, layer_norm, rms_norm

# Without the suite's run-time type checker, which would answer first.
LAYER, RMS, GROUP = (inspect.unwrap(f) for f in (layer_norm, rms_norm, group_norm))
GROUP2 = functools.partial(GROUP, groups=2)
X, ROW = jnp.ones((2, 3, 8)), jnp.ones(8)

BAD = {
    "integer input": (lambda: LAYER(jnp.ones((2, 8), jnp.int32)), r"x must be floating point: got x\.dtype=int32"),
    "boolean input": (lambda: RMS(jnp.ones((2, 8), bool)), r"rms_norm: x must be floating point: got x\.dtype=bool"),
    "complex input": (lambda: GROUP2(jnp.ones((2, 8), jnp.complex64)), r"group_norm: x must be floating point"),
    "rank 0": (lambda: LAYER(jnp.ones(())), r"x must have rank 1 or more: got x\.shape=\(\), of rank 0"),
    "zero-size axis": (lambda: RMS(jnp.ones((4, 0))), r"last axis of x must have size 1 or more.*x\.shape=\(4, 0\)"),
    "no batch axis": (lambda: GROUP2(ROW), r"x must have rank 2 or more: got x\.shape=\(8,\)"),
    "negative batch axes": (lambda: GROUP2(X, batch_dims=-1), r"batch_dims must be 0 or more: got batch_dims=-1"),
    "scale of another size": (
        lambda: LAYER(X, jnp.ones(7)),
        r"scale must have shape \(dim,\).*scale\.shape=\(7,\), x\.shape=\(2, 3, 8\)",
    ),
    "scale that would broadcast": (lambda: RMS(X, jnp.ones(1)), r"scale must have shape \(dim,\).*\(1,\)"),
    "scale of rank 2": (lambda: LAYER(X, jnp.ones((1, 8))), r"scale must have shape.*\(1, 8\)"),
    "integer scale": (lambda: LAYER(X, jnp.ones(8, jnp.int8)), r"scale must be floating point: got dtype int8"),
    "bias of another size": (lambda: GROUP2(X, ROW, jnp.ones(4)), r"bias must have shape.*bias\.shape=\(4,\)"),
    "residual of another shape": (
        lambda: LAYER(X, residual=X[:1]),
        r"residual must have the shape of x: got residual\.shape=\(1, 3, 8\)",
    ),
    "residual of another dtype": (
        lambda: RMS(X, residual=X.astype("bfloat16")),
        r"residual must have the dtype.*bfloat16.*float32",
    ),
    "modulation that is not a pair": (
        lambda: LAYER(X, modulation=(ROW,)),
        r"modulation must be a tuple \(shift, scale\): got tuple of 1",
    ),
    "modulation of a lower rank": (
        lambda: LAYER(X, modulation=(jnp.ones((2, 8)), ROW)),
        r"modulation shift must broadcast to x.*got shape \(2, 8\), x\.shape=\(2, 3, 8\); one row per example has shape \(2, 1, 8\)",
    ),
    "modulation of another batch": (
        lambda: RMS(X, modulation=(ROW, jnp.ones((4, 1, 8)))),
        r"modulation scale must broadcast.*\(4, 1, 8\)",
    ),
    "modulation of another dim": (
        lambda: GROUP2(X, modulation=(jnp.ones((2, 1, 1)), ROW)),
        r"modulation shift must broadcast",
    ),
    "integer modulation": (
        lambda: LAYER(X, modulation=(ROW.astype("int32"), ROW)),
        r"modulation shift must be floating point",
    ),
    "epsilon of zero": (lambda: LAYER(X, epsilon=0.0), r"epsilon must be positive and finite.*got epsilon=0\.0"),
    "negative epsilon": (lambda: RMS(X, epsilon=-1e-6), r"rms_norm: epsilon must be positive and finite.*-1e-06"),
    "epsilon that is not a number": (
        lambda: GROUP2(X, epsilon=float("nan")),
        r"epsilon must be positive and finite.*nan",
    ),
    "infinite epsilon": (lambda: LAYER(X, epsilon=float("inf")), r"epsilon must be positive and finite.*inf"),
    "epsilon as an array": (lambda: LAYER(X, epsilon=jnp.array(1e-5)), r"epsilon must be a Python number"),
    "infinite scale_offset": (lambda: RMS(X, ROW, scale_offset=float("inf")), r"scale_offset must be finite"),
    "groups that do not divide": (
        lambda: GROUP(X, groups=3),
        r"groups must divide the channels: got groups=3, channels=8.*\[1, 2, 4, 8\]",
    ),
    "no groups": (lambda: GROUP(X, groups=0), r"groups must divide the channels: got groups=0"),
    "an unknown activation": (lambda: GROUP2(X, activation="relu"), r"activation must be None or 'silu': got 'relu'"),
    "an unknown implementation": (
        lambda: LAYER(X, implementation="cuda"),
        r"implementation must be None or one of.*got 'cuda'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_refused_by_name(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


CANNOT = {
    "a large example on TPU": (
        lambda: GROUP2(jnp.ones((1, 2048, 256)), implementation="mosaic_tpu"),
        r"fit in 1 MiB.*\(2048, 256\)",
    ),
    "a modulation over space on TPU": (
        lambda: GROUP2(X, modulation=(X, X), implementation="mosaic_tpu"),
        "leading axes of x's batch",
    ),
    "float16 on TPU": (
        lambda: LAYER(X.astype("float16"), implementation="mosaic_tpu"),
        "must be float32 or bfloat16, got float16",
    ),
    "long rows on TPU": (
        lambda: RMS(jnp.ones((2, 20000)), implementation="mosaic_tpu"),
        "at most 16384 elements, got 20000",
    ),
    "an empty batch on TPU": (lambda: RMS(jnp.ones((0, 8)), implementation="mosaic_tpu"), r"x is empty: \(0, 8\)"),
    "a modulation per token on TPU": (
        lambda: LAYER(X, modulation=(X[:1], X[:1]), implementation="mosaic_tpu"),
        "the leading axes of x",
    ),
    "an empty batch on CUDA": (lambda: GROUP2(jnp.ones((0, 8)), implementation="triton"), r"x is empty: \(0, 8\)"),
    "wide groups on CUDA": (
        lambda: GROUP(jnp.ones((2, 20000)), groups=2, implementation="triton"),
        "at most 8192 channels, got 10000",
    ),
    "a modulation per token on CUDA": (
        lambda: LAYER(X, modulation=(X[:1], X[:1]), implementation="triton"),
        "the leading axes of x and",
    ),
    "a modulation over space on CUDA": (
        lambda: GROUP2(X, modulation=(X, X), implementation="triton"),
        "the leading axes of x's batch",
    ),
    "a CUDA kernel on a CPU": (
        lambda: LAYER(X, implementation="triton"),
        "it runs on NVIDIA GPUs only, and this program is compiled for cpu",
    ),
    "a TPU kernel on a CPU": (
        lambda: LAYER(X, implementation="mosaic_tpu"),
        "it runs on TPUs only, and this program is compiled for cpu",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_a_named_implementation_that_cannot_run_says_why(name):
    call, message = CANNOT[name]
    with pytest.raises(NotImplementedError, match=message):
        call()
