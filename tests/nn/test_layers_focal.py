"""Focal modulation gives transformers' numbers, squeeze-and-excitation its formula's."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from tests import oracles
from tests.full import rows
from tests.oracles.focal import FOCAL

KEPT = oracles.load("focal")


@pytest.mark.parametrize("name", rows(FOCAL, "three levels without bias"))
def test_focal_modulation_which_crashes_in_the_seed_is_transformers(name):
    dim, window, level, factor, bias = FOCAL[name]
    kept = {part: jnp.asarray(array) for part, array in KEPT[name].items()}
    layer = nn.FocalModulation(dim, window=window, level=level, factor=factor, bias=bias, dropout=0.1, key=jr.key(0))

    def arrays(n):
        pairs = [(n.project_in, "projection_in"), (n.context, "projection_context"), (n.project_out, "projection_out")]
        weights = {f"{part}.weight": p.weight for p, part in pairs} | {
            f"{part}.bias": p.bias for p, part in pairs if p.bias is not None
        }
        return weights | {f"focal_layers.{i}.0.weight": conv.weight for i, conv in enumerate(n.levels)}

    def fitted(weight):
        # A convolution's (out, in, height, width) becomes (height, width, in, out); where its kernel is 1 wide, it is a
        # projection.
        if weight.ndim < 4:
            return weight
        return weight[:, :, 0, 0] if weight.shape[-1] == 1 else jnp.moveaxis(weight, (0, 1), (-1, -2))

    values = {part: fitted(kept[part]) for part in arrays(layer)}
    assert set(values) == set(kept) - {"x", "y"}
    layer = eqx.tree_at(lambda n: list(arrays(n).values()), layer, list(values.values()))
    np.testing.assert_allclose(jax.vmap(lambda x: layer(x, inference=True))(kept["x"]), kept["y"], rtol=1e-5, atol=1e-5)


def test_squeeze_and_excitation_is_its_formula():
    layer, x = nn.SqueezeExcitation(4, 2, key=jr.key(0)), jr.normal(jr.key(1), (3, 5, 4))
    first, second = np.asarray(layer.squeeze.weight, np.float64), np.asarray(layer.excite.weight, np.float64)
    mean = np.asarray(x, np.float64).mean((0, 1))
    gate = 1 / (1 + np.exp(-second @ np.maximum(first @ mean, 0)))
    np.testing.assert_allclose(layer(x), np.asarray(x) * gate, rtol=1e-5, atol=1e-6)
