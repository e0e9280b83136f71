"""An implementation for NVIDIA GPUs that cannot be built, or the device lacks its features: the next one runs, or the
name is refused.
"""

import functools
import logging
import types

import jax
import jax.numpy as jnp
import pytest

from kernels import _cuda, _dispatch, _triton, dot_product_attention, group_norm, layer_norm, rms_norm
from kernels.attention.triton import launch
from kernels.norm.triton import launch as norm_launch

X = jax.ShapeDtypeStruct((2, 64, 4, 32), jnp.bfloat16)
OPS = {
    "dot_product_attention": lambda x, **options: dot_product_attention(x, x, x, is_causal=True, **options),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": functools.partial(group_norm, groups=2),
}
KERNELS = ("triton_kernel_call", "mosaic_gpu", "__cudnn")


@pytest.fixture(autouse=True)
def unlogged():
    _dispatch._log_once.cache_clear()


@pytest.fixture
def broken(monkeypatch):
    """Triton kernels that no compiler accepts."""

    def call(launch, *inputs):
        raise RuntimeError("ptxas: too many registers\nand a long story")

    monkeypatch.setattr(_triton, "unavailable", lambda: None)
    monkeypatch.setattr(launch, "call", call)
    monkeypatch.setattr(norm_launch, "call", call)


@pytest.fixture
def turing(monkeypatch):
    device = types.SimpleNamespace(device_kind="Tesla T4", compute_capability="7.5")
    monkeypatch.setattr(_cuda, "device", lambda: device)


def gradient(op, **options):
    """The op's gradient as a program for CUDA, in text."""
    program = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(OPS[op](x, **options).astype(jnp.float32)))))
    return program.trace(X).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("op", OPS)
def test_a_kernel_that_does_not_build_leaves_the_program_to_another_and_says_so_once(op, broken, caplog):
    with caplog.at_level(logging.INFO, "eqxgen.kernels"):
        text = gradient(op)
        gradient(op)
    assert not any(kernel in text for kernel in KERNELS)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{op} runs as xla (")
    assert "triton: it does not build: RuntimeError: ptxas: too many registers" in line
    assert "long story" not in line


@pytest.mark.parametrize("op", OPS)
def test_a_named_kernel_that_does_not_build_is_refused_with_the_reason(op, broken):
    with pytest.raises(
        NotImplementedError, match=f"{op}: implementation 'triton' cannot run: it does not build: RuntimeError: ptxas"
    ):
        gradient(op, implementation="triton")


@pytest.mark.parametrize("op", OPS)
def test_a_device_without_the_features_takes_the_next_implementation_and_says_so_once(op, turing, caplog):
    with caplog.at_level(logging.INFO, "eqxgen.kernels"):
        text = gradient(op)
        gradient(op)
    assert not any(kernel in text for kernel in KERNELS)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{op} runs as xla (")
    assert "triton: it compiles for compute capability 8.0 and newer: this device is 7.5" in line


NAMED = [(op, "triton", "it compiles for compute capability 8.0 and newer: this device is 7.5") for op in OPS] + [
    (
        "dot_product_attention",
        "mosaic_gpu",
        "it compiles for Hopper, compute capability 9.0: this device is 7.5"
        if jax.__version_info__ >= (0, 11)
        else "it needs jax 0.11 or newer: this is 0.10",
    ),
    ("dot_product_attention", "cudnn", "it runs on compute capability 8.0 and newer: this device is 7.5"),
]


@pytest.mark.parametrize(("op", "name", "reason"), NAMED)
def test_a_device_without_the_features_refuses_the_name_with_the_reason(op, name, reason, turing):
    with pytest.raises(NotImplementedError, match=f"{op}: implementation '{name}' cannot run: {reason}"):
        gradient(op, implementation=name)
