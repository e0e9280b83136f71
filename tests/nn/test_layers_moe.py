"""Mixture of experts against its formula, token by token."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from tests.arrays import drawn

KEY, X = jr.key(0), drawn((7, 6))


@pytest.mark.parametrize("gated", [False, True])
def test_one_expert_is_the_mlp_bit_for_bit(gated):
    @eqx.filter_jit
    def both(x):
        layers = [
            nn.MoE(6, 10, experts=1, top_k=1, gated=gated, capacity_factor=factor, key=KEY) for factor in (None, 1.0)
        ]
        return [layer(x).x for layer in layers], layers[0].experts

    found, experts = both(X)
    alone = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, experts)
    wanted = eqx.filter_jit(alone)(X)
    for y in found:
        np.testing.assert_array_equal(y, wanted)


def by_hand(layer, x, room, bias):
    """Results, loads and dropped choices, by NumPy, one token after another."""
    weights = jax.tree.map(np.asarray, layer.experts)
    logits = np.asarray(x @ layer.router.weight.T, np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y, load, dropped = np.zeros(x.shape), np.zeros(layer.count), 0
    for token, row in enumerate(np.asarray(x)):
        chosen = np.argsort(-(probs[token] + bias), kind="stable")[: layer.top_k]
        total = probs[token, chosen].sum() if layer.renormalise else 1.0
        for expert in chosen:
            load[expert] += 1
            if load[expert] > room:
                dropped += 1
                continue
            hidden = np.maximum(weights.up.weight[expert] @ row + weights.up.bias[expert], 0)
            out = weights.down.weight[expert] @ hidden + weights.down.bias[expert]
            y[token] += probs[token, expert] / total * out
    balance = layer.count * (load / load.sum()) @ probs.mean(0)
    z_loss = np.mean(np.log(np.exp(logits).sum(1)) ** 2)
    return y, load, dropped, balance, z_loss


def test_results_counts_and_losses_are_those_of_the_formula():
    def layer(**options):
        made = nn.MoE(6, 10, experts=4, activation="relu", **options, key=KEY)
        shifted = jax.tree.map(lambda leaf: leaf + 0.1 if eqx.is_array(leaf) else leaf, made.experts)
        return eqx.tree_at(lambda layer: layer.experts, made, shifted)

    bias = jnp.asarray([0.0, 1.0, 0.0, 0.0])
    cases = (
        ({}, np.inf, 0.0),
        ({"capacity_factor": 0.75}, 3, 0.0),  # ceil(0.75 * 7 * 2 / 4)
        ({"top_k": 1, "capacity_factor": 0.5}, 1, 0.0),
        ({"renormalise": False}, np.inf, bias),
    )
    run = eqx.filter_jit(
        lambda layers, x: [layer(x, bias=jnp.zeros(4) + case[2]) for layer, case in zip(layers, cases)]
    )
    layers = [layer(**options) for options, *_ in cases]
    for routed, made, (_, room, added) in zip(run(layers, X), layers, cases):
        y, load, dropped, balance, z_loss = by_hand(made, X, room, np.asarray(added))
        np.testing.assert_allclose(routed.x, y, atol=1e-5)
        np.testing.assert_array_equal(routed.routing.load, load)
        assert routed.routing.overflow == dropped
        assert (dropped > 0) == np.isfinite(room), "the case shows nothing"
        np.testing.assert_allclose(routed.routing.balance_loss, balance, rtol=1e-5)
        np.testing.assert_allclose(routed.routing.z_loss, z_loss, rtol=1e-5)


def test_no_token_depends_on_later_ones_and_inference_drops_none():
    layer = nn.MoE(6, 10, experts=3, capacity_factor=0.5, key=KEY)
    run = eqx.filter_jit(layer)
    whole, changed = run(X), run(X.at[5:].set(9.0))
    assert whole.routing.overflow > 0
    np.testing.assert_array_equal(whole.x[:5], changed.x[:5])
    assert run(X, inference=True).routing.overflow == 0


def test_a_bias_that_follows_the_load_balances_the_choice():
    layer, x = nn.MoE(6, 10, experts=4, top_k=1, key=KEY), drawn((64, 6), 3)
    x = x + layer.router.weight[:1]  # towards the first expert
    step = eqx.filter_jit(lambda bias: layer(x, bias=bias).routing.load)
    bias, first = jnp.zeros(4), step(jnp.zeros(4))
    for _ in range(60):
        bias = nn.rebalanced(bias, step(bias), 0.005)
    assert first.max() > 20
    assert step(bias).max() <= 18


def test_a_wrong_argument_is_named(unchecked):
    layer = nn.MoE(6, 10, experts=4, key=KEY)
    for call, says in (
        (lambda: layer(X, bias=jnp.zeros((len(X), 4))), r"bias must be \(experts=4,\): got shape \(7, 4\)"),
        (lambda: layer(X, bias=jnp.zeros(1)), r"bias must be \(experts=4,\): got shape \(1,\)"),
        (
            lambda: nn.MoE(6, 10, experts=4, axis="expert", key=KEY)(X),
            "axis must be a manual mesh axis: got 'expert'; call",
        ),
        (lambda: layer(X[:0]), r"x must have one token or more: got shape \(0, 6\)"),
        (lambda: layer(X.astype(int)), "x must be of a floating-point type: got int32"),
        (lambda: nn.rebalanced(jnp.zeros(4), jnp.ones((3, 4))), r"must have one shape: got \(4,\) and \(3, 4\)"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
