"""Recurrent layers give torch's outputs, states and gradients, as a whole and step by step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.recurrent import LSTMState
from tests import oracles

KEPT = {
    case: {name: jnp.asarray(array) for name, array in parts.items()}
    for case, parts in oracles.load("recurrent").items()
}
KINDS = {"RNN": nn.VanillaRNN, "GRU": nn.GRU, "LSTM": nn.LSTM}


def layer_of(name: str):
    kept, layer = KEPT[name], KINDS[name](3, 5, key=jr.key(0))
    layer = eqx.tree_at(
        lambda n: (n.from_input.weight, n.from_output.weight), layer, (kept["weight_ih_l0"], kept["weight_hh_l0"])
    )
    if name == "GRU":
        return eqx.tree_at(
            lambda n: (n.from_input.bias, n.from_output.bias), layer, (kept["bias_ih_l0"], kept["bias_hh_l0"])
        )
    return eqx.tree_at(lambda n: n.from_input.bias, layer, kept["bias_ih_l0"] + kept["bias_hh_l0"])


def state_of(name: str, prefix: str = ""):
    h, c = KEPT[name][f"{prefix}h"], KEPT[name][f"{prefix}c"]
    return LSTMState(h, c) if name == "LSTM" else h


@pytest.mark.parametrize("name", KINDS)
def test_a_recurrent_layer_is_torchs_with_its_gradients(name):
    layer, kept = layer_of(name), KEPT[name]

    @eqx.filter_jit
    def run(layer, x, state, dy):
        y, pull, last = jax.vjp(lambda layer, x: jax.vmap(layer)(x, state), layer, x, has_aux=True)
        return y, last, pull(dy)

    y, last, (d_layer, dx) = run(layer, kept["x"], state_of(name), kept["dy"])
    np.testing.assert_allclose(y, kept["y"], rtol=1e-5, atol=1e-5)
    for found, wanted in zip(jax.tree.leaves(last), jax.tree.leaves(state_of(name, "last_"))):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, kept["dx"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d_layer.from_input.weight, kept["d_input"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d_layer.from_output.weight, kept["d_output"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_steps_are_the_sequence_and_so_are_two_halves_of_it(name):
    layer, x = layer_of(name), KEPT[name]["x"][0]
    y, last = layer(x)
    state, outputs = layer.init_state(), []
    step = eqx.filter_jit(lambda x, state: layer.step(x, state))
    for entry in x:
        one, state = step(entry, state)
        outputs.append(one)
    np.testing.assert_allclose(jnp.stack(outputs), y, rtol=1e-5, atol=1e-6)
    first, between = layer(x[:3])
    second, end = layer(x[3:], between)
    np.testing.assert_allclose(jnp.concatenate([first, second]), y, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(jax.tree.leaves((state, end)), jax.tree.leaves((last, last))):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
