"""The norms on eight virtual devices: gradients inside `shard_map`, and `jit` with sharded rows, which must stay where
they are.
"""

import os
import subprocess
import sys

PROGRAM = """
import functools
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from bench.ops.norm_shapes import Case

jax.config.update("jax_enable_x64", True)
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
cases = [
    Case("layer_norm", (16, 5, 12), bias=True, residual=True, modulation=(16, 1, 12)),
    Case("group_norm", (16, 5, 12), bias=True, modulation=(12,), options=(("groups", 3), ("activation", "silu"))),
]
for case in cases:
    arguments = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), case.arguments())
    specs = jax.tree.map(lambda a: P("data") if a.shape[0] == 16 else P(), arguments)
    loss = lambda a: sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(case.call(a, "xla")))
    want = jax.jit(jax.grad(loss))(arguments)
    close = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10))

    inner = lambda a: jax.grad(lambda a: jax.lax.psum(loss(a), "data"))(a)
    outer = jax.grad(jax.shard_map(lambda a: jax.lax.psum(loss(a), "data"), mesh=mesh, in_specs=(specs,), out_specs=P()))
    for function in (jax.shard_map(inner, mesh=mesh, in_specs=(specs,), out_specs=specs), outer):
        close(jax.jit(function)(arguments), want)

    product = lambda gradient: jax.jit(lambda a: jax.jvp(gradient, (a,), (jax.tree.map(jnp.ones_like, a),))[1])(arguments)
    if case.residual:
        close(product(outer), product(jax.grad(loss)))

    placed = jax.tree.map(lambda a, s: jax.device_put(a, NamedSharding(mesh, s)), arguments, specs)
    compiled = jax.jit(jax.grad(loss)).lower(placed).compile()
    assert "all-gather" not in compiled.as_text()
    grads = jax.block_until_ready(compiled(placed))
    assert grads["x"].sharding.spec[0] == "data", grads["x"].sharding
    close(grads, want)

    # A mesh with explicit axes, the default of jax.make_mesh: shardings are part of the types that our operations must state.
    with jax.set_mesh(jax.make_mesh((8,), ("data",))):
        typed = jax.tree.map(lambda a, s: jax.device_put(a, s), arguments, specs)
        close(jax.block_until_ready(jax.jit(jax.grad(loss))(typed)), want)
    print("right", case)
"""

FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_warn_stuck_timeout_seconds=3 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=20"
)


def test_gradients_on_eight_devices_are_those_of_one_and_nothing_is_gathered():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS},
        cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("right") == 2
