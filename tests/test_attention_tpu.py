"""The TPU kernels: against the definition in interpret mode, and compiled ahead of time for a TPU that is not there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import inputs, quick_jit, scalar
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bench.shapes import ATTENTION
from bench.tpu_attention import topology
from kernels import dot_product_attention, masks
from kernels.attention.mosaic_tpu import tiling

INTERPRETED = ["shared bias", "alibi", "everything", "pattern"]


@pytest.fixture
def interpret(monkeypatch):
    monkeypatch.setenv("EQXGEN_INTERPRET", "1")
    monkeypatch.setattr(tiling, "LANES", 16)
    monkeypatch.setattr(tiling, "FORWARD_BLOCK", 32)
    monkeypatch.setattr(tiling, "BACKWARD_BLOCK", 32)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize("name", INTERPRETED)
def test_the_kernels_have_the_value_and_every_gradient_of_the_definition(interpret, name):
    arrays, rest = inputs(ATTENTION[name])
    got, want = (
        quick_jit(jax.value_and_grad(functools.partial(scalar, rest=rest, implementation=implementation)))(arrays)
        for implementation in ("mosaic_tpu", "reference")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * max(1.0, float(jnp.max(jnp.abs(b)))), rtol=2e-4), got, want)


def loss(q, k, v, key):
    return jnp.sum(dot_product_attention(q, k, v, dropout_rate=0.1, dropout_key=key).astype(jnp.float32))


def compiled(function, mesh, specs, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec)) for spec, (shape, dtype) in zip(specs, shapes)]
    return jax.jit(function).lower(*arguments).compile().as_text()


KERNEL = 'custom_call_target="tpu_custom_call"'


@pytest.fixture(scope="module")
def devices():
    pytest.importorskip("libtpu")
    return np.array(topology("v5e:2x4").devices)


def key_type():
    key = jax.eval_shape(lambda: jax.random.key(0))
    return key.shape, key.dtype


@pytest.mark.parametrize("head_dim", [48, 64])
def test_a_program_compiled_for_a_tpu_takes_its_kernels_without_being_asked(devices, head_dim):
    x = ((2, 257, 4, head_dim), jnp.bfloat16)
    text = compiled(jax.grad(loss, (0, 1, 2)), Mesh(devices[:1], "x"), [P()] * 4, x, x, x, key_type())
    assert text.count(KERNEL) == 3


def test_the_kernels_compile_inside_shard_map_with_varying_axes_checked(devices):
    def gradient(q, w, ids):
        value = lambda w: jnp.sum(dot_product_attention(q @ w, q, q, mask=masks.Segments(ids) & masks.Causal()).astype(jnp.float32))
        return jax.lax.pmean(jax.grad(value)(jax.lax.pcast(w, "data", to="varying")), "data")

    mesh = Mesh(devices, "data")
    specs = (P("data"), P(), P("data"))
    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=True)
    shapes = ((16, 257, 4, 64), jnp.bfloat16), ((64, 64), jnp.bfloat16), ((16, 257), jnp.int32)
    text = compiled(mapped, mesh, specs, *shapes)
    # Forward and the gradient of the query; that of key and value is not asked for.
    assert text.count(KERNEL) == 2
    assert "all-gather" not in text


def test_a_sharded_program_without_shard_map_compiles_and_the_kernel_by_name_says_why_not(devices):
    mesh = Mesh(devices, "data")
    x = ((8, 64, 2, 64), jnp.bfloat16)
    assert KERNEL not in compiled(loss, mesh, [P("data")] * 3 + [P()], x, x, x, key_type())
    with pytest.raises(NotImplementedError, match=r"XLA cannot split a Mosaic kernel over devices: call it inside jax.shard_map"):
        compiled(functools.partial(dot_product_attention, implementation="mosaic_tpu"), mesh, [P("data")] * 3, x, x, x)
