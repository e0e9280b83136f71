"""Inputs of the layers as users write them: batches without `jax.vmap`, plain numbers and lists, far vectors."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.quantize import kmeans
from eqxgen.nn.quantize.quantized import find_nearest
from tests.nn.layer_rows import call, table

KEY = jr.key(0)
LAYERS = table()
ANY_RANK = ("MaxPool", "AvgPool", "AdaptiveMaxPool", "BlurPool")  # a batch of images is one example of three axes


@pytest.mark.parametrize("name", [name for name in LAYERS if not name.startswith(ANY_RANK)])
def test_a_batch_without_vmap_is_taken_whole_or_an_error_with_the_hint(name, unchecked):
    row = LAYERS[name]
    batch = tuple(jnp.asarray(np.stack(parts)) for parts in zip(*(row.inputs(seed) for seed in (1, 2))))
    try:
        y = jax.eval_shape(lambda key: call(row.make(key), row, batch), KEY)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        assert re.search(r"must (be|have) .*got .*\(2, .*; jax\.vmap the layer over a batch$", message), message
    else:
        assert y.shape == (2, *row.out)


IDS = {
    "Embedding": lambda: nn.Embedding(7, 3, key=KEY),
    "VectorQuantizer": lambda: nn.VectorQuantizer(7, 3, key=KEY).lookup,
    "CosineQuantizer": lambda: nn.CosineQuantizer(nn.VectorQuantizer(7, 3, key=KEY)).lookup,
    "FactorisedQuantizer": lambda: nn.FactorisedQuantizer(nn.FSQ((4, 2)), 3, key=KEY).lookup,
    "GumbelQuantizer": lambda: nn.GumbelQuantizer(7, 3, key=KEY).lookup,
    "FSQ": lambda: nn.FSQ((4, 2)).lookup,
    "LFQ": lambda: nn.LFQ(3).lookup,
}


@pytest.mark.parametrize("name", IDS)
def test_ids_are_integers_or_lists_of_them_and_never_floats(name, unchecked):
    lookup = IDS[name]()
    rows = lookup(jnp.asarray([3, 0, 6]))
    for ids, wanted in ((3, rows[0]), ([3, 0, 6], rows), ((3, 0), rows[:2]), ([[3], [0]], rows[:2, None])):
        np.testing.assert_array_equal(lookup(ids), wanted)
    np.testing.assert_array_equal(lookup(np.int64(3)), rows[0])
    assert lookup([]).shape == (0, rows.shape[1])
    for ids, kind in ((1.5, "float64"), ([1.0, 2.0], "float64"), (jnp.ones(2), "float32"), (True, "bool")):
        with pytest.raises(ValueError, match=f"ids must be integers: got {kind}"):
            lookup(ids)
    with pytest.raises(ValueError, match="ids must be integers: got float32"):
        eqx.filter_jit(lambda ids: lookup(ids))(jnp.ones(2))
    with pytest.raises(ValueError, match=r"ids must be in \[0, .*\): got values from -1 to 9"):
        lookup([-1, 9])


def test_residual_codes_are_looked_up_by_lists(unchecked):
    quantizer = nn.ResidualVQ([nn.VectorQuantizer(7, 3, key=key) for key in jr.split(KEY, 2)])
    np.testing.assert_array_equal(quantizer.lookup([3, 0]), quantizer.lookup(jnp.asarray([3, 0])))
    with pytest.raises(ValueError, match="ids must be integers: got float64"):
        quantizer.lookup([0.5, 1.0])


def test_numbers_and_positions_may_be_plain(unchecked):
    x = jr.normal(KEY, (3, 2, 4))
    for layer in (nn.RoPE(4), nn.AxialRoPE(4, [2, 3])):
        np.testing.assert_allclose(layer(x, [0, 1, 2]), layer(x), rtol=1e-6)
    bias = nn.T5Bias(2, key=KEY)
    np.testing.assert_array_equal(bias([0, 1, 2]), bias(jnp.arange(3)))
    np.testing.assert_array_equal(nn.sincos_table([2, 3], 8), nn.sincos_table((2, 3), 8))
    for layer in (
        nn.SinusoidalEmbedding(6),
        nn.TimestepEmbedding(6, features=8, key=KEY),
        nn.RandomFourier(6, key=KEY),
    ):
        np.testing.assert_allclose(layer(0.5), layer(jnp.asarray(0.5)), rtol=1e-6)
    np.testing.assert_allclose(nn.SinusoidalEmbedding(6)(3), nn.SinusoidalEmbedding(6)(jnp.asarray(3)))
    assert nn.Projection(np.int64(3), np.int32(2), key=KEY)(jnp.ones(3)).shape == (2,)
    with pytest.raises(ValueError, match="x must be of a floating-point type: got int32; convert it first"):
        nn.Projection(3, 2, key=KEY)(jnp.ones(3, int))  # in whose type the weight would be zero


def nearest_of(name: str, codes: jax.Array, z: jax.Array) -> jax.Array:
    count, dim = codes.shape
    plain = eqx.tree_at(lambda q: q.codebook, nn.VectorQuantizer(count, dim, key=KEY), codes)
    ema = nn.EMAQuantizer(count, dim, key=KEY)
    sums = ema.init_state()._replace(sums=codes)
    return {
        "nearest": lambda: plain.nearest(z),
        "call": lambda: plain(z).ids,
        "moving averages": lambda: ema.nearest(z, sums),
        "moving averages, call": lambda: ema(z, sums)[0].ids,
        "residual": lambda: nn.ResidualVQ([plain]).nearest(z)[:, 0],
        "cosine": lambda: nn.CosineQuantizer(plain).nearest(z),
        "k-means": lambda: find_nearest(z, codes),
    }[name]()


@pytest.mark.parametrize("offset", [0, 10, 100, 1000])
@pytest.mark.parametrize(
    "name", ["nearest", "call", "moving averages", "moving averages, call", "residual", "cosine", "k-means"]
)
def test_the_nearest_code_far_from_zero_is_that_of_float64(name, offset):
    codes, z = jr.normal(jr.key(1), (64, 8)) * 0.1 + offset, jr.normal(jr.key(2), (512, 8)) * 0.1 + offset
    found = np.asarray(nearest_of(name, codes, z))
    wide = np.asarray(z, np.float64)[:, None], np.asarray(codes, np.float64)[None]
    if name == "cosine":
        wide = tuple(x / np.linalg.norm(x, axis=-1, keepdims=True) for x in wide)
    distance = np.square(wide[0] - wide[1]).sum(-1)
    if name in ("cosine", "moving averages", "moving averages, call"):
        # Codes and vectors are themselves rounded to float32 on the way: the chosen code may be as near.
        scale = 4 * np.finfo(np.float32).eps * np.abs(wide[1]).max()
        spread = np.sqrt(distance.min(-1))
        assert (np.sqrt(np.take_along_axis(distance, found[:, None], -1)[:, 0]) <= spread + 8 * scale).all()
    else:
        np.testing.assert_array_equal(found, distance.argmin(-1))


def test_k_means_far_from_zero_finds_the_clusters_of_the_same_vectors_near_zero():
    far = 1000 + jr.normal(KEY, (60, 2))
    np.testing.assert_allclose(kmeans(far, 5, key=KEY), kmeans(far - 1000, 5, key=KEY) + 1000, atol=1e-3)
