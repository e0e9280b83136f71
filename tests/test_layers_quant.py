"""Activations, gated MLPs, low-rank adaptation, reparametrised layers and quantisers against what is published."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.activation import ACTIVATIONS, ALIASES
from tests import oracles
from train.paths import named_arrays
from train.toolkit import gradients
from train.transforms import freeze, parameters

KEY = jr.key(0)
CASES = oracles.load("quant")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_published_formula(name):
    case = CASES[f"activation {name}"]
    np.testing.assert_allclose(nn.Activation(name)(jnp.asarray(case["x"], jnp.float32)), case["y"], rtol=1e-5, atol=2e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(case["x"])), case["y"], rtol=1e-7, atol=1e-9)


def test_ngelu_has_a_product_where_the_seeds_had_a_sum():
    # scratchpad's ngelu took tanh of x + 0.044715 + x³.
    x = np.linspace(-3, 3, 31)
    formula = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    defect = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 + x**3)))
    np.testing.assert_allclose(nn.Activation("ngelu")(jnp.asarray(x, jnp.float32)), formula, atol=1e-6)
    assert np.abs(formula - defect).max() > 0.1


def test_an_alias_is_another_name_for_an_activation_and_hides_none():
    assert not set(ALIASES) & set(ACTIVATIONS)
    assert {nn.Activation(alias).name for alias in ALIASES} <= set(ACTIVATIONS)
    assert nn.Activation("egelu") == nn.Activation("gelu")
    assert nn.Activation("agelu") == nn.Activation("quick") == nn.Activation("quick_gelu")


@pytest.mark.parametrize("name", ["swish", "gelu", "sigmoid"])
def test_a_glu_is_the_product_of_a_value_and_an_activated_gate(name):
    layer, x = nn.GLU(5, 6, activation=name, bias=True, key=KEY), jr.normal(jr.key(1), (7, 5))
    layer = eqx.tree_at(lambda glu: (glu.up.bias, glu.down.bias), layer, (jr.normal(jr.key(2), (12,)), jr.normal(jr.key(3), (5,))))
    value = np.asarray(x) @ np.asarray(layer.up.weight)[0::2].T + np.asarray(layer.up.bias)[0::2]
    gate = np.asarray(x) @ np.asarray(layer.up.weight)[1::2].T + np.asarray(layer.up.bias)[1::2]
    wanted = value * np.asarray(ACTIVATIONS[name](jnp.asarray(gate))) @ np.asarray(layer.down.weight).T + np.asarray(layer.down.bias)
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-5, atol=1e-6)


def test_a_glu_is_as_wide_as_llamas_by_default():
    shape = eqx.filter_eval_shape(lambda: nn.GLU(4096, key=KEY)).up.weight.shape
    assert shape == (2 * 11008, 4096)
    assert nn.GLU(128, key=KEY).down.in_dim == 512


def test_a_split_of_a_glu_by_its_outputs_is_one_by_hidden_units():
    layer, x = nn.GLU(4, 8, key=KEY), jr.normal(jr.key(1), (3, 4))

    def part(which):
        up, down = layer.up.weight[which * 8 : which * 8 + 8], layer.down.weight[:, which * 4 : which * 4 + 4]
        half = nn.GLU(4, 4, key=KEY)
        return eqx.tree_at(lambda glu: (glu.up.weight, glu.down.weight), half, (up, down))

    np.testing.assert_allclose(part(0)(x) + part(1)(x), layer(x), rtol=1e-5, atol=1e-6)


def transformer():
    return nn.Stack(lambda key: nn.TransformerBlock(8, 2, key=key), 2, key=KEY)


def trained(model):
    return jax.tree.map(
        lambda node: eqx.tree_at(lambda layer: layer.lora_b, node, jr.normal(jr.key(5), node.lora_b.shape)) if is_lora(node) else node,
        model,
        is_leaf=is_lora,
    )


def is_lora(node):
    return isinstance(node, nn.LoRA)


def test_lora_starts_as_the_model_and_merges_into_what_it_has_learned():
    model, x = transformer(), jr.normal(jr.key(1), (5, 8))
    adapted = nn.lora(model, 2, alpha=3.0, key=jr.key(2))
    np.testing.assert_array_equal(adapted(x), model(x))
    assert sum(map(is_lora, jax.tree.leaves(adapted, is_leaf=is_lora))) == 4
    learned = trained(adapted)
    assert not np.allclose(learned(x), model(x), atol=1e-2)
    merged = nn.merge_lora(learned)
    assert jax.tree.structure(merged) == jax.tree.structure(model)
    np.testing.assert_allclose(merged(x), learned(x), rtol=1e-5, atol=1e-5)


def test_lora_of_one_projection_merges_to_a_millionth():
    layer = trained(nn.LoRA(nn.Projection(6, 4, key=KEY), 3, alpha=6.0, key=jr.key(1)))
    x = jr.normal(jr.key(2), (5, 6))
    weight = np.asarray(layer.projection.weight, np.float64) + 2 * np.asarray(layer.lora_b, np.float64) @ np.asarray(
        layer.lora_a, np.float64
    )
    np.testing.assert_allclose(layer.merge().weight, weight, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.merge()(x), layer(x), rtol=1e-6, atol=2e-6)


def test_lora_adapts_what_is_chosen_and_nothing_else_is_trained():
    adapted = nn.lora(transformer(), 2, where=lambda path, _: path.endswith("qkv"), key=jr.key(2))
    frozen = freeze(adapted, nn.not_lora)
    assert set(named_arrays(parameters(frozen))) == {"blocks.attention.qkv.lora_a", "blocks.attention.qkv.lora_b"}

    @gradients
    def loss(model, x):
        return jnp.sum(model(x) ** 2), {}

    _, grads = loss(frozen, jr.normal(jr.key(1), (5, 8)))
    assert set(named_arrays(grads)) == {"blocks.attention.qkv.lora_a", "blocks.attention.qkv.lora_b"}
    # B is zero, so A learns nothing in the first step, and B does.
    found = named_arrays(grads)
    assert not found["blocks.attention.qkv.lora_a"].any()
    assert found["blocks.attention.qkv.lora_b"].any()
