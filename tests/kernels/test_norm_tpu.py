"""The TPU kernels compiled ahead of time for v5e and v6e on a machine without a TPU."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import group_norm, layer_norm, rms_norm

if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu, which compiles for a TPU without one, is not installed (extra `tpu`)", allow_module_level=True)


@pytest.fixture(params=["v5e:2x2", "v6e:2x2"])
def devices(request, monkeypatch):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    return np.array(topologies.get_topology_desc(platform="tpu", topology_name=request.param).devices)


def on(mesh, *shape, dtype=jnp.bfloat16, spec=None):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec or P()))


def both_passes(norm):
    def run(arguments, cotangent):
        y, pull = jax.vjp(norm, arguments)
        return y, pull(cotangent)

    return run


def test_both_passes_move_no_more_bytes_than_they_must(devices):
    mesh = Mesh(devices[:1], ("one",))
    x, row, shift = on(mesh, 16, 1024, 4096), on(mesh, 4096, dtype=jnp.float32), on(mesh, 16, 1, 4096)
    plain = lambda a: layer_norm(a[0], a[1], a[1], modulation=(a[2], a[2]))
    # The sum with the residual has one gradient, asked for once: asked for twice it is copied.
    fused = lambda a: rms_norm(a[0], a[1], residual=jax.lax.stop_gradient(a[2]))
    for norm, arguments, cotangent, arrays in ((plain, (x, row, shift), x, 5), (fused, (x, row, x), (x, x), 8)):
        compiled = jax.jit(both_passes(norm)).lower(arguments, cotangent).compile()
        assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 2
        # The gradient of the residual, which is zero here, is one more array to write.
        assert compiled.cost_analysis()["bytes accessed"] < 1.15 * (arrays + (arrays == 8)) * x.size * 2


@pytest.mark.parametrize("dim", [1, 123, 16384])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rows_of_any_length_compile(devices, dim, dtype):
    mesh = Mesh(devices[:1], ("one",))
    x, row = on(mesh, 3, 77, dim, dtype=dtype), on(mesh, 3, 1, dim, dtype=dtype)
    norm = lambda a: layer_norm(a[0], residual=a[0], modulation=(a[1], a[1]))
    assert "tpu_custom_call" in jax.jit(both_passes(norm)).lower((x, row), (x, x)).compile().as_text()


def test_group_norm_moves_each_array_once_where_an_example_fits(devices):
    mesh = Mesh(devices[:1], ("one",))
    x, row = on(mesh, 256, 32, 32, 256), on(mesh, 256, dtype=jnp.float32)
    norm = lambda a: group_norm(a[0], a[1], a[1], groups=32, activation="silu")
    compiled = jax.jit(both_passes(norm)).lower((x, row), x).compile()
    assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 2
    assert compiled.cost_analysis()["bytes accessed"] < 1.15 * 5 * x.size * 2


def test_the_largest_example_of_group_norm_compiles_in_odd_sizes(devices):
    mesh = Mesh(devices[:1], ("one",))
    x, row = on(mesh, 3, 2043, 125, dtype=jnp.float32), on(mesh, 3, 1, 125, dtype=jnp.float32)
    norm = lambda a: group_norm(a[0], groups=5, activation="silu", modulation=(a[1], a[1]))
    assert "tpu_custom_call" in jax.jit(both_passes(norm)).lower((x, row), x).compile().as_text()


@pytest.mark.parametrize("check_vma", [True, False])
def test_kernels_run_inside_shard_map_and_sum_a_shared_gradient(devices, check_vma):
    mesh = Mesh(devices.reshape(4), ("data",), axis_types=(AxisType.Auto,))
    x, scale = on(mesh, 8, 64, 256, spec=P("data")), on(mesh, 256, dtype=jnp.float32)

    def gradient(x, scale):
        if not check_vma:
            return jax.lax.psum(jax.grad(lambda s: jnp.sum(layer_norm(x, s)).astype(jnp.float32))(scale), "data")
        return jax.grad(lambda s: jax.lax.psum(jnp.sum(layer_norm(x, s)).astype(jnp.float32), "data"))(scale)

    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(P("data"), P()), out_specs=P(), check_vma=check_vma)
    text = jax.jit(mapped).lower(x, scale).compile().as_text()
    assert "tpu_custom_call" in text
    assert "all-reduce" in text


def test_rows_that_the_partitioner_divides_stay_where_they_are(devices):
    mesh = Mesh(devices.reshape(4), ("data",), axis_types=(AxisType.Auto,))
    x, scale = on(mesh, 8, 64, 256, spec=P("data")), on(mesh, 256, dtype=jnp.float32)
    gradient = lambda implementation: jax.jit(
        jax.grad(lambda x, s: jnp.sum(layer_norm(x, s, implementation=implementation)))
    )
    assert "all-gather" not in gradient(None).lower(x, scale).compile().as_text()
    with pytest.raises(
        NotImplementedError, match=r"XLA cannot split this kernel over devices: call it inside jax\.shard_map"
    ):
        gradient("mosaic_tpu").lower(x, scale)


def test_rows_on_explicit_axes_run_the_kernels_on_each_device_and_sum_a_shared_gradient(devices):
    mesh = jax.make_mesh((2, 2), ("data", "seq"), devices=list(devices.flat))
    rows, scale = on(mesh, 8, 64, 256, spec=P("data", "seq")), on(mesh, 256, dtype=jnp.float32)
    images = on(mesh, 8, 64, 256, spec=P("data"))

    def values(x, y, scale):
        return rms_norm(x, scale), jax.vmap(lambda y: group_norm(y, scale, groups=8, batch_dims=0))(y)

    def both(x, y, scale):
        results, pull = jax.vjp(values, x, y, scale)
        return results, pull(results)

    text = jax.jit(both).lower(rows, images, scale).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 4
    assert not [word for word in ("all-gather", "all-to-all", "collective-permute") if f"{word}(" in text]
    assert "all-reduce" in text


def test_split_channels_on_explicit_axes_are_left_to_xla(devices):
    mesh = jax.make_mesh((4,), ("model",), devices=list(devices.flat))
    text = jax.jit(rms_norm).lower(on(mesh, 8, 64, 256, spec=P(None, None, "model"))).compile().as_text()
    assert "tpu_custom_call" not in text
    assert "all-gather" not in text
