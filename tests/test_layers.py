"""The layers, from one table; and what is particular to some."""

import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import RNG, nn
from eqxgen.nn.conv import average_pool, blur, upsample
from train.precision import cast

KEY = jr.key(0)
BF16 = jnp.dtype("bfloat16")
# layer, shape in, shape out
LAYERS = {
    "Projection": (nn.Projection(5, 3, key=KEY), (2, 4, 5), (2, 4, 3)),
    "Projection without bias": (nn.Projection(5, 3, bias=False, key=KEY), (5,), (3,)),
    "MLP": (nn.MLP(5, key=KEY), (7, 5), (7, 5)),
    "LayerNorm": (nn.LayerNorm(5), (7, 5), (7, 5)),
    "LayerNorm without affine": (nn.LayerNorm(5, affine=False), (5,), (5,)),
    "GroupNorm": (nn.GroupNorm(6, 3), (4, 5, 6), (4, 5, 6)),
    "Dropout": (nn.Dropout(0.3), (7, 5), (7, 5)),
    "Convolution": (nn.Convolution(4, 6, key=KEY), (5, 7, 4), (5, 7, 6)),
    "Convolution, strided and grouped": (nn.Convolution(4, 6, kernel=2, stride=2, padding=0, groups=2, key=KEY), (6, 8, 4), (3, 4, 6)),
    "ResidualBlock": (nn.ResidualBlock(4, 6, groups=2, key=KEY), (5, 7, 4), (5, 7, 6)),
    "SelfAttention": (nn.SelfAttention(8, 2, key=KEY), (5, 8), (5, 8)),
    "SelfAttention, causal, grouped": (nn.SelfAttention(8, 4, kv_heads=2, causal=True, key=KEY), (5, 8), (5, 8)),
    "TransformerBlock": (nn.TransformerBlock(8, 2, key=KEY), (5, 8), (5, 8)),
    "TransformerBlock, norms behind": (nn.TransformerBlock(8, 2, placement="post", key=KEY), (5, 8), (5, 8)),
    "Stack": (nn.Stack(lambda key: nn.TransformerBlock(8, 2, key=key), 3, key=KEY), (5, 8), (5, 8)),
    **{f"Activation {name}": (nn.Activation(name), (3, 4), (3, 4)) for name in nn.ACTIVATIONS},
}


@eqx.filter_jit
def call(layer, x):
    return (
        layer(x, inference=True) if isinstance(layer, (nn.MLP, nn.Dropout, nn.SelfAttention, nn.TransformerBlock, nn.Stack)) else layer(x)
    )


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_shape_and_dtype_maps_over_a_batch_and_has_finite_gradients(name):
    layer, shape, out = LAYERS[name]
    xs = jr.normal(jr.key(1), (2, *shape))
    y = call(layer, xs[0])
    assert (y.shape, y.dtype) == (out, jnp.float32)
    together = jax.vmap(lambda x: call(layer, x))(xs)
    np.testing.assert_allclose(together[0], y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(together[1], call(layer, xs[1]), rtol=1e-5, atol=1e-5)
    half = call(cast(layer, BF16), xs[0].astype(BF16))
    assert half.dtype == BF16
    np.testing.assert_allclose(half.astype(jnp.float32), y, atol=0.1)
    grads = eqx.filter_jit(eqx.filter_grad(lambda both: jnp.sum(call(*both).astype(jnp.float32) ** 2)))(
        (cast(layer, BF16), xs[0].astype(BF16))
    )
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: nn.Projection(0, 3, key=KEY), "in_dim must be an integer of at least 1: got 0"),
        (lambda: nn.Projection(5, 3, key=KEY)(jnp.ones((5, 4))), r"in_dim=5 entries: got shape \(5, 4\)"),
        (lambda: nn.Embedding(0, 3, key=KEY), "vocab must be an integer of at least 1: got 0"),
        (lambda: nn.Embedding(4, 3, key=KEY)(jnp.asarray([4])), r"ids must be in \[0, vocab=4\): got values from 4 to 4"),
        (lambda: nn.Embedding(4, 3, key=KEY)(jnp.asarray([-1, 2])), "ids must be in .*: got values from -1 to 2"),
        (lambda: nn.Dropout(1.0), r"rate must be in \[0, 1\): got 1.0"),
        (lambda: nn.Dropout(-0.5), r"rate must be in \[0, 1\): got -0.5"),
        (lambda: nn.Dropout(float("nan")), "rate"),
        (lambda: nn.Dropout(0.5)(jnp.ones(3)), "dropout needs key"),
        (lambda: nn.LayerNorm(4, epsilon=0.0), "epsilon must be positive and finite: got 0.0"),
        (lambda: nn.GroupNorm(10, 4), "groups must divide channels: got channels=10, groups=4"),
        (lambda: nn.Activation("gelo"), "name must be one of .*: got 'gelo'"),
        (lambda: nn.SelfAttention(10, 4, key=KEY), "heads must divide dim: got dim=10, heads=4"),
        (lambda: nn.SelfAttention(8, 4, kv_heads=3, key=KEY), "kv_heads must divide heads: got heads=4, kv_heads=3"),
        (lambda: nn.Stack(lambda key: nn.MLP(4, key=key), 0, key=KEY), "depth must be an integer of at least 1: got 0"),
        (lambda: nn.Convolution(3, 4, groups=2, key=KEY), "groups must divide in_channels: got in_channels=3, groups=2"),
        (lambda: nn.Convolution(3, 4, padding=-1, key=KEY), "padding must not be negative: got -1"),
        (lambda: nn.Convolution(3, 4, key=KEY)(jnp.ones((5, 5, 4))), r"in_channels=3 entries: got shape \(5, 5, 4\)"),
        (lambda: nn.Convolution(3, 4, kernel=5, padding=0, key=KEY)(jnp.ones((4, 9, 3))), "at least kernel=5"),
        (lambda: average_pool(jnp.ones((5, 4, 1))), "size must divide height: got height=5, size=2"),
    ],
)
def test_a_wrong_argument_is_an_error_with_the_law(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


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
    stack = nn.Stack(lambda key: nn.TransformerBlock(8, 2, key=key), 3, key=KEY)
    x = y = jr.normal(jr.key(1), (5, 8))
    for i in range(3):
        y = jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, stack.blocks)(y)
    np.testing.assert_allclose(stack(x), y, rtol=1e-5, atol=1e-5)


def test_resampling_keeps_the_mean_and_sizes():
    x = jr.normal(KEY, (6, 8, 2))
    np.testing.assert_allclose(average_pool(upsample(x)), x, rtol=1e-6)
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
    line = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[1])]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "eqxgen needs its own package `kernels`, but Python finds another" in done.stderr
