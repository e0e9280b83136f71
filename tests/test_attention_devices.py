"""Attention on eight virtual devices, in a process of its own with a watchdog; and the memory of compiled programs."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from attention_cases import quick_jit

from bench.bench_attention import memory
from kernels import dot_product_attention, masks

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from kernels import dot_product_attention, masks

mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
draw = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(draw.standard_normal(shape), jnp.float32)
q, k, v = normal(8, 150, 4, 16), normal(8, 150, 2, 16), normal(8, 150, 2, 16)
ids, key = jnp.asarray(np.sort(draw.integers(0, 3, (8, 150)), 1)), jax.random.key(1)

def loss(q, k, v, ids, rate=0.2):
    mask = masks.Segments(ids) & masks.Causal()
    out, lse = dot_product_attention(q, k, v, mask=mask, dropout_rate=rate, dropout_key=key, return_residual=True)
    return jnp.sum(out**2) + jnp.sum(lse**2)

def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), got, want)

f = jax.value_and_grad(loss, (0, 1, 2))
want = jax.jit(f)(q, k, v, ids)
for spec in (P("data"), P("data", None, "model"), P(None, None, "model")):
    operands = [jax.device_put(x, NamedSharding(mesh, spec)) for x in (q, k, v)]
    operands.append(jax.device_put(ids, NamedSharding(mesh, P(*spec[:1]))))
    program = jax.jit(f).lower(*operands).compile()
    for word in ("all-gather", "all-to-all", "collective-permute"):
        assert word not in program.as_text(), (spec, word)
    got = jax.block_until_ready(program(*operands))
    close(got, want)
    assert all(g.sharding.spec == spec for g in got[1]), [g.sharding.spec for g in got[1]]
print("partitioned")

plain = lambda *a: loss(*a, 0.0)
local = lambda *a: (jax.lax.psum(plain(*a), "data"), jax.grad(plain, (0, 1, 2))(*a))
mapped = jax.shard_map(local, mesh=mesh, in_specs=(P("data"),) * 4, out_specs=(P(), (P("data"),) * 3), check_vma=True)
want = jax.jit(jax.value_and_grad(plain, (0, 1, 2)))(q, k, v, ids)
close(jax.block_until_ready(jax.jit(mapped)(q, k, v, ids)), want)
print("mapped")

# A replicated operand gets the sum of its gradients, and a shared bias too.
bias, w = normal(4, 150, 150), jnp.eye(16)
value = lambda w, bias, k: jnp.sum(jnp.sin(dot_product_attention(k @ w, k, k, bias=bias[:2])))
whole = jax.jit(jax.grad(value, (0, 1)))(w, bias, v)
body = lambda w, bias, k: jax.grad(lambda *a: jax.lax.psum(value(*a, k), "data"), (0, 1))(w, bias)
mapped = jax.shard_map(body, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P(), check_vma=True)
close(jax.block_until_ready(jax.jit(mapped)(w, bias, v)), whole)
split = jax.device_put(v, NamedSharding(mesh, P("data")))
close(jax.block_until_ready(jax.jit(jax.grad(value, (0, 1)))(w, bias, split)), whole)
print("replicated")
"""


def test_eight_devices_partition_without_gathering_and_agree_with_one():
    flags = [
        "--xla_force_host_platform_device_count=8",
        "--xla_cpu_collective_call_warn_stuck_timeout_seconds=3",
        "--xla_cpu_collective_call_terminate_timeout_seconds=20",
    ]
    root = Path(__file__).parent.parent
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=root, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.split() == ["partitioned", "mapped", "replicated"], done.stderr[-3000:]


def test_temporary_memory_at_a_length_of_32768_is_no_more_than_the_operands():
    assert memory(32768)["temporary / held"] <= 1.1


def packed(q):
    mask = masks.Segments(jnp.zeros(q.shape[1], int))
    return jnp.sum(dot_product_attention(q, q, q, mask=mask, dropout_rate=0.1, dropout_key=jax.random.key(0)))


DERIVATIVES = {
    "segments and dropout": jax.grad(packed),
    "forward mode": lambda q: jax.jvp(lambda q: dot_product_attention(q, q, q), (q,), (q,))[1],
    "second order": lambda q: jax.jvp(jax.grad(lambda q: jnp.sum(dot_product_attention(q, q, q, is_causal=True) ** 2)), (q,), (q,))[1],
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_no_derivative_holds_the_square_of_the_length(name):
    seq = 32768
    q = jax.ShapeDtypeStruct((1, seq, 1, 64), jnp.float32)
    held = quick_jit(DERIVATIVES[name]).lower(q).compile().memory_analysis().temp_size_in_bytes
    # One boolean for each pair of positions would hold seq * seq bytes.
    assert held <= seq * seq / 3
