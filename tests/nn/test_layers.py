"""Every layer of the catalogue, from one table; and what is particular to some."""

import functools
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from safetensors.numpy import load, save

from eqxgen import RNG, nn
from eqxgen.nn import blur, downsample, upsample
from tests.full import full, rows
from tests.nn.layer_rows import Row, call, of_each_class, table, tables, widened
from train.params.paths import named_arrays
from train.precision import cast
from train.run.weights import with_arrays

KEY = jr.key(0)
BF16 = jnp.dtype("bfloat16")
LAYERS: dict[str, Row] = table()
NAMES = rows(LAYERS, *(LAYERS.keys() - of_each_class().keys()))
WRONG = [wrong for module in tables() for wrong in module.WRONG]


def test_no_two_tables_name_a_row_alike():
    assert len(LAYERS) == sum(len(module.LAYERS) for module in tables())


@functools.cache
def layer_of(name):
    return LAYERS[name].make(KEY)


@functools.cache
def every_way(name):
    """The compiled program of a row mapped and scanned, its inputs, and its results on the layer of KEY."""
    row = LAYERS[name]
    together = tuple(np.stack(pair) for pair in zip(*(row.inputs(seed) for seed in (1, 2))))

    @eqx.filter_jit
    def program(layer, together):
        mapped = jax.vmap(lambda *inputs: call(layer, row, inputs))(*together)
        scanned = jax.lax.scan(lambda _, inputs: (None, call(layer, row, inputs)), None, together)[1]
        return mapped, scanned

    return program, together, program(layer_of(name), together)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_compiles_maps_scans_saves_and_is_deterministic(name):
    row = LAYERS[name]
    layer, twin = layer_of(name), row.make(KEY)
    assert jax.tree.structure(layer) == jax.tree.structure(twin)
    for path, array in _numpy(layer).items():
        np.testing.assert_array_equal(_numpy(twin)[path], array, "the same key must give the same layer")
    program, together, (mapped, scanned) = every_way(name)
    assert mapped.shape == scanned.shape == (2, *row.out)
    assert not jnp.issubdtype(scanned.dtype, jnp.floating) or scanned.dtype == jnp.float32
    np.testing.assert_allclose(mapped, scanned, rtol=1e-5, atol=1e-5)

    other = row.make(jr.key(7))
    restored = with_arrays(other, {name: jnp.asarray(array) for name, array in load(save(_numpy(layer))).items()})
    np.testing.assert_array_equal(program(restored, together)[0], mapped)


def _numpy(layer) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in named_arrays(layer).items()}


@pytest.mark.parametrize("dtype", [BF16, pytest.param(jnp.dtype("float32"), marks=full)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_layer_keeps_the_dtype_and_has_finite_gradients(name, dtype):
    row = LAYERS[name]

    @eqx.filter_jit
    def value_and_grads(layer, inputs):
        def loss(both):
            y = call(*both[:1], row, both[1])
            return jnp.sum(y.astype(jnp.float32) ** 2), y

        both = cast(layer, dtype), inputs if row.ids else cast(inputs, dtype)
        return eqx.filter_value_and_grad(loss, has_aux=True)(both)

    (_, y), grads = value_and_grads(layer_of(name), row.inputs(1))
    one = every_way(name)[-1][1][0]
    assert y.shape == row.out
    if jnp.issubdtype(one.dtype, jnp.floating):
        assert y.dtype == dtype
        np.testing.assert_allclose(widened(y), one, atol=row.atol)
    assert all(np.isfinite(widened(leaf)).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", [name for name, row in LAYERS.items() if row.draws])
def test_a_layer_that_draws_asks_for_a_key_and_has_an_inference_mode(name):
    row = LAYERS[name]
    layer, inputs = layer_of(name), row.inputs(1)

    @eqx.filter_jit
    def drawn(layer, key=None, inference=None):
        return call(layer, row, inputs, key=key, inference=inference)

    with pytest.raises(ValueError, match="key"):
        drawn(layer)
    first, again, other = (drawn(layer, jr.key(seed)) for seed in (0, 0, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    quiet = drawn(layer, inference=True)
    np.testing.assert_array_equal(drawn(layer, jr.key(3), inference=True), quiet)
    np.testing.assert_array_equal(drawn(eqx.nn.inference_mode(layer)), quiet)


@pytest.mark.parametrize("wrong", WRONG, ids=[f"{i}: {wrong.says[:50]}" for i, wrong in enumerate(WRONG)])
def test_a_wrong_argument_is_an_error_with_the_constraint(wrong, unchecked):
    with pytest.raises(wrong.kind, match=wrong.says):
        wrong.call()


def test_an_id_out_of_range_is_nan_where_its_value_is_not_known():
    table = nn.Embedding(4, 3, key=KEY)
    rows = eqx.filter_jit(table)(jnp.asarray([0, 4, -1]))
    np.testing.assert_array_equal(jnp.isnan(rows), jnp.asarray([False, True, True])[:, None].repeat(3, 1))


def test_dropout_keeps_the_mean_and_the_share():
    x = jnp.ones(20_000)
    y = nn.Dropout(0.25)(x, key=KEY)
    assert float(jnp.mean(y == 0)) == pytest.approx(0.25, abs=0.015)
    assert float(jnp.mean(y)) == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(nn.Dropout(0.25)(x, inference=True), x)


def test_causal_attention_does_not_look_ahead():
    layer = nn.SelfAttention(8, 2, causal=True, key=KEY)
    x = jr.normal(jr.key(1), (6, 8))
    np.testing.assert_allclose(layer(x)[:3], layer(x.at[3:].set(9.0))[:3], atol=1e-6)
    assert not np.allclose(layer(x)[3:], layer(x.at[3:].set(9.0))[3:], atol=1e-3)


def test_a_stack_is_its_blocks_one_after_another():
    stack = nn.Stack(lambda key: nn.Selformer(8, 2, key=key), 3, key=KEY)
    x = y = jr.normal(jr.key(1), (5, 8))
    for i in range(3):
        y = jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, stack.blocks)(y)
    np.testing.assert_allclose(stack(x), y, rtol=1e-5, atol=1e-5)


def test_resampling_keeps_the_mean_and_sizes():
    x = jr.normal(KEY, (6, 8, 2))
    np.testing.assert_allclose(downsample(upsample(x)), x, rtol=1e-6)
    assert blur(x).shape == x.shape
    assert blur(x, stride=2).shape == (3, 4, 2)
    np.testing.assert_allclose(blur(jnp.ones((8, 8, 1)))[3:5, 3:5], 1, rtol=1e-6)
    # A checkerboard is what a low-pass filter must remove.
    board = jnp.indices((8, 8)).sum(0)[..., None] % 2 * 2.0 - 1
    assert float(jnp.max(jnp.abs(blur(board)[3:5, 3:5]))) < 1e-6


def test_a_convolution_is_the_sum_it_stands_for():
    layer, x = nn.Convolution(2, 3, key=KEY), jr.normal(jr.key(1), (4, 5, 2))
    padded, w = np.pad(np.asarray(x), ((1, 1), (1, 1), (0, 0))), np.asarray(layer.weight)
    wanted = sum(padded[i : i + 4, j : j + 5] @ w[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-4, atol=1e-5)


def test_a_key_stream_never_repeats_and_passes_through_jit():
    rng = RNG(jr.key(0))
    drawn = [tuple(np.asarray(jr.key_data(next(rng)))) for _ in range(100)]
    assert len(set(drawn)) == 100
    again = RNG(0)
    assert [tuple(np.asarray(jr.key_data(next(again)))) for _ in range(100)] == drawn

    @jax.jit
    def two(rng):
        return jr.key_data(next(rng)), jr.key_data(next(rng))

    np.testing.assert_array_equal(np.asarray(two(RNG(jr.key(0)))), np.asarray(drawn[:2]))
    for wrong in (None, 1.5, jnp.ones(3), True):
        with pytest.raises(TypeError, match="key"):
            RNG(wrong)


def test_a_foreign_kernels_package_is_explained(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("__version__ = '0.9.0'")
    code = "import sys; sys.path[:0] = sys.argv[1:]; import eqxgen.ops"
    line = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[2])]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "eqxgen needs its own package `kernels`, but Python finds another" in done.stderr
