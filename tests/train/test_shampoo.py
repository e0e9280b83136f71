"""Distributed Shampoo against a plain statement of its algorithm in float64, its roots and its quantised storage."""

import dataclasses
import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.nn import Stack
from eqxgen.nn.linear import Projection
from tests.arrays import filled
from train.checkpoint.leaves import restored, to_save
from train.config.base import TrainConfig
from train.config.optim import OptimConfig
from train.engine.recipe import Player, Program, Sums, Turn
from train.engine.step import Inputs, Setup, make_step, sharded_state
from train.optim import failures
from train.optim.groups import Group
from train.optim.quantised import dequantised, levels, quantised, shrunk
from train.optim.roots import inverse_roots, shared_roots
from train.optim.shampoo import scale_by_shampoo, sides_of
from train.parallel import make_mesh
from train.parallel.mesh import AXES

SHAPES = {"even": (8, 4), "uneven": (7, 5), "kernel": (3, 1, 2, 5), "long": (13, 4), "vector": (5,), "scalar": ()}
BASE = {"name": "shampoo", "beta1": 0.9, "beta2": 0.95, "block": 4, "every": 3, "graft_steps": 2, "max_side": 12}
BLOCKS = {  # of sides of 4 at most, equal but for the last
    "even": ((4, 4), (4,)),
    "uneven": ((4, 3), (3, 2)),
    "kernel": ((3, 3), (3, 2)),
    "long": ((4, 4, 4, 1), (4,)),
}


def plain_root(statistic, p, ridge):
    """(A + ridge λ I)^(-1/p) by eigenvalues."""
    values, vectors = np.linalg.eigh(statistic)
    return vectors @ np.diag((np.maximum(values, 0) + ridge * values[-1]) ** (-1 / p)) @ vectors.T


def plain_shampoo(gradients, config, blocks=None):
    """The steps of Shampoo for one array, in float64, block by block: arXiv:2309.06497, algorithm 2, with equal
    grafting of the whole matrix."""
    b1, b2 = config.beta1, config.beta2
    first, second, steps, found = 0.0, 0.0, [], {}
    rows, columns = (np.cumsum((0, *side)) for side in blocks or ((), ()))
    places = [
        (slice(a, b), slice(c, d))
        for a, b in itertools.pairwise(rows)
        for c, d in itertools.pairwise(columns)
        if blocks
    ]
    has = (rows[-1] <= config.max_side, columns[-1] <= config.max_side)
    p = config.root or 2 * sum(has)
    for t, g in enumerate(gradients):
        first = b1 * first + (1 - b1) * g
        second = second + g**2 if config.graft == "adagrad" else b2 * second + (1 - b2) * g**2
        moment = first / (1 - b1 ** (t + 1))
        if config.nesterov:
            moment = b1 * first / (1 - b1 ** (t + 2)) + (1 - b1) * g / (1 - b1 ** (t + 1))
        scale = {"adam": 1 - b2 ** (t + 1), "rmsprop": 1, "adagrad": 1}.get(config.graft)
        graft = moment / (np.sqrt(second / scale) + config.epsilon) if scale else moment
        step = np.zeros_like(g)
        for place in places:
            at = str(place)
            left, right, roots = found.get(at, (0.0, 0.0, None))
            if t % config.statistics_every == 0:
                left = b2 * left + (1 - b2) * g[place] @ g[place].T
                right = b2 * right + (1 - b2) * g[place].T @ g[place]
            since = t - config.graft_steps
            if since >= 0 and since % config.every == 0:
                roots = [
                    plain_root(s, p, config.ridge) if one else np.eye(len(s)) for s, one in zip((left, right), has)
                ]
            found[at] = left, right, roots
            if since >= 0:
                step[place] = roots[0] @ moment[place] @ roots[1]
        norm = np.linalg.norm(step)
        steps.append(step * np.linalg.norm(graft) / norm if norm else graft)
    return steps


def drawn_gradients(count=9, shapes=SHAPES):
    rng = np.random.default_rng(0)
    return [{name: np.asarray(rng.normal(size=shape)) for name, shape in shapes.items()} for _ in range(count)]


def arrays(tree):
    """On the device, in float32; nothing is compiled."""
    return jax.tree.map(lambda x: jnp.asarray(np.float32(x)), tree)


def run(config, gradients):
    """Steps of the transformation, and its last state."""
    tx = scale_by_shampoo(config)
    update, steps = jax.jit(tx.update), []
    state = tx.init(arrays(gradients[0]))
    for g in gradients:
        found, state = update(arrays(g), state)
        steps.append(found)
    assert update._cache_size() == 1, "a step with roots and one without are one program"
    return steps, state


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"graft": "rmsprop", "root": 2, "nesterov": True, "statistics_every": 2, "ridge": 1e-3},
        {"graft": "adagrad", "root": 3, "every": 1},
        {"graft": "sgd", "graft_steps": 0, "ridge": 1e-4},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "adam",
)
def test_it_is_the_algorithm_of_the_papers_in_float64(changes):
    config, gradients = OptimConfig(**BASE | changes), drawn_gradients()
    found, state = run(config, gradients)
    assert int(state.failed) == 0
    for name, shape in SHAPES.items():
        matrix = (int(np.prod(shape[:-1])), shape[-1]) if len(shape) > 1 else shape
        expected = plain_shampoo([g[name].reshape(matrix) for g in gradients], config, BLOCKS.get(name))
        for t, step in enumerate(expected):
            got = np.asarray(found[t][name]).reshape(matrix)
            assert np.linalg.norm(got - step) < 5e-3 * np.linalg.norm(step), (name, t)


def test_a_long_side_has_no_statistics_and_vectors_none():
    config = OptimConfig(**BASE)
    of = lambda shape: sides_of(Group("w", shape, False, True, True, (1.0,)), config)
    assert [of(SHAPES[name]) for name in ("even", "long", "vector")] == [(True, True), (False, True), (False, False)]


@functools.cache
def matrices(condition, side=24):
    """Random symmetric matrices of a condition, some of them tiny or huge, and one of rank 1."""
    rng = np.random.default_rng(1)
    made = []
    for size in (1e-20, 1.0, 1e20):
        basis = np.linalg.qr(rng.normal(size=(side, side)))[0]
        made.append(size * basis @ np.diag(np.logspace(0, -np.log10(condition), side)) @ basis.T)
    vector = rng.normal(size=(side, 1))
    return np.float32([*made, vector @ vector.T])


@pytest.mark.parametrize(("p", "ridge"), [(1, 1e-3), (2, 1e-6), (4, 1e-6), (8, 1e-6)])
def test_the_coupled_newton_iteration_gives_the_inverse_root(p, ridge):
    given = matrices(1e4)
    found = jax.jit(inverse_roots, static_argnums=(1, 2))(arrays(np.concatenate([given, 0 * given[:1]])), p, ridge)
    assert np.all(found.found)
    for number, (root, matrix) in enumerate(zip(found.root, given)):
        exact = plain_root(np.float64(matrix), p, ridge)
        # Where the ridge is all there is of 23 eigenvalues, float32's rounding of the matrix is 0.03 of 1e-6.
        bound = 2e-4 if number < 3 else 1e-4 + 3e-8 / ridge
        assert np.linalg.norm(np.float64(root) - exact, 2) < bound * np.linalg.norm(exact, 2), number
    np.testing.assert_allclose(found.root[-1], np.eye(24), atol=1e-5 if ridge < 1e-3 else 2e-3)


def test_a_matrix_that_has_no_root_says_so_and_the_state_keeps_the_one_before():
    bad = np.float32(np.diag([1.0, -1.0, 1.0, 1.0]))[None]
    found = jax.jit(inverse_roots, static_argnums=(1, 2))(arrays(bad), 4, 1e-6)
    assert not found.found[0]
    config = OptimConfig(**BASE | {"graft_steps": 0, "every": 1})
    gradients = [{"w": np.full((4, 4), 1.0 if t < 2 else 1e30)} for t in range(3)]  # whose squares are infinite
    tx = scale_by_shampoo(config)
    state, update = tx.init(arrays(gradients[0])), jax.jit(tx.update)
    roots = []
    for g in gradients:
        _, state = update(arrays(g), state)
        roots.append(np.asarray(state.factors["w"].roots[0]))
    assert int(failures(("other", state))["failed_roots"]) == 2
    np.testing.assert_array_equal(roots[2], roots[1])


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_a_quantised_matrix_keeps_its_diagonal_and_its_bound_and_moves_by_less_than_a_step(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 40))
    exact = np.float32(x @ x.swapaxes(1, 2) * np.array([1e-15, 1, 1e15])[:, None, None])
    stored = jax.jit(lambda m: quantised(m, dtype))(arrays(exact))
    back = np.asarray(dequantised(stored))
    diagonal = np.diagonal(exact, axis1=1, axis2=2)
    np.testing.assert_array_equal(np.diagonal(back, axis1=1, axis2=2), diagonal)
    np.testing.assert_array_equal(back, back.swapaxes(1, 2))
    grid = np.asarray(stored.scale)[:, None, None] * np.sqrt(diagonal[:, :, None] * diagonal[:, None]) / levels(dtype)
    assert np.all(np.abs(back - exact) <= 0.501 * grid + 1e-6 * np.abs(exact))
    assert stored.off.dtype == dtype
    # A tenth of a step is added in one of ten roundings.
    draw = jax.jit(jax.vmap(lambda key: dequantised(quantised(arrays(exact), dtype, key))))(jr.split(jr.key(0), 400))
    assert np.all(np.abs(np.mean(draw, axis=0) - exact) <= 0.15 * grid + 1e-6 * np.abs(exact))
    np.testing.assert_array_equal(draw, np.swapaxes(draw, 2, 3))


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_quantised_statistics_stay_within_their_bound_of_the_whole_ones_and_their_roots_are_found(dtype):
    shapes = {"w": (8, 8)}
    config = OptimConfig(**BASE | {"statistics": dtype, "block": 8})
    gradients = drawn_gradients(12, shapes)
    tx = scale_by_shampoo(config)
    state, update = tx.init(arrays(gradients[0])), jax.jit(tx.update)
    exact, bound, b2 = np.zeros((8, 8)), np.zeros((8, 8)), config.beta2
    for g in gradients:
        steps, state = update(arrays(g), state)
        exact = b2 * exact + (1 - b2) * g["w"] @ g["w"].T
        left = state.factors["w"].statistics[0]
        sizes = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        bound = b2 * bound + float(left.scale[0]) * sizes / levels(dtype)
        assert np.all(np.abs(np.asarray(dequantised(left))[0] - exact) <= 1.001 * bound + 1e-6 * sizes)
        assert np.linalg.eigvalsh(np.float64(shrunk(left, b2)[0]))[0] > 0
    assert int(state.failed) == 0
    plain = plain_shampoo([g["w"] for g in gradients], config, ((8,), (8,)))[-1]
    cosine = np.sum(plain * steps["w"]) / np.linalg.norm(plain) / np.linalg.norm(steps["w"])
    assert cosine > {"int8": 0.95, "int16": 0.999}[dtype]


def test_a_stack_of_layers_is_grafted_layer_by_layer():
    stack = filled(lambda key: Stack(lambda key: Projection(4, 4, key=key), 2, key=key))
    params = {"stack": eqx.filter(stack, eqx.is_inexact_array)}
    rng = np.random.default_rng(0)
    config = OptimConfig(**BASE | {"graft_steps": 0, "ridge": 1e-4})
    tx = scale_by_shampoo(config)
    update, state, gradients, steps = jax.jit(tx.update), tx.init(params), [], []
    for _ in range(3):
        gradients.append(jax.tree.map(lambda x: jnp.asarray(np.float32(rng.normal(size=x.shape))), params))
        found, state = update(gradients[-1], state)
        steps.append(np.asarray(found["stack"].blocks.weight))
    for layer in (0, 1):
        plain = plain_shampoo([np.float64(g["stack"].blocks.weight[layer]) for g in gradients], config, ((4,), (4,)))
        np.testing.assert_allclose([step[layer] for step in steps], plain, rtol=5e-3, atol=5e-3)


def test_each_device_computes_its_share_of_the_roots():
    mesh = jax.sharding.AbstractMesh((2, 4, 1, 1, 1, 1), AXES, axis_types=(jax.sharding.AxisType.Auto,) * 6)
    stacks = [jax.ShapeDtypeStruct((count, 6, 6), jnp.float32) for count in (7, 6)]
    program = jax.make_jaxpr(lambda *stacks: shared_roots(list(stacks), [4, 4], 1e-6, mesh))(*stacks).jaxpr
    named = lambda jaxpr, name: [equation for equation in jaxpr.eqns if equation.primitive.name == name]
    (shared,) = named(program, "shard_map")
    assert not named(program, "while")
    assert [x.aval.shape for x in shared.invars][-1] == (16, 6, 6), "13 matrices and 3 to fill up"
    (newton,) = named(shared.params["jaxpr"], "while")
    assert (2, 6, 6) in [x.aval.shape for x in newton.outvars]


def test_it_goes_with_players_averages_micro_batches_loss_scales_spikes_and_resumes_bit_for_bit():
    def loss(model, batch, keys, context):
        made = jnp.tanh(batch["x"] @ model["a"]) @ model["b"]
        return Sums(batch["weight"] @ jnp.mean((made - batch["x"]) ** 2, axis=1), jnp.sum(batch["weight"]), {})

    optim = OptimConfig(**BASE | {"learning_rate": 0.01, "warmup": 0, "decay": "constant", "every": 2})
    config = TrainConfig(batch_size=4, precision="float16", accumulate=2, skip_spikes=3.0, spike_window=4, optim=optim)
    core = Program(
        init=lambda key: dict(zip("ab", jr.normal(key, (2, 6, 6)) / 2)),
        turns={"main": Turn(loss, ("first", "second"))},
        shapes={"x": ((6,), "float32")},
        players={"first": Player("a"), "second": Player("b", dataclasses.replace(optim, statistics="int8"))},
    )
    setup = Setup.of(config, core, make_mesh("", jax.devices()[:1]), on_cpu=True)
    step, first = make_step(setup), sharded_state(setup, jr.key(0))

    def on(state, numbers):
        metrics = {}
        for number in numbers:
            x = np.random.default_rng(number).normal(size=(4, 6)) * (30 if number == 7 else 1)
            batch = {"x": np.float32(x), "index": np.arange(4, dtype=np.int32), "weight": np.ones(4, np.float32)}
            state, metrics = step(Inputs(batch, jr.key(1)), state)
        return state, metrics

    middle, _ = on(first, range(6))
    held = jax.tree.map(np.array, to_save(middle))  # copies: the step takes the memory over
    last, metrics = on(middle, range(6, 10))
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if eqx.is_array(x) else x, last)
    again, _ = on(restored(template, jax.tree.map(jnp.asarray, held)), range(6, 10))
    assert eqx.tree_equal(jax.tree.map(np.asarray, to_save(last)), jax.tree.map(np.asarray, to_save(again)))
    spikes, skipped = int(metrics["spikes"]), int(metrics["skipped"])
    assert skipped >= spikes >= 1
    assert int(metrics["first_failed_roots"]) == int(metrics["second_failed_roots"]) == 0
    assert int(last.opt_state["first"][1].made) == 10 - skipped > 4, "roots have been computed"
    assert held["opt_state.second.1.factors.b.statistics.0.off"].dtype == np.int8
    moved = [np.abs(np.asarray(held[f"model.{name}"]) - np.asarray(held[f"ema.0.{name}"])).max() for name in "ab"]
    assert min(moved) > 0
