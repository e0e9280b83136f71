"""Every kind of quantiser against vector-quantize-pytorch, or its closed form; and what all of them keep to."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.quantize import Averages, entropy_of, kmeans, restart_rare_codes, rotate
from tests import oracles

KEY = jr.key(0)
CASES = oracles.load("quant")


def with_codebook(codebook, **options):
    quantizer = nn.VectorQuantizer(*codebook.shape, key=KEY, **options)
    return eqx.tree_at(lambda quantizer: quantizer.codebook, quantizer, jnp.asarray(codebook))


KINDS = {
    "straight through": lambda case: with_codebook(case["codebook"]),
    "rotation": lambda case: with_codebook(case["codebook"], estimator=rotate),
    "cosine": lambda case: nn.CosineQuantizer(with_codebook(case["codebook"])),
    "FSQ": lambda case: nn.FSQ([5, 4, 3, 8]),
    "FSQ, symmetric levels": lambda case: nn.FSQ([3, 5, 7, 9]),
    "residual": lambda case: nn.ResidualVQ([with_codebook(codebook) for codebook in case["codebook"]]),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_quantiser_gives_the_published_vectors_ids_loss_and_gradient(name):
    case = CASES[name]
    quantizer, x = KINDS[name](case), jnp.asarray(case["x"][0])

    def weighted(x):
        quantized = quantizer(x)
        return jnp.sum(quantized.vectors * case["weight"][0]), quantized

    gradient, quantized = jax.grad(weighted, has_aux=True)(x)
    np.testing.assert_allclose(quantized.vectors, case["y"][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(quantized.ids, case["ids"][0])
    # Theirs adds a copy of the gradient for each quantiser of a residual one; ours passes the sum's once.
    copies = 3 if name == "residual" else 1
    np.testing.assert_allclose(copies * gradient, case["gradient"][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(quantizer.nearest(x), quantized.ids)
    np.testing.assert_allclose(quantizer.lookup(quantized.ids), quantized.vectors, rtol=1e-5, atol=1e-6)
    if "loss" in case:
        # Theirs is the encoder's part alone; ours has the codebook's beside it, of weight 1 where that is 0.25.
        np.testing.assert_allclose(
            jnp.mean(quantized.distance, axis=0) * 0.25 / 1.25, np.ravel(case["loss"]), rtol=1e-5
        )


def test_lookup_free_quantisation_is_the_published_one():
    case = CASES["LFQ"]
    quantizer, x = nn.LFQ(4, temperature=1.0, commitment=1.0), jnp.asarray(case["x"][0])

    def penalty(x):
        quantized = quantizer(x)
        return jnp.mean(quantized.entropy) - entropy_of(quantized.assignment), quantized

    gradient, quantized = jax.grad(penalty, has_aux=True)(x)
    np.testing.assert_array_equal(quantized.ids, case["ids"][0])
    np.testing.assert_allclose(quantized.vectors, case["y"][0], rtol=1e-5, atol=1e-6)
    # Theirs takes no logarithm below 1e-5, ours of each vector none at all.
    np.testing.assert_allclose(jnp.mean(quantized.entropy), case["per_sample_entropy"], rtol=1e-4)
    np.testing.assert_allclose(entropy_of(quantized.assignment), case["batch_entropy"], rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(quantized.distance), case["commitment"], rtol=1e-5)
    np.testing.assert_allclose(gradient, case["gradient"][0], atol=2e-4)


def test_a_moving_codebook_is_the_published_one_after_each_call():
    case = CASES["EMA"]
    quantizer, state = nn.EMAQuantizer(8, 4, decay=0.8, key=KEY), Averages.of(jnp.asarray(case["codebook"]))
    for call in (1, 2):
        quantized, after = quantizer(call * jnp.asarray(case["x"][0]), state)
        same, before = quantizer(call * jnp.asarray(case["x"][0]), state, inference=True)
        assert eqx.tree_equal((same, before), (quantized, state))
        state = after
        np.testing.assert_allclose(quantized.vectors, case[f"y_{call}"][0], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(quantized.ids, case[f"ids_{call}"][0])
        np.testing.assert_allclose(jnp.mean(quantized.distance), case[f"loss_{call}"], rtol=1e-5)
        np.testing.assert_allclose(state.counts, case[f"counts_{call}"], rtol=1e-5)
        np.testing.assert_allclose(state.sums, case[f"sums_{call}"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.codebook(1e-5), case[f"codebook_{call}"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(quantizer.lookup(jnp.arange(8), state), state.codebook(1e-5))
        np.testing.assert_array_equal(quantizer.nearest(quantized.vectors, before), quantized.ids)


def test_a_moving_codebook_sees_the_whole_batch_and_no_gradient():
    quantizer, z = nn.EMAQuantizer(5, 3, axis_name="batch", key=KEY), jr.normal(jr.key(1), (4, 6, 3))
    state = quantizer.init_state()
    mapped = jax.vmap(quantizer, in_axes=(0, None), out_axes=(0, None), axis_name="batch")

    @eqx.filter_jit
    def found(quantizer):
        grads = eqx.filter_grad(lambda quantizer: jnp.sum(mapped(z, quantizer.init_state())[0].distance))
        return mapped(z, state)[1], mapped(z.reshape(1, 24, 3), state)[1], grads(quantizer).start

    split, whole, slope = found(quantizer)
    np.testing.assert_allclose(split.sums, whole.sums, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(split.counts, whole.counts, rtol=1e-6)
    assert not np.asarray(slope).any()


def test_codes_that_are_rarely_chosen_restart_on_the_data_and_the_others_stay():
    z = jr.normal(jr.key(1), (20, 3))
    state = Averages(jnp.asarray([5.0, 0.1, 3.0, 0.0]), jnp.ones((4, 3)))
    after = restart_rare_codes(state, z, key=KEY)
    np.testing.assert_array_equal(after.counts, [5, 2, 3, 2])
    np.testing.assert_array_equal(after.sums[::2], state.sums[::2])
    rows = {tuple(row) for row in np.asarray(z).tolist()}
    assert all(tuple(row) in rows for row in (after.sums[1::2] / 2).tolist())
    start = Averages.of(kmeans(z, 4, key=KEY))
    np.testing.assert_allclose(start.codebook(1e-5), kmeans(z, 4, key=KEY), rtol=1e-4)


def test_rotation_gives_the_codes_exactly_and_keeps_angles():
    z, codes = jr.normal(KEY, (6, 5)), jr.normal(jr.key(1), (6, 5))
    np.testing.assert_allclose(rotate(z, codes), codes, rtol=1e-6)
    turn = (
        jax.vmap(jax.jacobian(rotate))(z, codes)
        * (jnp.linalg.norm(z, axis=1) / jnp.linalg.norm(codes, axis=1))[:, None, None]
    )
    np.testing.assert_allclose(turn @ turn.mT, jnp.broadcast_to(jnp.eye(5), (6, 5, 5)), atol=1e-5)
    assert jnp.isfinite(jax.grad(lambda z: jnp.sum(rotate(z, codes)))(jnp.zeros((6, 5)))).all()


@pytest.mark.parametrize("levels", [(2,), (3, 2), (8, 5, 5, 5), (4, 7)])
def test_every_grid_code_is_its_own_and_zero_lies_inside_a_level(levels):
    quantizer = nn.FSQ(levels)
    nearest, ids = jax.jit(quantizer.nearest), np.arange(quantizer.codes)
    codes = np.asarray(jax.jit(quantizer.lookup)(ids))
    assert len(np.unique(codes, axis=0)) == quantizer.codes
    np.testing.assert_allclose(np.abs(codes).max(), 1)
    # A latent on a code, as the inverse of the bound finds it.
    half, even = np.asarray(levels) // 2, np.asarray(levels) % 2 == 0
    reach = (np.asarray(levels) - 1) * 1.001 / 2
    z = np.arctanh((codes * half + 0.5 * even) / reach) - np.arctanh(0.5 * even / reach)
    np.testing.assert_array_equal(nearest(z.astype(np.float32)), ids)
    near = nearest(np.float32([[0.0] * len(levels), [0.01] * len(levels), [-0.01] * len(levels)]))
    assert len(set(near.tolist())) == 1
    assert np.asarray(eqx.filter_jit(quantizer)(np.zeros((4, len(levels)), np.float32)).assignment).sum() == 1
    assert np.isnan(jax.jit(quantizer.lookup)(np.asarray([quantizer.codes, -1]))).all()


def test_every_sign_code_is_its_own():
    quantizer = nn.LFQ(5)
    np.testing.assert_array_equal(quantizer.nearest(quantizer.lookup(jnp.arange(32))), jnp.arange(32))
    np.testing.assert_array_equal(quantizer.lookup(jnp.asarray([1, 16])), [[-1, -1, -1, -1, 1], [1, -1, -1, -1, -1]])
    assert jnp.isnan(jax.jit(quantizer.lookup)(jnp.asarray([32, -1]))).all()


def test_gumbel_codes_are_drawn_as_often_as_their_logits_say_with_the_gradient_of_the_mixture():
    quantizer, z = nn.GumbelQuantizer(5, 3, key=KEY), jr.normal(jr.key(1), (3,))
    probabilities = jax.nn.softmax(quantizer.logits(z))
    ids = jax.vmap(lambda key: quantizer(z, key=key).ids)(jr.split(KEY, 4000))
    np.testing.assert_allclose(np.bincount(ids, minlength=5) / 4000, probabilities, atol=0.03)

    quantized = quantizer(z, key=KEY)
    np.testing.assert_allclose(quantized.vectors, quantizer.codebook[quantized.ids], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(quantized.distance, jnp.sum(probabilities * jnp.log(probabilities * 5)), rtol=1e-4)
    np.testing.assert_allclose(quantized.assignment, probabilities, rtol=1e-5)

    def mixture(z):
        return jax.nn.softmax((quantizer.logits(z) + jr.gumbel(KEY, (5,))) / 0.5) @ quantizer.codebook

    backward = lambda function: jax.grad(lambda z: jnp.sum(function(z) * jnp.arange(3.0)))(z)
    np.testing.assert_allclose(
        backward(lambda z: quantizer(z, temperature=0.5, key=KEY).vectors), backward(mixture), rtol=1e-4, atol=1e-5
    )
    quiet = quantizer(z, inference=True)
    assert int(quiet.ids) == int(jnp.argmax(probabilities)) == int(quantizer.nearest(z))
    np.testing.assert_allclose(quantizer.lookup(quiet.ids), quiet.vectors, rtol=1e-5, atol=1e-6)


def test_factorised_codes_are_projected_down_chosen_and_projected_up():
    inner = nn.CosineQuantizer(nn.VectorQuantizer(7, 2, key=KEY))
    quantizer, z = nn.FactorisedQuantizer(inner, 6, key=jr.key(1)), jr.normal(jr.key(2), (4, 6))
    low = z @ quantizer.down.weight.T
    unit = low / jnp.linalg.norm(low, axis=-1, keepdims=True)
    book = np.asarray(inner.quantizer.codebook)
    book = book / np.linalg.norm(book, axis=1, keepdims=True)
    np.testing.assert_array_equal(quantizer(z).ids, np.argmax(unit @ book.T, axis=-1))
    np.testing.assert_allclose(
        quantizer(z).vectors, book[quantizer(z).ids] @ quantizer.up.weight.T, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(quantizer.lookup(quantizer.nearest(z)), quantizer(z).vectors, rtol=1e-4, atol=1e-5)


def test_residual_dropout_uses_the_first_quantisers_alone():
    parts = [nn.VectorQuantizer(7, 3, key=key) for key in jr.split(KEY, 4)]
    quantizer, z = nn.ResidualVQ(parts, dropout=True), jr.normal(jr.key(1), (5, 3))
    draw, seen = eqx.filter_jit(quantizer), set()
    for key in jr.split(jr.key(2), 12):
        quantized = draw(z, key=key)
        used = int(np.sum(np.asarray(quantized.distance[0]) > 0))
        seen.add(used)
        np.testing.assert_allclose(quantized.vectors, quantizer.lookup(quantized.ids[:, :used]), rtol=1e-5, atol=1e-6)
    assert seen == {1, 2, 3, 4}
    # Each quantiser brings the sum no further away.
    ids = np.asarray(quantizer.nearest(z))
    errors = [float(np.sum((np.asarray(quantizer.lookup(ids[:, :n])) - np.asarray(z)) ** 2)) for n in (1, 2, 3, 4)]
    assert errors[0] > errors[-1]
