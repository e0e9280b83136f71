"""Convolutions, pools and resampling give the numbers of torch's, or of their definition."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.conv.convolution import _library, _with_products
from tests import oracles
from tests.arrays import drawn
from tests.oracles.conv import CONVOLUTIONS, POOLS, TRANSPOSES

KEPT = oracles.load("conv")
KEY = jr.key(0)


def channels_last(x: np.ndarray) -> jax.Array:
    return jnp.asarray(np.moveaxis(x, 1, -1))


def close(found, wanted):
    np.testing.assert_allclose(found, channels_last(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_torchs(name):
    rank, channels, _, options = CONVOLUTIONS[name]
    kept = KEPT[f"convolution {name}"]
    layer = (nn.Convolution1D, nn.Convolution)[rank - 1](*channels, **options, key=KEY)
    weight = np.moveaxis(kept["weight"], (0, 1), (-1, -2))
    assert layer.weight.shape == weight.shape
    layer = eqx.tree_at(
        lambda layer: (layer.weight, layer.bias), layer, (jnp.asarray(weight), jnp.asarray(kept["bias"]))
    )
    close(jax.vmap(layer)(channels_last(kept["x"])), kept["y"])


@pytest.mark.parametrize("name", TRANSPOSES)
def test_a_transposed_convolution_is_torchs(name):
    rank, channels, _, options = TRANSPOSES[name]
    kept = KEPT[f"transpose {name}"]
    layer = (nn.ConvolutionTranspose1D, nn.ConvolutionTranspose)[rank - 1](*channels, **options, key=KEY)
    # torch has (in_channels, out_group, *kernel): of its first axis each group's part goes with that group's outputs.
    grouped = kept["weight"].reshape(layer.groups, -1, *kept["weight"].shape[1:])
    weight = np.moveaxis(grouped, (1, 0, 2), (-3, -2, -1)).reshape(layer.weight.shape)
    layer = eqx.tree_at(
        lambda layer: (layer.weight, layer.bias), layer, (jnp.asarray(weight), jnp.asarray(kept["bias"]))
    )
    close(jax.vmap(layer)(channels_last(kept["x"])), kept["y"])


PRODUCTS = {  # shape of x, kernel, padding, dilation, groups
    "sequence": ((9, 3), 5, (2, 1), 1, 1),
    "image": ((5, 6, 3), 3, (1, 1), 1, 1),
    "dilated": ((6, 7, 3), 3, (2, 2), 2, 1),
    "one place": ((5, 6, 3), 1, (0, 0), 1, 1),
    "larger than x": ((4, 5, 3), 3, (3, 3), 1, 1),
    "one side": ((5, 6, 3), 2, (1, 0), 1, 1),
    "groups": ((5, 6, 6), 3, (1, 1), 1, 2),
    "groups of a sequence": ((9, 6), 5, (2, 1), 1, 2),
    "dilated groups": ((6, 7, 8), 3, (2, 1), 2, 4),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_wide_weights_derivatives_of_both_orders_are_those_of_xlas_convolution(name):
    shape, kernel, padding, dilation, groups = PRODUCTS[name]
    with jax.enable_x64(True):
        x = jnp.asarray(drawn((2, *shape)), jnp.float64)
        weight = jnp.asarray(drawn((*(kernel,) * (len(shape) - 1), shape[-1] // groups, 4), seed=1), jnp.float64)

        def derivatives(convolved):
            loss = lambda x, weight: jnp.sum(jnp.sin(jax.vmap(convolved, (0, None))(x, weight)))
            first = jax.value_and_grad(loss, (0, 1))
            plain = jax.jvp(lambda weight: loss(x, weight), (weight,), (weight,))
            return plain, jax.jvp(first, (x, weight), (x / 2, weight / 3))

        settings = {"padding": padding, "dilation": dilation, "groups": groups}
        whole = jax.jit(lambda: derivatives(functools.partial(_library, stride=1, **settings)))
        ours = jax.jit(lambda: derivatives(functools.partial(_with_products, *settings.values())))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), ours(), whole())


@pytest.mark.parametrize("groups", [1, 4])
def test_a_wide_convolution_takes_its_weights_gradient_by_products_on_a_cpu(groups):
    layer = nn.Convolution(16, 32, groups=groups, bias=False, key=KEY)
    text = jax.jit(jax.grad(lambda layer, x: layer(x).sum())).lower(layer, jnp.ones((4, 5, 16))).as_text()
    assert "stablehlo.convolution" not in text
    assert text.count("stablehlo.dot_general") == 3


@pytest.mark.parametrize("stride", [1, 2])
def test_a_transposed_convolution_is_the_transpose_of_one(stride):
    down = nn.Convolution(2, 3, kernel=4, stride=stride, bias=False, key=KEY)
    up = nn.ConvolutionTranspose(3, 2, kernel=4, stride=stride, bias=False, key=KEY)
    up = eqx.tree_at(lambda layer: layer.weight, up, jnp.swapaxes(down.weight, -1, -2))
    x = jr.normal(jr.key(1), (6, 8, 2))
    y, pull = jax.vjp(down, x)
    np.testing.assert_allclose(up(y), pull(y)[0], rtol=1e-5, atol=1e-5)


def pool_of(name: str):
    function, _, options = POOLS[name]
    kind = {
        "max_": nn.MaxPool,
        "avg_": nn.AvgPool,
        "adaptive_avg_": nn.AdaptiveAvgPool,
        "adaptive_max_": nn.AdaptiveMaxPool,
    }
    ours = {"kernel_size": "window", "output_size": "size"}
    return kind[function.split("pool")[0]](**{ours.get(k, k): v for k, v in options.items()})


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_is_torchs_and_so_is_its_gradient(name):
    kept = KEPT[f"pool {name}"]
    y, pull = jax.vjp(jax.vmap(pool_of(name)), channels_last(kept["x"]))
    close(y, kept["y"])
    if name.startswith("adaptive max"):
        # Of equal entries torch takes the first and we share; what an image gets in all is the same.
        np.testing.assert_allclose(jnp.sum(pull(channels_last(kept["dy"]))[0]), np.sum(kept["dx"]), rtol=1e-4)
    else:
        close(pull(channels_last(kept["dy"]))[0], kept["dx"])


def test_the_largest_of_a_window_with_nan_is_nan():
    x = jnp.asarray([1.0, jnp.nan, 3.0, 4.0, jnp.nan, 5.0])[:, None]
    np.testing.assert_array_equal(jnp.isnan(nn.MaxPool(2)(x))[:, 0], [True, False, True])


@pytest.mark.parametrize("name", [name for name in KEPT if name.startswith(("upsample", "pixel"))])
def test_resampling_is_torchs(name):
    kind, *rest = name.split()
    layer = {"upsample": lambda method, factor: nn.Upsample(int(factor), method), "pixel": lambda way: PIXELS[way](2)}[
        kind
    ](*rest)
    close(jax.vmap(layer)(channels_last(KEPT[name]["x"])), KEPT[name]["y"])


PIXELS = {"shuffle": nn.PixelShuffle, "unshuffle": nn.PixelUnshuffle}


def by_definition(x: np.ndarray, taps, up: int, down: int, padding: tuple[int, int], gain: float) -> np.ndarray:
    """upfirdn of one axis, from its words, in float64."""
    spread = np.zeros((up * len(x), *x.shape[1:]))
    spread[::up] = x
    before, after = padding
    spread = np.concatenate([np.zeros((max(before, 0), *x.shape[1:])), spread, np.zeros((max(after, 0), *x.shape[1:]))])
    spread = spread[max(-before, 0) : len(spread) - max(-after, 0)]
    filtered = np.stack([np.convolve(row, taps, "valid") for row in spread.reshape(len(spread), -1).T], 1)
    return gain * filtered.reshape(-1, *x.shape[1:])[::down]


@pytest.mark.parametrize(
    ("taps", "up", "down", "padding", "gain"),
    [
        ((1, 3, 3, 1), 1, 1, (1, 2), 1.0),
        ((1, 2, -3, 4), 2, 1, (2, 1), 4.0),
        ((1, 2, -3, 4), 1, 2, (1, 1), 1.0),
        ((1, 2, 3), 3, 2, (-1, 3), 0.5),
        ((2.0,), 2, 3, (0, -2), 1.0),
        ((1, -1, 2, 5, 3), 2, 2, (4, 0), 2.0),
    ],
)
def test_upfirdn_is_its_definition(taps, up, down, padding, gain):
    x = np.asarray(jr.normal(KEY, (6, 5, 2)), np.float64)
    wanted = by_definition(x, taps, up, down, padding, gain)
    wanted = by_definition(wanted.swapaxes(0, 1), taps, up, down, padding, 1.0).swapaxes(0, 1)
    found = nn.upfirdn(jnp.asarray(x, jnp.float32), taps, up=up, down=down, padding=padding, gain=gain)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_upsampling_by_a_filter_keeps_the_brightness():
    y = nn.upfirdn(jnp.ones((6, 6, 1)), [tap / 8 for tap in (1, 3, 3, 1)], up=2, padding=(2, 1), gain=4.0)
    assert y.shape == (12, 12, 1)
    np.testing.assert_allclose(y[2:-2, 2:-2], 1.0, rtol=1e-6)


def test_unshuffling_undoes_shuffling():
    x = jr.normal(KEY, (3, 4, 18))
    np.testing.assert_array_equal(nn.PixelUnshuffle(3)(nn.PixelShuffle(3)(x)), x)


def test_the_seeds_constructors_exist_under_their_names_and_run():
    """`MaxPool`, `LayerNorm` and `GroupNorm` of scratchpad's README are missing in its code, and its `FocalModulation`
    crashes.
    """

    @jax.jit
    def outputs(x):
        return (
            nn.Convolution(128, 256, kernel=3, padding=1, stride=1, groups=1, key=KEY)(x),
            nn.FocalModulation(128, window=3, level=3, factor=2, bias=True, dropout=0.1, key=KEY)(x, key=KEY),
            nn.MaxPool(window=2, key=KEY)(x),
            nn.LayerNorm(128, key=KEY)(x),
            nn.GroupNorm(128, 4, key=KEY)(x),
        )

    found = outputs(drawn((4, 4, 128)))
    assert [y.shape for y in found] == [(4, 4, 256), (4, 4, 128), (2, 2, 128), (4, 4, 128), (4, 4, 128)]
    assert all(np.isfinite(y).all() for y in found)
