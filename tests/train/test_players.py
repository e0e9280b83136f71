"""The contract of a recipe: players, turns, changes, model state and frozen parts, by closed forms on small programs."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqxgen.configs import EDM2Config
from eqxgen.models import EDM2UNet
from eqxgen.nn import MagnitudePreserving
from tests.full import full
from train.config.base import TrainConfig
from train.config.optim import EmaConfig, OptimConfig
from train.engine.recipe import Change, Context, Player, Program, Sums, Turn
from train.engine.step import Inputs, Setup, changed, make_step, make_update, sharded_state
from train.optim import optimiser
from train.optim.ema import averages
from train.parallel import make_mesh
from train.precision import Policy

ROWS = 4
MESH = make_mesh("", jax.devices()[:1])
KEY = jax.random.key(1)


def model(key: Any = None) -> dict[str, Any]:
    return {"a": jnp.float32(1.0), "b": jnp.float32(2.0), "c": {"weight": jnp.float32(3.0)}}


def batch(**arrays: Any) -> dict[str, np.ndarray]:
    values = {"x": np.arange(1.0, 1 + ROWS, dtype=np.float32), "weight": np.ones(ROWS, np.float32)}
    return values | {"index": np.arange(ROWS, dtype=np.int32)} | arrays


def of_examples(each):
    """A loss from one of each example: (model, x, context) -> number."""

    def loss(model, batch, keys, context):
        losses = jax.vmap(lambda x: each(model, x, context))(batch["x"])
        return Sums(batch["weight"] @ losses, jnp.sum(batch["weight"]), {})

    return loss


def program(turns, **others) -> Program:
    values: dict[str, Any] = {"players": {"model": Player()}, "init": model} | others
    return Program(turns=turns, shapes={"x": ((), "float32")}, **values)


def setup_of(core: Program, rates: dict[str, float] | float = 0.1, accumulate: int = 1) -> Setup:
    rates = rates if isinstance(rates, dict) else dict.fromkeys(core.players, rates)
    optimisers = {name: optax.sgd(rate) for name, rate in rates.items()}
    return Setup(core, optimisers, averages(EmaConfig(decay=0.5), ROWS), MESH, Policy(), accumulate)


def after(core: Program, steps: int = 1, setup: Setup | None = None, frozen: Any = None, **arrays: Any):
    """The state and the metrics after some steps."""
    setup = setup or setup_of(core)
    state, metrics = sharded_state(setup, jax.random.key(0)), {}
    for step in range(steps):
        state, metrics = make_step(setup, core.due(step))(Inputs(batch(**arrays), KEY, frozen), state)
    return state, metrics


ab = {"first": Player("a"), "second": Player(("b", "c"))}


def test_players_of_one_turn_have_optimisers_of_their_own():
    loss = of_examples(lambda m, x, _: x * m["a"] + 2 * m["b"] + 3 * m["c"]["weight"])
    core = program({"main": Turn(loss, ("first", "second"))}, players=ab)
    state, metrics = after(core, setup=setup_of(core, {"first": 0.1, "second": 0.01}))
    np.testing.assert_allclose(state.model["a"], 1 - 0.1 * 2.5, rtol=1e-6)
    np.testing.assert_allclose(state.model["b"], 2 - 0.01 * 2, rtol=1e-6)
    np.testing.assert_allclose(state.model["c"]["weight"], 3 - 0.01 * 3, rtol=1e-6)
    assert set(state.opt_state) == {"first", "second"}
    np.testing.assert_allclose(metrics["first_grad_norm"], 2.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["second_grad_norm"], 13**0.5, rtol=1e-6)


def test_the_clip_of_a_player_sees_its_own_gradient_alone():
    loss = of_examples(lambda m, x, _: 100 * m["a"] + 0.5 * m["b"] + 0 * m["c"]["weight"])
    core = program({"main": Turn(loss, ("first", "second"))}, players=ab)
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    setup = setup_of(core)._replace(optimisers=dict.fromkeys(ab, clipped))
    state, _ = after(core, setup=setup)
    np.testing.assert_allclose([state.model["a"], state.model["b"]], [1 - 1.0, 2 - 0.5], rtol=1e-6)


def test_of_two_turns_the_second_sees_the_update_of_the_first_and_moves_its_players_alone():
    first = Turn(of_examples(lambda m, x, _: m["a"] ** 2 / 2), ("first",))
    second = Turn(of_examples(lambda m, x, _: m["a"] * m["b"] + 0 * m["c"]["weight"]), ("second",))
    state, metrics = after(program({"one": first, "two": second}, players=ab), steps=1)
    np.testing.assert_allclose(state.model["a"], 0.9, rtol=1e-6)
    np.testing.assert_allclose(state.model["b"], 2 - 0.1 * 0.9, rtol=1e-6)
    np.testing.assert_allclose([metrics["loss"], metrics["two_loss"]], [0.5, 0.9 * 2], rtol=1e-6)
    assert {"two_grad_norm", "two_skipped", "two_loss_scale"} <= metrics.keys()


def test_a_turn_runs_at_the_multiples_of_its_period_and_counts_as_many_times_there():
    main = Turn(of_examples(lambda m, x, _: m["a"]))
    lazy = Turn(of_examples(lambda m, x, _: m["b"]), every=4)
    core = program({"main": main, "lazy": lazy})
    assert [core.due(step) for step in range(5)] == [("main", "lazy"), *[("main",)] * 3, ("main", "lazy")]
    moved = [float(after(core, steps)[0].model["b"]) for steps in (1, 4, 5)]
    np.testing.assert_allclose(moved, [2 - 0.4, 2 - 0.4, 2 - 0.8], rtol=1e-6)


def test_a_lazy_turn_corrects_rate_and_betas_and_stretches_the_schedule():
    core = program({"main": Turn(of_examples(lambda m, x, _: m["a"])), "lazy": Turn(main_of_b, every=4)})
    pace = core.pace("model")
    assert pace == pytest.approx((1.25, 0.8))
    config = OptimConfig(name="sgd", momentum=0.0, learning_rate=1.0, warmup=0, decay="linear", clip=1e9)
    config = dataclasses.replace(config, weight_decay=0.0)
    tx = optimiser(config, 100, *pace)
    state = tx.init(jnp.float32(0.0))
    for _ in range(50):
        update, state = tx.update(jnp.float32(1.0), state, jnp.float32(0.0))
    # The 50th update, of step 49 / 1.25, has the rate of that step times 4 / 5.
    np.testing.assert_allclose(update, -0.8 * (1 - 49 / 1.25 / 100), rtol=1e-5)
    adam = optimiser(dataclasses.replace(config, name="adamw", decay="constant"), 100, *pace)
    _, moments = adam.update(jnp.float32(1.0), adam.init(jnp.float32(0.0)), jnp.float32(0.0))
    found = [leaf for leaf in jax.tree.leaves(moments) if leaf.shape == () and leaf.dtype == jnp.float32]
    np.testing.assert_allclose(found, [1 - 0.9**0.8, 1 - 0.96**0.8], rtol=1e-5)


main_of_b = of_examples(lambda m, x, _: m["b"])
small_of_b = of_examples(lambda m, x, _: 0.01 * x * m["b"])


def test_a_player_that_lazy_turns_alone_move_is_not_corrected_and_its_schedule_counts_steps():
    core = program(
        {"main": Turn(of_examples(lambda m, x, _: m["a"]), ("first",)), "slow": Turn(main_of_b, ("second",), every=5)},
        players=ab,
    )
    assert core.pace("second") == pytest.approx((0.2, 1.0))
    np.testing.assert_allclose(after(core)[0].model["b"], 2 - 0.1, rtol=1e-6)


def counting(model, batch, keys, context):
    """The mean of x as the state's, over all devices, each batch half; the loss is the parameter times it."""
    weight = context.sum(jnp.sum(batch["weight"]))
    mean = context.sum(batch["weight"] @ batch["x"]) / weight
    state = {"mean": (context.state["mean"] + jax.lax.stop_gradient(mean)) / 2, "seen": context.state["seen"] + 1}
    return Sums(batch["weight"] @ (model["a"] * batch["x"]), jnp.sum(batch["weight"]), {}, state)


STATEFUL: dict[str, Any] = {"init_state": lambda model: {"mean": jnp.float32(0.0), "seen": jnp.int32(0)}}


def test_model_state_goes_from_step_to_step_and_its_average_along_with_the_weights():
    core = program({"main": Turn(counting)}, **STATEFUL)
    first, second = after(core)[0], after(core, 2)[0]
    assert (int(first.state["seen"]), int(second.state["seen"])) == (1, 2)
    np.testing.assert_allclose([first.state["mean"], second.state["mean"]], [1.25, 1.875])
    # 1 - β is 9/10, then 9/11, as for the weights.
    expected = 0.9 * 1.25 + 9 / 11 * (1.875 - 0.9 * 1.25)
    np.testing.assert_allclose(second.averaged_state[0]["mean"], expected, rtol=1e-6)
    assert int(second.averaged_state[0]["seen"]) == 2


def test_model_state_goes_through_the_micro_batches_in_order():
    core = program({"main": Turn(counting)}, **STATEFUL)
    state, _ = after(core, setup=setup_of(core, accumulate=4))
    assert int(state.state["seen"]) == 4
    np.testing.assert_allclose(state.state["mean"], 1 / 16 + 2 / 8 + 3 / 4 + 4 / 2)


def test_an_update_that_is_not_finite_leaves_its_turns_players_and_the_model_state_and_no_others():
    bad = Turn(counting, ("first",))
    good = Turn(of_examples(lambda m, x, _: m["b"]), ("second",))
    core = program({"bad": bad, "good": good}, players=ab, **STATEFUL)
    setup = setup_of(core)
    state = sharded_state(setup, jax.random.key(0))
    before = jax.tree.map(np.asarray, (state.model["a"], state.opt_state["first"], state.state))
    state, metrics = make_step(setup)(Inputs(batch(x=np.float32([1, np.inf, 3, 4])), KEY), state)
    assert eqx.tree_equal(before, jax.tree.map(np.asarray, (state.model["a"], state.opt_state["first"], state.state)))
    np.testing.assert_allclose(state.model["b"], 1.9)
    assert (int(metrics["skipped"]), int(metrics["good_skipped"])) == (1, 0)
    assert (int(state.skipped["bad"].total), int(state.skipped["good"].total)) == (1, 0)


def test_state_that_is_not_finite_is_never_kept():
    def loss(model, batch, keys, context):
        return Sums(jnp.sum(model["a"] * batch["x"]), jnp.sum(batch["weight"]), {}, {"p": jnp.float32(jnp.nan)})

    core = program({"main": Turn(loss)}, init_state=lambda model: {"p": jnp.float32(7.0)})
    state, metrics = after(core)
    assert (float(state.state["p"]), float(state.model["a"]), int(metrics["skipped"])) == (7.0, 1.0, 1)


def test_each_turn_has_a_loss_scale_of_its_own():
    def loss(model, batch, keys, context):
        return Sums(jnp.sum(model["a"] * batch["x"] * jnp.float16(1e4)), jnp.sum(batch["weight"]), {})

    core = program({"large": Turn(loss, ("first",)), "small": Turn(small_of_b, ("second",))}, players=ab)
    setup = setup_of(core)._replace(policy=Policy.parse("float16"))
    state = sharded_state(setup, jax.random.key(0))
    for _ in range(2):
        state, _ = make_step(setup)(Inputs(batch(), KEY), state)
    assert float(state.scale["large"].factor) == 2.0**14
    assert float(state.scale["small"].factor) == 2.0**16


def test_frozen_parts_are_given_to_the_loss_and_are_no_part_of_the_state():
    core = program({"main": Turn(of_examples(lambda m, x, c: m["a"] * c.frozen["judge"]))}, frozen=lambda: FROZEN)
    state, _ = after(core, frozen=FROZEN)
    np.testing.assert_allclose(state.model["a"], 1 - 0.1 * 5)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
    assert not any("judge" in path for path in paths)


FROZEN = {"judge": jnp.float32(5.0)}


def test_the_loss_knows_the_step_and_parameters_that_are_fixed_do_not_move():
    core = program(
        {"main": Turn(of_examples(lambda m, x, c: m["a"] * c.step + m["b"]))},
        players={"model": Player("a")},
        fixed=("b", "c"),
    )
    state, _ = after(core, 3)
    np.testing.assert_allclose(state.model["a"], 1 - 0.1 * (0 + 1 + 2), rtol=1e-6)
    assert float(state.model["b"]) == 2.0


def test_a_change_moves_model_state_and_averages_and_none_where_it_is_not_finite():
    core = program({"main": Turn(counting)}, **STATEFUL)
    state = sharded_state(setup_of(core), jax.random.key(0))

    def change(value):
        return lambda model, batch, key, context: (model | {"a": value}, context.state | {"mean": jnp.float32(9.0)})

    inputs = Inputs(batch(), KEY)
    moved = changed(change(jnp.float32(5.0)), inputs, state, MESH)
    for tree in (moved.model["a"], moved.ema[0]["a"]):
        assert float(tree) == 5.0
    assert (float(moved.state["mean"]), float(moved.averaged_state[0]["mean"])) == (9.0, 9.0)
    kept = changed(change(jnp.float32(jnp.nan)), inputs, state, MESH)
    assert eqx.tree_equal(kept, state)


@dataclasses.dataclass
class Wrong:
    name: str
    make: Any
    message: str

    def __repr__(self):
        return self.name


MAIN = Turn(counting)
WRONG = [
    Wrong("turn of no step", lambda: Turn(counting, every=0), r"Turn\.every must be at least 1 step: got 0; 1 makes"),
    Wrong("turn without players", lambda: Turn(counting, ()), r"Turn\.players must name at least one player: got \(\)"),
    Wrong("no turn", lambda: program({}), r"Program\.turns must have at least one turn: got \{\}"),
    Wrong(
        "unknown player",
        lambda: program({"main": Turn(counting, ("modle",))}),
        r"Program\.turns\['main'\]\.players must be of model: got 'modle'; nearest: model",
    ),
    Wrong("lazy first turn", lambda: program({"main": Turn(counting, every=2)}), "first must be due at every step: got 'main'"),
    Wrong("idle player", lambda: program({"main": Turn(counting, ("first",))}, players=ab), r"players\['second'\] must have a turn"),
    Wrong(
        "pattern of nothing",
        lambda: program({"main": MAIN}, players={"model": Player(("**", "wieght"))}).claims(model()),
        r"Program\.players\['model'\]\.params: a path pattern must name something: got 'wieght'.*nearest: c\.weight",
    ),
    Wrong("fixed pattern of nothing", lambda: program({"main": MAIN}, fixed=("d",)).claims(model()), r"Program\.fixed: a path pattern"),
    Wrong(
        "two players of one parameter",
        lambda: program({"main": Turn(counting, ("x", "y"))}, players={"x": Player("**"), "y": Player("b")}).claims(model()),
        r"Program\.players\['y'\]\.params must leave the parameters of others: got b, which Program\.players\['x'\]",
    ),
    Wrong(
        "a fixed parameter with a player",
        lambda: program({"main": MAIN}, fixed=("b",)).claims(model()),
        r"Program\.fixed must leave the parameters of others: got b",
    ),
    Wrong(
        "parameter without a player",
        lambda: program({"main": MAIN}, players={"model": Player("a")}).claims(model()),
        r"Program\.players must have every parameter: got none for b and 1 more; widen",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=repr)
def test_a_program_that_cannot_be_is_an_error_of_one_line_before_anything_is_compiled(case):
    with pytest.raises(ValueError, match=case.message) as caught:
        case.make()
    assert "\n" not in str(caught.value)


def stated(state):
    """A loss that gives a state."""
    return lambda m, batch, keys, context: Sums(
        jnp.sum(m["a"] * batch["x"]), jnp.float32(4.0), {}, state(batch, context)
    )


TRACED = [
    ("Sums.state must have the structure of Context.state", stated(lambda batch, context: {"other": jnp.float32(0.0)})),
    ("Sums.state must keep shapes and types: p was .*f.*32.*, became .*3", stated(lambda batch, context: {"p": jnp.zeros(3)})),
    (
        "Sums.state must be the same on every device: p differs over data, fsdp, expert, pipeline; sum it by context.sum",
        stated(lambda batch, context: {"p": jnp.sum(batch["x"])}),
    ),
    (
        "metrics must have names of their own: got 'skipped' twice",
        lambda m, batch, keys, context: Sums(jnp.sum(m["a"] * batch["x"]), jnp.float32(4.0), {"skipped": jnp.sum(batch["x"])}),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "loss"), TRACED, ids=[message[:40] for message, _ in TRACED])
def test_sums_that_cannot_be_are_an_error_at_the_trace(message, loss):
    core = program({"main": Turn(loss)}, init_state=lambda model: {"p": jnp.float32(0.0)})
    setup = setup_of(core)
    state = sharded_state(setup, jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        eqx.filter_eval_shape(make_update(setup), Inputs(batch(), KEY), state)


def test_a_player_without_an_optimiser_of_its_own_has_the_runs():
    core = program({"main": Turn(counting, ("first", "second"))}, players={"first": Player("a"), "second": Player(("b", "c"), OptimConfig(name="lion"))}, **STATEFUL)  # fmt: skip
    state = sharded_state(Setup.of(TrainConfig(), core, MESH, on_cpu=True), jax.random.key(0))
    names = {player: {type(x).__name__ for x in jax.tree.leaves(tree, is_leaf=lambda x: hasattr(x, "mu"))} for player, tree in state.opt_state.items()}  # fmt: skip
    assert "ScaleByAdamState" in names["first"]
    assert "ScaleByLionState" in names["second"]


def test_context_on_one_device_sums_nothing():
    assert Context().sum(3) == 3
    assert Context().mean(3) == 3
    assert Change(lambda *_: None, lambda step: step == 2).due(2)


@full
def test_every_weight_of_edm2s_unet_keeps_its_magnitude_in_steps_of_the_optimiser():
    """Along their own direction, in which Adam would let them grow."""
    sizes = EDM2Config(4, (1,), blocks=1, attention=(0,), head_dim=4)
    forced = lambda net: [m for m in jax.tree.leaves(net, is_leaf=is_forced) if is_forced(m)]
    weights = lambda net: [m.layer.weight for m in forced(net)]

    def loss(net, batch, keys, context):
        return Sums(-sum(jnp.sum(w**2) + jnp.sum(w) for w in weights(net)), jnp.sum(batch["weight"]), {})

    core = program({"main": Turn(loss)}, init=lambda key: EDM2UNet(1, 3, sizes, key=key))
    config = TrainConfig(optim=OptimConfig(learning_rate=0.1, warmup=0))
    setup = Setup.of(config, core, MESH, on_cpu=True)
    state = sharded_state(setup, jax.random.key(0))
    before, step = [np.asarray(w) for w in weights(state.model)], make_step(setup)
    for _ in range(3):
        state, _ = step(Inputs(batch(), KEY), state)
    assert len(before) > 8
    for old, node in zip(before, forced(state.model), strict=True):
        weight = np.asarray(node.layer.weight)
        np.testing.assert_allclose(np.sqrt(np.mean(weight**2, axis=node.inner)), 1, atol=2e-3)
        assert np.abs(weight - old).max() > 0.05


def is_forced(node: Any) -> bool:
    return isinstance(node, MagnitudePreserving)
