"""The multi-scale quantiser: published arithmetic, its inputs of the next scale, its codebook's start."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.quantize import count_codes, data_start, restart_dead_codes, usage, with_codebooks
from tests import oracles
from tests.arrays import drawn
from tests.full import rows
from tests.oracles.var import SIZES

CASES = oracles.load("var")


def small(scales=(1, 2, 4), codes=7, dim=3):
    first, second = jr.split(jr.key(0))
    return nn.MultiScaleVQ(nn.VectorQuantizer(codes, dim, key=first), scales, key=second)


def of_published(case, scales, phis):
    """The quantiser with the arrays of a published checkpoint."""
    found = small(scales, *case["embedding.weight"].shape)
    name = "quant_resi.qresi_ls.{}.{}".format
    phi = nn.MultiScaleVQ(found.quantizer, scales, phis=phis, key=jr.key(0)).phi
    for i in range(phis):
        kernel = case[name(i, "weight")].transpose(2, 3, 1, 0)
        values = [jnp.asarray(kernel), jnp.asarray(case[name(i, "bias")])]
        phi = eqx.tree_at(lambda phi, i=i: (phi[i].weight, phi[i].bias), phi, values)
    where = lambda q: (q.quantizer.codebook, q.phi)
    return eqx.tree_at(where, found, (jnp.asarray(case["embedding.weight"]), phi))


@pytest.mark.parametrize("name", rows(SIZES, "every side"))
def test_ids_sums_losses_gradients_and_inputs_are_those_of_the_published_arithmetic(name):
    case, (scales, _, phis) = CASES[name], SIZES[name]
    quantizer = of_published(case, scales, phis)
    maps = jnp.asarray(case["f"].transpose(0, 2, 3, 1), jnp.float32)

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def run(both):
        quantizer, maps = both
        found = jax.vmap(quantizer)(maps)
        ids = jax.vmap(quantizer.nearest)(maps)
        inputs = jax.vmap(quantizer.inputs)(found.ids)
        inputs = [each.reshape(len(maps), -1, each.shape[-1]) for each in inputs]
        return jnp.mean(found.distance), (found, ids, jax.vmap(quantizer.lookup)(ids), inputs)

    (loss, (found, ids, total, inputs)), (slopes, slope) = run((quantizer, maps))
    right = case["total"].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found.ids, case["ids"])
    np.testing.assert_array_equal(ids, case["ids"])
    np.testing.assert_allclose(found.vectors, right, atol=2e-6)
    np.testing.assert_allclose(total, right, atol=2e-6)
    np.testing.assert_allclose(loss, case["loss"], rtol=1e-6)
    np.testing.assert_allclose(slope, case["slope of f"].transpose(0, 2, 3, 1), atol=1e-7)
    np.testing.assert_allclose(slopes.quantizer.codebook, case["slope of embedding.weight"], atol=1e-6)
    for i, phi in enumerate(slopes.phi):
        kernel = case[f"slope of quant_resi.qresi_ls.{i}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_allclose(phi.weight, kernel, atol=1e-6)
        np.testing.assert_allclose(phi.bias, case[f"slope of quant_resi.qresi_ls.{i}.bias"], atol=1e-6)
    flat = np.concatenate([np.zeros((len(maps), 0, maps.shape[-1])), *inputs], axis=1)
    np.testing.assert_allclose(flat, case["inputs"], atol=2e-6)


def test_gradients_pass_straight_to_the_vectors_and_entropies_are_of_every_id():
    quantizer, z, weight = small(), drawn((4, 4, 3)), drawn((4, 4, 3), 1)
    slope, found = jax.jit(jax.grad(lambda z: (jnp.sum(quantizer(z).vectors * weight), quantizer(z)), has_aux=True))(z)
    np.testing.assert_allclose(slope, weight, rtol=1e-6)
    assert found.ids.shape == found.entropy.shape == (quantizer.tokens,) == (21,)
    np.testing.assert_allclose(jnp.sum(found.assignment), 1, rtol=1e-5)
    one = quantizer.quantizer(quantizer.reduced(z, 0))
    np.testing.assert_allclose(found.entropy[0], one.entropy[0, 0], rtol=1e-2)


def test_codes_start_on_the_vectors_of_all_scales_and_dead_ones_restart_on_them():
    quantizer, maps = small(codes=16), 5 + drawn((32, 4, 4, 3))
    used = eqx.filter_jit(lambda q: usage(count_codes(jax.vmap(q.nearest)(maps), 16)))
    flat = maps.reshape(-1, 3)
    started = with_codebooks(data_start, quantizer, flat, placed=False, key=jr.key(1))
    restarted = with_codebooks(restart_dead_codes, quantizer, flat, key=jr.key(1))
    assert float(used(started)) > 0.8
    assert float(used(restarted)) > float(used(quantizer))
    assert not np.array_equal(started.quantizer.codebook, quantizer.quantizer.codebook)
    alive = count_codes(jax.vmap(quantizer.nearest)(maps), 16) > 0
    np.testing.assert_array_equal(restarted.quantizer.codebook[alive], quantizer.quantizer.codebook[alive])


def test_a_map_that_cannot_be_is_an_error(unchecked):
    first, second = jr.split(jr.key(0))
    of = lambda *scales, **options: nn.MultiScaleVQ(nn.VectorQuantizer(7, 3, key=first), scales, **options, key=second)
    cases = {
        r"scales must be integers of at least 1 that increase: got \(1, 1\)": lambda: of(1, 1),
        r"scales must be integers of at least 1 that increase: got \(\)": lambda: of(),
        r"scales must be .* increase: got \(0, 2\)": lambda: of(0, 2),
        r"mix must be in \[0, 1\]: got 1.5": lambda: of(1, 2, mix=1.5),
        "phis must be an integer of at least 1: got 0": lambda: of(1, 2, phis=0),
        r"z must have shape \(side, side, dim\) = \(4, 4, 3\), .* scales=\(1, 2, 4\) is: got \(4, 5, 3\)": lambda: (
            small()(jnp.ones((4, 5, 3)))
        ),
        r"ids must be \(tokens=21,\): got shape \(20,\)": lambda: small().lookup(jnp.zeros(20, int)),
        r"ids must be \(tokens=21,\): got shape \(22,\)": lambda: small().inputs(jnp.zeros(22, int)),
        "z must be of a floating-point type: got int32": lambda: small()(jnp.ones((4, 4, 3), int)),
        r"ids must be in \[0, codes=7\)": lambda: small().lookup(jnp.full(21, 7)),
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            wrong()
