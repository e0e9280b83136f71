"""Optimisers and schedules by config: every name learns, every schedule keeps its values, every group is treated as it
says.
"""

import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from eqxgen.nn import Stack
from eqxgen.nn.linear import Projection
from train._errors import UsageError
from train.config.optim import Name, OptimConfig
from train.optim import check_groups, groups_of, optimiser, schedule, shown, table
from train.optim.sophia import hutchinson

NAMES = typing.get_args(Name)
DECAYS = typing.get_args(OptimConfig.__dataclass_fields__["decay"].type)
RATES = {
    "adamw": 0.05,
    "lion": 0.02,
    "adafactor": 0.2,
    "lamb": 0.03,
    "muon": 0.1,
    "soap": 0.05,
    "schedule_free": 0.1,
    "rmsprop": 0.02,
    "sgd": 0.05,
    "adabelief": 0.05,
    "lars": 0.1,
    "shampoo": 0.05,
    "sophia": 0.02,
}


class Net(eqx.Module):
    """A layer before a stack, the stack, and a head."""

    embedding: Projection
    stack: Stack
    head: Projection

    def __init__(self, *, key):
        keys = jr.split(key, 3)
        self.embedding = Projection(3, 4, key=keys[0])
        self.stack = Stack(lambda key: _Tanh(Projection(4, 4, key=key)), 3, key=keys[1])
        self.head = Projection(4, 2, key=keys[2])

    def __call__(self, x):
        return self.head(self.stack(self.embedding(x)))


class _Tanh(eqx.Module):
    linear: Projection

    def __call__(self, x, *, key=None, inference=None):
        return x + jnp.tanh(self.linear(x))


@pytest.fixture(scope="module")
def net():
    return Net(key=jr.key(0))


def of_path(groups):
    return {group.path: group for group in jax.tree.leaves(groups)}


def updates_of(config, grads, params):
    """The first updates, of a compiled step."""
    tx = optimiser(config, 1)
    return jax.jit(lambda grads, params: tx.update(grads, tx.init(params), params)[0])(grads, params)


def config(**values):
    return OptimConfig(**{"warmup": 0, "decay": "constant", "weight_decay": 0.0} | values)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimiser_fits_a_small_problem_and_keeps_the_shape_of_its_state(name):
    x = jr.normal(jr.key(1), (32, 3))
    y = jnp.sin(x[:, :2] * 2)
    tx = optax.with_extra_args_support(optimiser(config(name=name, learning_rate=RATES[name], block=3, trust=0.2), 60))
    params = {
        "inside": jr.normal(jr.key(0), (3, 8)) / 2,
        "head": jr.normal(jr.key(2), (8, 2)) / 4,
        "bias": jnp.zeros(2),
    }
    loss = lambda p: jnp.mean((jnp.tanh(x @ p["inside"]) @ p["head"] + p["bias"][None] - y) ** 2)

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        estimate = lambda: hutchinson(jax.grad(loss), params, jr.key(4))
        updates, state = tx.update(grads, state, params, curvature=estimate)
        return (optax.apply_updates(params, updates), state), value

    (params, state), values = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=60))(
        (params, tx.init(params))
    )
    assert float(loss(shown(params, state))) < 0.6 * float(values[0])


@pytest.mark.parametrize("decay", DECAYS)
def test_every_schedule_rises_to_the_peak_and_ends_at_its_fraction(decay):
    rate = schedule(OptimConfig(decay=decay, learning_rate=2.0, warmup=10, final=0.1), 100)
    values = np.array([rate(step) for step in range(101)])
    assert values[10] == pytest.approx(2.0)
    assert values.max() == pytest.approx(2.0)
    assert np.all(np.diff(values[:10]) > 0)
    assert np.all(np.diff(values[10:]) <= 1e-6)
    assert values[0] == pytest.approx(2.0 / 25 if decay == "one_cycle" else 2.0 / 10)
    end = {"constant": 2.0, "inverse_sqrt": 2.0 * 0.1**0.5}.get(decay, 0.2)
    assert values[100] == pytest.approx(end, rel=1e-5)


def test_step_i_of_a_warm_up_has_the_share_i_plus_one_of_the_peak_and_no_step_is_lost():
    rate = schedule(OptimConfig(learning_rate=3.0, warmup=4, decay="constant"), 100)
    np.testing.assert_allclose([rate(step) for step in (0, 1, 2, 3, 3.6, 4, 50)], [0.75, 1.5, 2.25, 3, 3, 3, 3])
    assert float(schedule(OptimConfig(learning_rate=3.0, warmup=0, decay="constant"), 100)(0)) == 3.0
    # A warm-up that is longer than the run is cut to it.
    assert float(schedule(OptimConfig(learning_rate=3.0, warmup=50, decay="cosine"), 2)(0)) == 1.5


def test_the_cosine_ends_at_a_fraction_of_the_peak_and_not_at_a_million():
    # The seeds gave `end_value` to an argument that wants a fraction of the peak, with rates of about 1e6 at the end.
    rate = schedule(OptimConfig(learning_rate=3e-4, warmup=0, final=0.1), 1000)
    assert float(rate(1000)) == pytest.approx(3e-5)
    assert float(rate(500)) == pytest.approx(3e-4 * (0.1 + 0.9 * 0.5))


@pytest.mark.parametrize(
    ("decay", "step", "expected"),
    [
        ("linear", 55, 2.0 * 0.55),
        ("exponential", 55, 2.0 * 0.1**0.5),
        ("inverse_sqrt", 40, 1.0),
        ("wsd", 79, 2.0),
        ("wsd", 90, 2.0 * 0.55),
        ("one_cycle", 5, 2.0 * (0.04 + 0.96 / 2)),
        ("one_cycle", 55, 2.0 * 0.55),
    ],
)
def test_schedules_pass_through_their_closed_forms(decay, step, expected):
    rate = schedule(OptimConfig(decay=decay, learning_rate=2.0, warmup=10, final=0.1), 100)
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_clipped_by_their_global_norm_and_not_at_all_with_inf():
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    for clip, norm in (1.0, 1.0), (10.0, 5.0), (float("inf"), 5.0):
        updates = updates_of(config(name="sgd", momentum=0.0, learning_rate=1.0, clip=clip), grads, grads)
        assert float(optax.tree.norm(updates)) == pytest.approx(norm)


def test_decay_spares_vectors_of_stacked_layers_too_and_what_is_named(net):
    groups = of_path(groups_of(config(undecayed=("head",)), net))
    decayed = {path for path, group in groups.items() if group.decayed}
    assert decayed == {"embedding.weight", "stack.blocks.linear.weight"}


def test_weight_decay_moves_only_what_is_decayed(net):
    params = eqx.filter(net, eqx.is_inexact_array)
    updates = updates_of(config(weight_decay=0.1, learning_rate=1.0), jax.tree.map(jnp.zeros_like, params), params)
    for group, update, param in zip(*map(jax.tree.leaves, (groups_of(config(), params), updates, params))):
        np.testing.assert_allclose(update, -0.1 * param if group.decayed else jnp.zeros_like(param), rtol=1e-6)


def test_layers_farther_from_the_head_move_less_and_patterns_multiply(net):
    groups = of_path(groups_of(config(layer_decay=0.5, rates=("head.bias=10", "stack=2")), net))
    assert groups["embedding.weight"].rates == (1 / 16,)
    assert groups["stack.blocks.linear.weight"].rates == (2 / 8, 2 / 4, 2 / 2)
    assert groups["head.weight"].rates == (1.0,)
    assert groups["head.bias"].rates == (10.0,)


def test_each_layer_moves_by_its_own_rate(net):
    params = eqx.filter(net, eqx.is_inexact_array)
    steep = config(name="sgd", momentum=0.0, learning_rate=1.0, layer_decay=0.5, clip=float("inf"))
    updates = updates_of(steep, jax.tree.map(jnp.ones_like, params), params)
    np.testing.assert_allclose(updates.stack.blocks.linear.weight[:, 0, 0], [-1 / 8, -1 / 4, -1 / 2])
    np.testing.assert_allclose(updates.embedding.bias, -1 / 16)


def test_lamb_scales_each_layer_of_a_stack_to_its_own_norm(net):
    params = eqx.filter(net, eqx.is_inexact_array)
    scale = jnp.array([1.0, 2.0, 4.0])[:, None, None]
    params = eqx.tree_at(lambda p: p.stack.blocks.linear.weight, params, jnp.ones((3, 4, 4)) * scale)
    updates = updates_of(config(name="lamb", learning_rate=1.0), jax.tree.map(jnp.ones_like, params), params)
    norms = jnp.sqrt(jnp.sum(updates.stack.blocks.linear.weight**2, axis=(1, 2)))
    np.testing.assert_allclose(norms, [4.0, 8.0, 16.0], rtol=1e-5)


def test_muon_makes_the_hidden_matrices_orthogonal_and_leaves_the_ends_to_adam(net):
    params = eqx.filter(net, eqx.is_inexact_array)
    grads = jax.tree.map(lambda p: jr.normal(jr.key(3), p.shape), params)
    updates = updates_of(config(name="muon", learning_rate=1.0, clip=float("inf")), grads, params)
    singular = jnp.linalg.svd(updates.stack.blocks.linear.weight / (0.2 * 2))[1]
    assert float(singular.min()) > 0.6
    assert float(singular.max()) < 1.3
    np.testing.assert_allclose(updates.embedding.weight, -jnp.sign(grads.embedding.weight), rtol=1e-4)


def test_schedule_free_shows_the_average_that_it_promises():
    tx = optimiser(config(name="schedule_free", learning_rate=0.1, beta1=0.9), 10)
    params = {"w": jnp.zeros((2, 2))}
    state = tx.init(params)
    visited = []
    for number in range(5):
        updates, state = tx.update({"w": jnp.full((2, 2), 1.0 + number)}, state, params)
        params = optax.apply_updates(params, updates)
        visited.append(state[1].z["w"])
    np.testing.assert_allclose(shown(params, state)["w"], sum(visited) / 5, rtol=1e-5)
    assert shown(params, optimiser(config(), 1).init(params)) is params


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"undecayed": ("hed",)}, "--optim.undecayed.*'hed'.*head"),
        ({"rates": ("blocks=2",)}, "--optim.rates.*'blocks'"),
        ({"layer_decay": 0.9}, "--optim.layer-decay 0.9 is for models with a stack"),
    ],
)
def test_a_pattern_without_a_parameter_is_an_error(values, says, net):
    model = net.head if "layer_decay" in values else net
    with pytest.raises(UsageError, match=says):
        check_groups(config(**values), model)
    with pytest.raises(UsageError, match=says):
        optimiser(config(**values), 1).init(eqx.filter(model, eqx.is_inexact_array))


def test_the_table_of_groups_has_a_line_for_each_array(net):
    lines = table(groups_of(config(layer_decay=0.5), eqx.filter(net, eqx.is_inexact_array))).splitlines()
    assert lines[0].split() == ["parameter", "shape", "group", "decay", "rate"]
    assert len(lines) == 7
    assert any(
        line.split()
        == ["stack.blocks.linear.weight", "(3,", "4,", "4)", "hidden,", "by", "layer", "yes", "0.125", "to", "0.5"]
        for line in lines
    )
