"""Attention on eight virtual devices, in a process of its own with a watchdog; and the memory of compiled programs."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bench.ops.attention import memory
from kernels import dot_product_attention, masks

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from kernels import ALiBi, dot_product_attention, masks

mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
draw = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(draw.standard_normal(shape), jnp.float32)
q, k, v = normal(8, 50, 4, 16), normal(8, 50, 2, 16), normal(8, 50, 2, 16)
ids, key = jnp.asarray(np.sort(draw.integers(0, 3, (8, 50)), 1)), jax.random.key(1)

def loss(q, k, v, ids, rate=0.2):
    mask = masks.Segments(ids) & masks.Causal()
    out, lse = dot_product_attention(q, k, v, mask=mask, dropout_rate=rate, dropout_key=key, return_residual=True)
    return jnp.sum(out**2) + jnp.sum(lse**2)

def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), got, want)

# The program on eight devices moves no operand and gives what one device gives. The first three operands are split by the spec.
def agree(f, spec, *operands):
    places = [spec] * 3 + [P(*spec[:1])] * (len(operands) - 3)
    want = jax.jit(f)(*operands)
    program = jax.jit(f).lower(*(jax.device_put(x, NamedSharding(mesh, place)) for x, place in zip(operands, places))).compile()
    for word in ("all-gather", "all-to-all", "collective-permute"):
        assert word not in program.as_text(), (spec, word)
    got = jax.block_until_ready(program(*(jax.device_put(x, NamedSharding(mesh, place)) for x, place in zip(operands, places))))
    close(got, want)
    return got, program.as_text()

f = jax.value_and_grad(loss, (0, 1, 2))
for spec in (P("data", None, "model"), P(None, None, "model")):
    got, _ = agree(f, spec, q, k, v, ids)
    assert all(g.sharding.spec == spec for g in got[1]), [g.sharding.spec for g in got[1]]
print("partitioned")

# The gradient of a bias that examples or heads share is summed where it is, and only the sum travels.
for shape, spec in (((1, 1, 1, 50), P(("data", "model"))), ((4,), P("data", None, "model"))):
    bias = normal(*shape)

    def gradient(q, k, v, bias=bias):
        value = lambda x: jnp.sum(jnp.sin(dot_product_attention(q, k, v, ALiBi(x) if x.ndim == 1 else x)))
        return jax.grad(value)(bias)

    _, text = agree(gradient, spec, q, k, v)
    assert "all-reduce" in text, shape
print("summed")

plain = lambda *a: loss(*a, 0.0)
local = lambda *a: (jax.lax.psum(plain(*a), "data"), jax.grad(plain, (0, 1, 2))(*a))
mapped = jax.shard_map(local, mesh=mesh, in_specs=(P("data"),) * 4, out_specs=(P(), (P("data"),) * 3), check_vma=True)
want = jax.jit(jax.value_and_grad(plain, (0, 1, 2)))(q, k, v, ids)
close(jax.block_until_ready(jax.jit(mapped)(q, k, v, ids)), want)
print("mapped")

# A replicated operand gets the sum of its gradients, and a shared bias too.
bias, w = normal(4, 50, 50), jnp.eye(16)
value = lambda w, bias, k: jnp.sum(jnp.sin(dot_product_attention(k @ w, k, k, bias=bias[:2])))
whole = jax.jit(jax.grad(value, (0, 1)))(w, bias, v)
body = lambda w, bias, k: jax.grad(lambda *a: jax.lax.psum(value(*a, k), "data"), (0, 1))(w, bias)
mapped = jax.shard_map(body, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P(), check_vma=True)
close(jax.block_until_ready(jax.jit(mapped)(w, bias, v)), whole)
print("replicated")

# The columns of projections are divided among more devices than there are heads: XLA divides each head too.
line = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
x, wide, narrow = normal(2, 50, 16), normal(16, 4 * 16) / 4, normal(16, 2 * 16) / 4
heads = lambda x: x.reshape(*x.shape[:2], -1, 16)
value = lambda x, wq, wk: jnp.sum(jnp.sin(dot_product_attention(heads(x @ wq), heads(x @ wk), heads(x @ wk))))
place = lambda x, *spec: jax.device_put(x, NamedSharding(line, P(*spec)))
for wq in (wide, narrow):
    f = jax.jit(jax.grad(value, (0, 1, 2)))
    got = f(place(x), place(wq, None, "model"), place(narrow, None, "model"))
    close(jax.block_until_ready(got), f(x, wq, narrow))
print("parts")
"""


def test_eight_devices_partition_without_gathering_and_agree_with_one():
    flags = [
        "--xla_force_host_platform_device_count=8",
        "--xla_cpu_collective_call_warn_stuck_timeout_seconds=3",
        "--xla_cpu_collective_call_terminate_timeout_seconds=20",
        # Compiling is the cost here.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
    root = Path(__file__).parents[2]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.split() == ["partitioned", "summed", "mapped", "replicated", "parts"], done.stderr[-3000:]


def test_temporary_memory_at_a_length_of_32768_is_no_more_than_the_operands():
    assert memory(32768)["temporary / held"] <= 1.1


def packed(q):
    mask = masks.Segments(jnp.zeros(q.shape[1], int))
    return jnp.sum(dot_product_attention(q, q, q, mask=mask, dropout_rate=0.1, dropout_key=jax.random.key(0)))


DERIVATIVES = {
    "segments and dropout": jax.grad(packed),
    "forward mode": lambda q: jax.jvp(lambda q: dot_product_attention(q, q, q), (q,), (q,))[1],
    "second order": lambda q: jax.jvp(
        jax.grad(lambda q: jnp.sum(dot_product_attention(q, q, q, is_causal=True) ** 2)), (q,), (q,)
    )[1],
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_no_derivative_holds_the_square_of_the_length(name):
    seq = 32768
    q = jax.ShapeDtypeStruct((1, seq, 1, 64), jnp.float32)
    held = jax.jit(DERIVATIVES[name]).lower(q).compile().memory_analysis().temp_size_in_bytes
    # One boolean for each pair of positions would hold seq * seq bytes.
    assert held <= seq * seq / 3
