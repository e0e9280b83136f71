"""Vector quantisation: round trips, losses, dead codes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.nn import VectorQuantizer
from eqxgen.nn.quantize import count_codes, data_start, entropy_of, perplexity, restart_dead_codes, usage


def quantizer(codes=7, dim=3, **options):
    return VectorQuantizer(codes, dim, key=jr.key(0), **options)


def test_a_code_is_its_own_nearest_neighbour():
    vq = quantizer()
    np.testing.assert_array_equal(vq.nearest(vq.lookup(jnp.arange(7))), jnp.arange(7))


def test_ids_are_those_of_the_smallest_distance():
    vq, z = quantizer(), jr.normal(jr.key(1), (4, 5, 3))
    distances = np.sum((np.asarray(z)[..., None, :] - np.asarray(vq.codebook)) ** 2, axis=-1)
    np.testing.assert_array_equal(vq(z).ids, distances.argmin(axis=-1))
    np.testing.assert_allclose(vq(z).vectors, vq.lookup(vq(z).ids), atol=1e-6)


def test_the_gradient_passes_straight_through():
    vq, z = quantizer(), jr.normal(jr.key(2), (5, 3))
    weight = jr.normal(jr.key(3), (5, 3))
    np.testing.assert_allclose(jax.grad(lambda z: jnp.sum(vq(z).vectors * weight))(z), weight, rtol=1e-6)


def test_the_codebook_learns_with_weight_one_and_the_encoder_with_the_commitment():
    vq, z = quantizer(commitment=0.25), jr.normal(jr.key(4), (1, 3))
    gap = np.asarray(z - vq.lookup(vq(z).ids))
    to_z = jax.grad(lambda z: jnp.sum(vq(z).distance))(z)
    np.testing.assert_allclose(to_z, 0.25 * 2 * gap / 3, rtol=1e-5)
    to_codebook = jax.grad(lambda vq: jnp.sum(vq(z).distance))(vq).codebook
    np.testing.assert_allclose(to_codebook[int(vq(z).ids[0])], -2 * gap[0] / 3, rtol=1e-5)
    assert np.count_nonzero(np.abs(to_codebook).sum(axis=1)) == 1


def test_soft_assignments_are_the_softmax_of_negative_distances():
    vq, z = quantizer(temperature=0.5), jr.normal(jr.key(5), (6, 3))
    distances = np.sum((np.asarray(z)[:, None] - np.asarray(vq.codebook)) ** 2, axis=-1, dtype=np.float64)
    soft = np.exp(-distances / 0.5) / np.exp(-distances / 0.5).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(vq(z).assignment, soft.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(vq(z).entropy, -(soft * np.log(soft)).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(entropy_of(vq(z).assignment), -(soft.mean(0) * np.log(soft.mean(0))).sum(), rtol=1e-4)


def test_usage_and_perplexity_of_known_counts():
    counts = jnp.asarray([4.0, 4.0, 0.0, 0.0])
    assert usage(counts) == 0.5
    np.testing.assert_allclose(perplexity(counts), 2, rtol=1e-5)
    np.testing.assert_allclose(perplexity(jnp.ones(10)), 10, rtol=1e-5)
    np.testing.assert_array_equal(count_codes(jnp.asarray([[0, 1], [1, 1]]), 3), [1, 3, 0])


def clusters(key, count=5, each=20):
    centres = 10 * jr.normal(key, (count, 3))
    return centres, (centres[:, None] + 0.01 * jr.normal(key, (count, each, 3))).reshape(-1, 3)


def test_the_data_start_puts_codes_onto_the_data():
    _, z = clusters(jr.key(6))
    vq = data_start(quantizer(codes=64), z, key=jr.key(7))
    before = jnp.mean(quantizer(codes=64)(z).distance)
    assert jnp.mean(vq(z).distance) < 1e-4 * before


def test_dead_codes_restart_on_the_data_and_living_ones_stay():
    centres, z = clusters(jr.key(8))
    codebook = jnp.concatenate([centres[:2], jnp.full((5, 3), 1e3)])
    vq = restart_dead_codes(_with(codebook), z, key=jr.key(9))
    alive = np.asarray(count_codes(_with(codebook).nearest(z), 7)) > 0
    np.testing.assert_array_equal(np.asarray(vq.codebook)[alive], np.asarray(codebook)[alive])
    rows = {tuple(row) for row in np.asarray(z).tolist()}
    assert all(tuple(row) in rows for row in np.asarray(vq.codebook)[~alive].tolist())
    assert usage(count_codes(vq.nearest(z), 7)) > usage(count_codes(_with(codebook).nearest(z), 7))


def _with(codebook):
    return eqx.tree_at(lambda q: q.codebook, quantizer(), codebook)


def test_no_code_moves_where_all_are_used():
    vq = quantizer()
    np.testing.assert_array_equal(restart_dead_codes(vq, vq.codebook, key=jr.key(0)).codebook, vq.codebook)


def test_an_id_out_of_range_is_an_error_and_nan_where_it_cannot_be_seen():
    vq = quantizer()
    for ids in ([7], [-1]):
        with pytest.raises(ValueError, match=r"ids must be in \[0, codes=7\)"):
            vq.lookup(jnp.asarray(ids))
        assert jnp.isnan(eqx.filter_jit(vq.lookup)(jnp.asarray(ids))).all()
