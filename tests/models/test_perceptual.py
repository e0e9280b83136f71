"""LPIPS and the Inception of the Fréchet inception distance are the published ones."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.models.inception import Inception
from eqxgen.models.lpips import LPIPS, NETS
from eqxgen.pretrained import inception, lpips_net, table
from eqxgen.pretrained.formats.stored import held
from tests import oracles
from tests.full import full, rows
from tests.oracles.perceptual import weights

CASES = oracles.load("perceptual")
IMAGES = jnp.asarray(CASES["images"]["images"])


def arrays_of(name):
    return weights(json.loads(str(CASES[name]["shapes"])))


def read(mapping, arrays, make):
    stored = {name: held(np.asarray(array)) for name, array in arrays.items()}
    return table.read(mapping, stored, eqx.filter_eval_shape(make, jr.key(0)))


@pytest.mark.parametrize("net", rows(NETS, "vgg"))
def test_a_perceptual_distance_is_the_packages_on_every_net(net):
    case, arrays = CASES[net], arrays_of(net)
    heads = {name: array for name, array in case.items() if name.startswith("head")}
    for n in range(len(heads)):
        arrays[f"lin{n}.model.1.weight"] = arrays[f"lins.{n}.model.1.weight"] = heads[f"head{n}"].reshape(1, -1, 1, 1)
    arrays["scaling_layer.shift"] = np.zeros((1, 3, 1, 1), np.float32)
    model, coverage = read(lpips_net.table(net), arrays, lambda key: LPIPS(net, key=key))
    assert "1 (scaling_layer.shift) ignored: constants of the preprocessing" in coverage.line
    found = jax.jit(model.__call__)(*IMAGES)
    np.testing.assert_allclose(found, case["distance"][0], rtol=1e-4)
    written = table.written(lpips_net.table(net), model)
    assert written.keys() == arrays.keys() - {"scaling_layer.shift"}
    assert all(np.array_equal(written[name].read(...), arrays[name]) for name in written)


@full
def test_the_inception_has_the_packages_features_and_logits():
    arrays = arrays_of("inception")
    arrays["Conv2d_1a_3x3.bn.num_batches_tracked"] = np.zeros((), np.int64)
    model, coverage = read(inception.table(), arrays, lambda key: Inception(key=key))
    assert len(coverage.read) == len(arrays) - 1

    @jax.jit
    def run(image):
        return model.features(image, resize=False), model.head(model.features(image, resize=False))

    features, logits = run(IMAGES[0])
    for found, name in ((features, "features"), (logits, "logits")):
        kept = CASES["inception"][name][0]
        np.testing.assert_allclose(found / np.abs(kept).max(), kept / np.abs(kept).max(), atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: LPIPS("resnet", key=jr.key(0)), "net must be one of alex, squeeze, vgg: got 'resnet'"),
        (lambda: shaped(LPIPS, "alex").maps(jnp.zeros((30, 40, 3))), "x must be at least 31 pixels"),
        (lambda: shaped(LPIPS, "alex")(jnp.zeros((40, 40, 3)), jnp.zeros((40, 41, 3))), "must have one shape"),
        (lambda: shaped(LPIPS, "alex").maps(jnp.zeros((40, 40, 1))), "channels=3"),
        (lambda: shaped(Inception).features(jnp.zeros((74, 90, 3)), resize=False), "x must be at least 75 pixels"),
    ],
)
def test_what_cannot_be_is_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def shaped(kind, *arguments):
    return eqx.filter_eval_shape(lambda key: kind(*arguments, key=key), jr.key(0))
