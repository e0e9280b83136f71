"""Activations, gated MLPs, low-rank adaptation, reparametrised layers and quantisers against what is published."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.activation import ACTIVATIONS, ALIASES
from eqxgen.nn.norm.magnitude import to_magnitude_one
from eqxgen.nn.norm.reparam import Power, with_weight
from tests import oracles
from train.engine.ddp import gradients
from train.params.paths import named_arrays
from train.params.selection import freeze, parameters

KEY = jr.key(0)
CASES = oracles.load("quant")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_published_formula(name):
    case = CASES[f"activation {name}"]
    np.testing.assert_allclose(
        nn.Activation(name)(jnp.asarray(case["x"], jnp.float32)), case["y"], rtol=1e-5, atol=2e-6
    )
    with jax.enable_x64(True):
        np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(case["x"])), case["y"], rtol=1e-7, atol=1e-9)


def test_ngelu_has_a_product_where_the_seeds_had_a_sum():
    # scratchpad's ngelu took tanh of x + 0.044715 + x³.
    x = np.linspace(-3, 3, 31)
    formula = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    defect = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 + x**3)))
    np.testing.assert_allclose(nn.Activation("ngelu")(jnp.asarray(x, jnp.float32)), formula, atol=1e-6)
    assert np.abs(formula - defect).max() > 0.1


PLAIN = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "swish": lambda x: x * jax.nn.sigmoid(x),
}


@pytest.mark.parametrize("name", PLAIN)
def test_an_activation_that_keeps_its_slope_keeps_one_array_and_has_every_derivative(name):
    x = jnp.linspace(-12.0, 12.0, 97)
    _, pull = jax.vjp(ACTIVATIONS[name], x)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) <= x.size
    for derivative in (lambda f: f, jax.grad, jax.jacfwd, jax.hessian):
        ours, plain = (jax.vmap(derivative(f))(x) for f in (ACTIVATIONS[name], PLAIN[name]))
        np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_gelu_in_bfloat16_is_that_of_float32_rounded():
    x = jnp.linspace(-6.0, 6.0, 301, dtype=jnp.bfloat16)
    np.testing.assert_array_equal(
        ACTIVATIONS["gelu"](x), ACTIVATIONS["gelu"](x.astype(jnp.float32)).astype(jnp.bfloat16)
    )


def test_an_alias_is_another_name_for_an_activation_and_hides_none():
    assert not set(ALIASES) & set(ACTIVATIONS)
    assert {nn.Activation(alias).name for alias in ALIASES} <= set(ACTIVATIONS)
    assert nn.Activation("egelu") == nn.Activation("gelu")
    assert nn.Activation("agelu") == nn.Activation("quick") == nn.Activation("quick_gelu")


@pytest.mark.parametrize("name", ["swish", "gelu", "sigmoid"])
def test_a_glu_is_the_product_of_a_value_and_an_activated_gate(name):
    layer, x = nn.GLU(5, 6, activation=name, bias=True, key=KEY), jr.normal(jr.key(1), (7, 5))
    layer = eqx.tree_at(
        lambda glu: (glu.up.bias, glu.down.bias), layer, (jr.normal(jr.key(2), (12,)), jr.normal(jr.key(3), (5,)))
    )
    value = np.asarray(x) @ np.asarray(layer.up.weight)[0::2].T + np.asarray(layer.up.bias)[0::2]
    gate = np.asarray(x) @ np.asarray(layer.up.weight)[1::2].T + np.asarray(layer.up.bias)[1::2]
    wanted = value * np.asarray(ACTIVATIONS[name](jnp.asarray(gate))) @ np.asarray(layer.down.weight).T + np.asarray(
        layer.down.bias
    )
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
    return nn.Stack(lambda key: nn.Selformer(8, 2, key=key), 2, key=KEY)


def trained(model):
    return jax.tree.map(
        lambda node: (
            eqx.tree_at(lambda layer: layer.lora_b, node, jr.normal(jr.key(5), node.lora_b.shape))
            if is_lora(node)
            else node
        ),
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


def ours(array, image):
    """torch's (out, in, *kernel) or (1, channels, *spatial) as ours: (*kernel, in, out) or (*spatial, channels)."""
    if array.ndim != 4:
        return jnp.asarray(array)
    return jnp.asarray(array[0].transpose(1, 2, 0) if image else array.transpose(2, 3, 1, 0))


def layer_of(case):
    weight = ours(case["weight"], image=False)
    layer = nn.Projection(5, 3, key=KEY) if weight.ndim == 2 else nn.Convolution(3, 4, key=KEY)
    return eqx.tree_at(lambda layer: layer.bias, with_weight(layer, weight), jnp.asarray(case["bias"]))


def flat_as_ours(vector, layer):
    """torch's right singular vector, over (in, *kernel), in our order (*kernel, in)."""
    return jnp.asarray(vector if layer.weight.ndim == 2 else vector.reshape(3, 3, 3).transpose(1, 2, 0).reshape(-1))


@pytest.mark.parametrize("kind", ["projection", "convolution"])
def test_weight_norm_and_its_gradients_are_torchs(kind):
    case = CASES[f"weight norm {kind}"]
    layer, x = nn.WeightNorm(layer_of(case)), ours(case["x"], image=True)
    np.testing.assert_allclose(layer(x), layer.layer(x), rtol=1e-5, atol=1e-5)
    layer = eqx.tree_at(lambda layer: layer.gain, layer, ours(case["gain"], image=False))
    np.testing.assert_allclose(layer(x), ours(case["y"], image=True), rtol=1e-5, atol=1e-5)
    grads = eqx.filter_grad(lambda layer: jnp.sum(layer(x) ** 2))(layer)
    np.testing.assert_allclose(grads.gain, ours(case["to_gain"], image=False), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads.layer.weight, ours(case["to_weight"], image=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["projection", "convolution"])
def test_spectral_norm_and_its_state_are_torchs_after_each_iteration(kind):
    case = CASES[f"spectral norm {kind}"]
    layer, x = nn.SpectralNorm(layer_of(case), iterations=3), ours(case["x"], image=True)
    state = Power(jnp.asarray(case["left"]), flat_as_ours(case["right"], layer.layer))
    _, state = layer(x, state)

    def loss(layer):
        y, after = layer(x, state)
        return jnp.sum(y**2), (y, after)

    grads, (y, after) = eqx.filter_grad(loss, has_aux=True)(layer)
    np.testing.assert_allclose(y, ours(case["y"], image=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after.left, case["left_after"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after.right, flat_as_ours(case["right_after"], layer.layer), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads.layer.weight, ours(case["to_weight"], image=False), rtol=1e-4, atol=1e-4)
    quiet, same = eqx.nn.inference_mode(layer)(x, after)
    np.testing.assert_allclose(quiet, ours(case["y_inference"], image=True), rtol=1e-5, atol=1e-5)
    assert eqx.tree_equal(same, after)


def test_spectral_norm_comes_to_a_largest_singular_value_of_one():
    layer = nn.SpectralNorm(nn.Projection(6, 4, bias=False, key=KEY), iterations=50)
    y, state = layer(jnp.eye(6), layer.init_state())
    largest = np.linalg.svd(np.asarray(y), compute_uv=False)[0]
    assert largest == pytest.approx(1, abs=1e-5)
    mapped = jax.vmap(layer, in_axes=(0, None), out_axes=(0, None))(jnp.eye(6), state)
    np.testing.assert_allclose(mapped[0], y, atol=1e-5)


def magnitude(x):
    return float(jnp.sqrt(jnp.mean(jnp.square(x))))


def test_what_comes_in_with_magnitude_one_goes_out_with_magnitude_one():
    a, b = jr.normal(jr.key(2), (512, 64)), jr.normal(jr.key(3), (512, 192))
    projection = nn.MagnitudePreserving(nn.Projection(64, 96, bias=False, key=KEY))
    convolution = nn.MagnitudePreserving(nn.Convolution(64, 32, padding=0, bias=False, key=KEY))
    for y in (
        projection(a),
        convolution(a.reshape(16, 32, 64)),
        nn.mp_silu(a),
        nn.mp_sum(a, b[:, :64]),
        nn.mp_cat(a, b, 0.3),
    ):
        assert magnitude(y) == pytest.approx(1, abs=0.04)
    assert magnitude(to_magnitude_one(7 * a)) == pytest.approx(1, abs=1e-3)
    # Of a and b behind one another, each adds as much as its share says, though b is three times as wide.
    parts = jnp.square(nn.mp_cat(a, b, 0.3)).sum(0)
    assert float(jnp.sqrt(parts[64:].sum() / parts[:64].sum())) == pytest.approx(0.3 / 0.7, rel=0.02)


def test_magnitude_preserving_weights_have_length_one_at_any_scale_and_gradients_orthogonal_to_them():
    layer, x = nn.MagnitudePreserving(nn.Convolution(3, 4, bias=False, key=KEY)), jr.normal(jr.key(1), (5, 6, 3))
    tenfold = eqx.tree_at(lambda layer: layer.layer.weight, layer, replace_fn=lambda weight: 10 * weight)
    np.testing.assert_allclose(tenfold(x), layer(x), rtol=1e-3)
    grad = eqx.filter_grad(lambda layer: jnp.sum(layer(x) ** 3))(layer).layer.weight
    along = jnp.sum(grad * layer.layer.weight, axis=(0, 1, 2)) / jnp.linalg.norm(grad.reshape(-1, 4), axis=0)
    assert float(jnp.abs(along).max()) < 2e-3  # but for epsilon, zero
    moved = eqx.tree_at(lambda layer: layer.layer.weight, layer, layer.layer.weight - grad)
    forced = nn.force_weight_norm({"stack": [moved]})["stack"][0]
    np.testing.assert_allclose(jnp.mean(jnp.square(forced.layer.weight), axis=(0, 1, 2)), 1, rtol=1e-3)
    np.testing.assert_allclose(forced(x), moved(x), rtol=1e-3, atol=1e-4)


def test_forced_weight_norm_takes_each_layer_of_a_stack_by_itself():
    make = lambda key: nn.MagnitudePreserving(nn.Projection(4, 4, bias=False, key=key))
    stack = eqx.filter_vmap(make)(jr.split(KEY, 3))
    grown = eqx.tree_at(
        lambda stack: stack.layer.weight,
        stack,
        replace_fn=lambda weight: weight * jnp.asarray([1.0, 2, 5])[:, None, None],
    )
    np.testing.assert_allclose(nn.force_weight_norm(grown).layer.weight, stack.layer.weight, rtol=1e-3)
