"""AdaBelief, Sophia-H and LARS against their published formulas in float64, and Sophia's estimate against the Hessian."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.arrays import drawn
from train._errors import UsageError
from train.config.base import TrainConfig, parse
from train.config.optim import OptimConfig
from train.engine.recipe import Program, Sums
from train.engine.step import Inputs, Setup, make_step, sharded_state
from train.optim import failures, optimiser
from train.optim.sophia import hutchinson
from train.parallel import make_mesh

RATE, DECAY, STEPS = 0.1, 0.2, 5
SHAPES = {"w": (3, 4), "b": (4,)}


def tree(of):
    return {name: np.asarray(of(shape), np.float64) for name, shape in SHAPES.items()}


def moved(config, gradients, start, **extra):
    """The parameters after each update."""
    tx, params = optimiser(config, STEPS), jax.tree.map(lambda x: jnp.asarray(np.float32(x)), start)
    state, found = tx.init(params), []

    @jax.jit
    def update(gradient, state, params):
        steps, state = tx.update(gradient, state, params, **extra)
        return jax.tree.map(jnp.add, params, steps), state

    for gradient in gradients:
        params, state = update(jax.tree.map(lambda x: jnp.asarray(np.float32(x)), gradient), state, params)
        found.append(params)
    return found, state


def adabelief(gradients, params, config):
    """Zhuang et al. 2020, arXiv:2010.07468, algorithm 2, with decoupled decay of matrices."""
    m = s = 0.0
    for t, g in enumerate(gradients, 1):
        m = config.beta1 * m + (1 - config.beta1) * g
        s = config.beta2 * s + (1 - config.beta2) * (g - m) ** 2 + config.epsilon
        step = m / (1 - config.beta1**t) / (np.sqrt(s / (1 - config.beta2**t)) + config.epsilon)
        params = params - RATE * (step + DECAY * params * (params.ndim == 2))
        yield params


def lars(gradients, params, config):
    """You et al. 2017, arXiv:1708.03888, algorithm 1; vectors without λ and decay."""
    v = 0.0
    for g in gradients:
        norm, step = np.linalg.norm, g
        if params.ndim == 2:
            local = config.trust * norm(params) / (norm(g) + DECAY * norm(params))
            step = local * (g + DECAY * params)
        v = config.momentum * v + RATE * step
        params = params - v
        yield params


def sophia(gradients, params, config, diagonal):
    """Liu et al. 2023, arXiv:2305.14342, algorithm 3, with an estimate that is always `diagonal`."""
    m = h = 0.0
    for t, g in enumerate(gradients):
        m = config.beta1 * m + (1 - config.beta1) * g
        if t % config.every == 0:
            h = config.beta2 * h + (1 - config.beta2) * diagonal
        step = np.clip(m / np.maximum(config.gamma * h, config.epsilon), -1, 1)
        params = params - RATE * step - RATE * DECAY * params * (params.ndim == 2)
        yield params


@pytest.mark.parametrize("name", ["adabelief", "lars", "sophia"])
def test_a_rule_is_its_published_formula(name):
    rng = np.random.default_rng(0)
    config = OptimConfig(
        name=name,
        learning_rate=RATE,
        warmup=0,
        decay="constant",
        weight_decay=DECAY,
        clip=np.inf,
        epsilon=1e-6,
        every=2,
    )
    gradients = [tree(lambda shape: rng.normal(size=shape)) for _ in range(STEPS)]
    start, diagonal = tree(lambda shape: rng.normal(size=shape)), tree(lambda shape: 100 * rng.normal(size=shape))
    estimate = jax.tree.map(lambda x: jnp.asarray(np.float32(x)), diagonal)
    found, _ = moved(config, gradients, start, **({"curvature": lambda: estimate} if name == "sophia" else {}))
    for leaf in SHAPES:
        own = ([g[leaf] for g in gradients], start[leaf], config)
        plain = {"adabelief": adabelief, "lars": lars}.get(name)
        expected = plain(*own) if plain else sophia(*own, diagonal[leaf])
        for t, params in enumerate(expected):
            np.testing.assert_allclose(found[t][leaf], params, rtol=2e-5, atol=1e-6, err_msg=f"{leaf} at step {t}")


def test_sophia_needs_an_estimate_and_leaves_out_one_that_is_not_finite():
    config = OptimConfig(name="sophia", warmup=0, decay="constant", every=1)
    gradients = [tree(np.ones)] * 2
    with pytest.raises(ValueError, match="curvature must be given to the update of sophia: got None"):
        moved(config, gradients, tree(np.ones))
    bad = {name: jnp.asarray(np.full(shape, np.nan, np.float32)) for name, shape in SHAPES.items()}
    found, state = moved(config, gradients, tree(np.ones), curvature=lambda: bad)
    assert int(failures(state)["failed_curvatures"]) == 2
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((found, state)))


def test_the_estimate_is_the_diagonal_of_the_hessian_in_the_mean_over_signs():
    x = drawn((6, 6))
    matrix = x + x.T
    one = lambda key: hutchinson(lambda w: {"w": matrix @ w["w"]}, {"w": jnp.zeros(6)}, key)["w"]
    found = jax.jit(jax.vmap(one))(jr.split(jr.key(0), 4000))
    error = np.sqrt(np.sum(np.square(matrix - np.diag(np.diag(matrix))), axis=1) / 4000)  # Hutchinson's deviation
    assert np.all(np.abs(np.mean(found, axis=0) - np.diag(matrix)) < 4 * error)


def test_a_step_of_a_run_estimates_the_hessian_of_the_mean_loss_whatever_the_micro_batches():
    # Of a sum of squares each by itself, every sign gives the diagonal exactly: mean of x² over the batch.
    def loss(model, batch, keys, context):
        losses = jax.vmap(lambda x: jnp.sum((x * model["w"]) ** 2) / 2)(batch["x"])
        return Sums(batch["weight"] @ losses, jnp.sum(batch["weight"]), {})

    core = Program.of(lambda key: {"w": jnp.ones((2, 3))}, loss, {"x": ((2, 3), "float32")})
    x = drawn((4, 2, 3))
    batch = {"x": x, "index": np.arange(4, dtype=np.int32), "weight": np.float32([1, 1, 1, 0])}
    for accumulate, precision in (1, "float32"), (2, "float16"):
        config = TrainConfig(
            batch_size=4,
            precision=precision,
            accumulate=accumulate,
            optim=OptimConfig(name="sophia", every=2, beta2=0.5, warmup=0, decay="constant"),
        )
        setup = Setup.of(config, core, make_mesh("", jax.devices()[:1]), on_cpu=True)
        state, step, seen = sharded_state(setup, jr.key(0)), make_step(setup), []
        for _ in range(12):  # the first loss scales are too large for float16
            state, metrics = step(Inputs(batch, jr.key(1)), state)
            if len(seen) < 3 and not int(state.skipped["main"].consecutive):
                seen.append(np.asarray(state.opt_state["model"][1].hessian["w"]))
        exact = np.mean(np.square(x[:3]), axis=0)
        for found, share in zip(seen, (0.5, 0.5, 0.75), strict=True):
            np.testing.assert_allclose(found, share * exact, rtol=1e-5 if precision == "float32" else 2e-2)
        assert int(metrics["failed_curvatures"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--optim.graft sgd", "--optim.graft goes with --optim.name shampoo, which was not given"),
        ("--optim.block 64", "--optim.block goes with --optim.name soap or shampoo"),
        ("--optim.gamma 0.1 --optim.name soap", "--optim.gamma goes with --optim.name sophia"),
        ("--optim.name shampoo --optim.ridge 0", r"optim.ridge must be in \[1e-7, 1\)"),
        ("--optim.name shampoo --optim.root 0", r"optim.root must be in \[1, 16\]"),
        ("--optim.name shampoo --optim.graft-steps -1", "optim.graft_steps must be at least 0: got -1"),
        ("--optim.name shampoo --optim.statistics int4", "optim.statistics must be one of float32, int16, int8"),
        ("--optim.name lars --optim.trust 0", "optim.trust must be positive and finite: got 0"),
    ],
)
def test_an_option_of_another_optimiser_or_out_of_its_range_is_named(words, says):
    with pytest.raises(UsageError, match=says):
        parse("any", TrainConfig, {"digits": TrainConfig()}, "", words.split())
