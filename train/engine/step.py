"""One step: the turns that are due, split over the devices of a mesh."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from eqxgen import check_tree
from eqxgen.nn import force_weight_norm

from ..config.base import TrainConfig
from ..optim import failures, optimiser, shown
from ..optim.ema import Averages, averages
from ..optim.sophia import hutchinson
from ..parallel.rules import map_named, place
from ..precision import (
    DynamicLossScale,
    LossScale,
    NoLossScale,
    Policy,
    Skipped,
    SpikesSkipped,
    all_finite,
    choose,
    guarded_update,
    to_params,
)
from ..precision.scale import widen
from .gradients import mean_gradients
from .recipe import Context, Program, Turn

FULL = Policy()
MIXING = np.uint32(2**31)
"""What the key of a step's mixing is folded with: no number of a step or a turn."""
PROBE = np.uint32(2**32 - 1)
"""What the key of a turn is folded with for the probes of a Hessian: no number of an example."""


class State(eqx.Module):
    """State of a run, as a checkpoint holds it.

    Attributes:
        ema: averages of the model; samples use the first.
        opt_state: of each player.
        step: steps made, with or without an update.
        scale, skipped: loss scale and updates left out, of each turn.
        state: model state.
        averaged_state: averages of the model state, as `ema` of the model.
    """

    model: PyTree
    ema: tuple[PyTree, ...]
    opt_state: dict[str, PyTree]
    step: Array
    scale: dict[str, LossScale]
    skipped: dict[str, Skipped]
    state: PyTree = None
    averaged_state: tuple[PyTree, ...] = ()


class Inputs(NamedTuple):
    """Arguments of a step that it leaves as they are: a batch, the key of the run, the frozen parts."""

    batch: dict[str, Array]
    key: PRNGKeyArray
    frozen: PyTree = None


class Setup(NamedTuple):
    """A program, and how it is computed.

    Attributes:
        optimisers: of each player.
        accumulate: micro-batches in an update, one after another on each device.
        spikes: standard deviations and window of the guard against spikes; None: off.
    """

    program: Program
    optimisers: Mapping[str, optax.GradientTransformation]
    ema: Averages
    mesh: Mesh
    policy: Policy = FULL
    accumulate: int = 1
    spikes: tuple[float, int] | None = None

    @classmethod
    def of(cls, config: TrainConfig, program: Program, mesh: Mesh, *, on_cpu: bool) -> "Setup":
        """The setup of a config; `on_cpu` decides its precision `auto`."""
        optimisers = {
            name: optimiser(player.optim or config.optim, config.steps, *program.pace(name), mesh=mesh)
            for name, player in program.players.items()
        }
        ema, policy = averages(config.ema, config.batch_size), Policy.parse(config.precision, on_cpu=on_cpu)
        spikes = (config.skip_spikes, config.spike_window) if math.isfinite(config.skip_spikes) else None
        return cls(program, optimisers, ema, mesh, policy, config.accumulate, spikes)


def make_update(
    setup: Setup, due: tuple[str, ...] | None = None
) -> Callable[[tuple, State], tuple[State, dict[str, Array]]]:
    """The step of some turns, to be compiled: (inputs, state) -> (state, metrics).

    Args:
        due: names of the turns; by default those of step 0, which are all.
    """
    program, mesh = setup.program, setup.mesh
    turns = list(program.turns) if due is None else list(due)

    def update(inputs: tuple, state: State) -> tuple[State, dict[str, Array]]:
        inputs, claims = Inputs(*inputs), program.claims(state.model)
        if program.mix is not None:
            mix_key = jr.fold_in(jr.fold_in(inputs.key, MIXING), state.step)
            inputs = inputs._replace(batch=program.mix(inputs.batch, mix_key))
        kept = (state.model, state.opt_state, state.state)
        scale, skipped, metrics, made = dict(state.scale), dict(state.skipped), {}, []
        for name in turns:
            done, found = _take(name, setup, inputs, state, kept, claims)
            kept, scale[name], skipped[name] = done.kept, done.scale, done.skipped
            made.append(done.skipped.consecutive == 0)
            _add(metrics, found)
        model, opt_state, extra = kept
        averaged = (state.ema, state.averaged_state)
        shows = functools.reduce(lambda model, name: shown(model, opt_state[name], claims[name]), claims, model)
        moved = (
            setup.ema.update(state.ema, shows, state.step),
            setup.ema.update(state.averaged_state, extra, state.step),
        )
        ema, averaged_state = choose(jnp.any(jnp.stack(made)), moved, averaged)
        after = State(model, ema, opt_state, state.step + 1, scale, skipped, extra, averaged_state)
        return place(after, mesh), metrics

    return update


def _take(
    name: str, setup: Setup, inputs: Inputs, state: State, kept: tuple[PyTree, ...], claims: dict[str, PyTree]
) -> tuple[Any, dict[str, Array]]:
    """One turn from what the turns before it left: its guarded update, and its metrics under their full names."""
    program, mesh, turn = setup.program, setup.mesh, setup.program.turns[name]
    number = list(program.turns).index(name)
    key = jr.fold_in(inputs.key if number == 0 else jr.fold_in(inputs.key, np.uint32(2**32 - number)), state.step)
    moved = jax.tree.map(lambda *own: any(own), *(claims[player] for player in turn.players))
    model, _, extra = kept
    context, scale, policy = Context(extra, inputs.frozen, state.step), state.scale[name], setup.policy

    def gradients(model: PyTree, moved: PyTree) -> tuple[PyTree, dict[str, Array], PyTree]:
        given = (inputs.batch, key, mesh, policy, scale, setup.accumulate, moved, context, turn.whole)
        return mean_gradients(turn.loss, model, *given)

    grads, found, extra = gradients(model, moved)

    def counted(player: str, own: PyTree) -> PyTree:
        """The gradients of a player; those of a lazy turn times the number of steps between its updates."""
        lazy = turn.every > 1 and program.pace(player).share < 1
        return jax.tree.map(lambda g: turn.every * g, own) if lazy else own

    def curvature(player: str, own: PyTree) -> PyTree:
        """An estimate of the diagonal of the Hessian of the whole batch's mean loss, where the gradients were taken."""
        gradient = lambda own: counted(player, scale.unscale(gradients(eqx.combine(own, model), claims[player])[0]))
        return hutchinson(gradient, own, jr.fold_in(jr.fold_in(key, PROBE), list(claims).index(player)))

    def apply(grads: PyTree, kept: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
        before, opt_state, _ = kept
        model = before
        opt_state = dict(opt_state)
        for player in turn.players:
            own = counted(player, _part(grads, claims[player]))
            params = trainable(eqx.filter(model, claims[player]))
            tx = optax.with_extra_args_support(setup.optimisers[player])
            estimate = functools.partial(curvature, player, eqx.filter(before, claims[player]))
            updates, opt_state[player] = tx.update(own, opt_state[player], params, curvature=estimate)
            model = program.constrained(force_weight_norm(apply_updates(model, updates)))
        return model, opt_state, extra

    # State that is not finite counts as a loss that is not.
    loss = found["loss"] if extra is None else jnp.where(all_finite(extra), found["loss"], jnp.nan)
    done = guarded_update(apply, grads, loss, kept, scale, state.skipped[name])
    metrics = {
        "loss": found.pop("loss"),
        "grad_norm": optax.tree.norm(done.grads),
        "loss_scale": scale.factor,
        "skipped": done.skipped.total,
    }
    if isinstance(done.skipped, SpikesSkipped):
        metrics["spikes"] = done.skipped.spikes
    for player in turn.players:
        prefix = f"{player}_" if len(turn.players) > 1 else ""
        metrics |= {f"{prefix}{what}": count for what, count in failures(done.kept[1][player]).items()}
    if len(turn.players) > 1:
        metrics |= {
            f"{player}_grad_norm": optax.tree.norm(_part(done.grads, claims[player])) for player in turn.players
        }
    if number:
        metrics = {f"{name}_{metric}": value for metric, value in metrics.items()}
    return done, _add(metrics, found)


def moved_by(turn: Turn, claims: dict[str, PyTree], model: PyTree) -> PyTree:
    """The parameters that a turn moves."""
    return eqx.filter(model, jax.tree.map(lambda *own: any(own), *(claims[player] for player in turn.players)))


def _add(metrics: dict[str, Array], others: dict[str, Array]) -> dict[str, Array]:
    """The metrics with others in them, whose names must be new."""
    if same := metrics.keys() & others.keys():
        raise ValueError(f"metrics must have names of their own: got {min(same)!r} twice; rename one in Sums.metrics")
    metrics.update(others)
    return metrics


def _part(tree: PyTree, chosen: PyTree) -> PyTree:
    """The leaves that are chosen, of a tree that may have `None` in place of others."""
    return jax.tree.map(lambda chosen, x: x if chosen else None, chosen, tree, is_leaf=lambda x: x is None)


def make_step(setup: Setup, due: tuple[str, ...] | None = None) -> Callable:
    """`make_update`, compiled. It takes over the memory of the state it is given."""
    return eqx.filter_jit(make_update(setup, due), donate="all-except-first")


def trainable(params: PyTree) -> PyTree:
    """The parameters as the optimiser sees them: in float32 at least, however they are stored."""
    return jax.tree.map(widen, eqx.filter(params, eqx.is_inexact_array))


def apply_updates(model: PyTree, updates: PyTree) -> PyTree:
    """The model with the updates added in float32 at least, and stored in its own types."""
    add = lambda u, p: p if u is None else (widen(p) + u).astype(p.dtype)
    return jax.tree.map(add, updates, model, is_leaf=lambda x: x is None)


def init_state(model: PyTree, setup: Setup, start: Mapping[str, Array] | None = None) -> State:
    """The state before the first step: parameters in the policy's type, averages and the optimisers' state in float32
    at least.

    A float16 policy brings its loss scale along.

    Args:
        start: arrays in place of those of their paths, `model.*` and `state.*`.

    Raises:
        ValueError: a parameter has no player, or two; or the model has a fault of `eqxgen.check_tree`.
    """
    check_tree(model)
    program, claims = setup.program, setup.program.claims(model)
    replaced = lambda tree: map_named(lambda path, leaf: (start or {}).get(path, leaf), tree)
    model = replaced({"model": model})["model"]
    extra = replaced({"state": program.init_state(model)})["state"]
    model = to_params(setup.policy, model)
    ema = setup.ema.init(jax.tree.map(lambda x: widen(x) if eqx.is_inexact_array(x) else x, model))
    scale = DynamicLossScale if setup.policy.needs_scale else NoLossScale
    return State(
        model,
        ema,
        {name: tx.init(trainable(eqx.filter(model, claims[name]))) for name, tx in setup.optimisers.items()},
        jnp.zeros((), jnp.int32),
        {name: scale() for name in program.turns},
        {name: SpikesSkipped(*setup.spikes) if setup.spikes else Skipped() for name in program.turns},
        extra,
        setup.ema.init(extra),
    )


def abstract_state(setup: Setup) -> State:
    """The shapes, types and places of a run's state; nothing is computed."""
    return place(eqx.filter_eval_shape(lambda key: init_state(setup.program.init(key), setup), jr.key(0)), setup.mesh)


def sharded_state(setup: Setup, key: PRNGKeyArray, start: Mapping[str, Array] | None = None) -> State:
    """The state before the first step, each device making its own part: no device ever holds a model that is larger
    than it. See `init_state`.
    """
    make = lambda key, start: place(init_state(setup.program.init(key), setup, start), setup.mesh)
    return eqx.filter_jit(make, **_once(setup.mesh))(key, dict(start or {}))


def _once(mesh: Mesh) -> dict[str, Any]:
    """Options of a program that runs once. On a CPU the hundred draws of a model took longer to optimise than to run: a
    U-Net's 38 s to compile fall to 15, an autoencoder's 28 to 5, with the same bits.
    """
    named = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    plain = mesh.devices.flat[0].platform != "cpu" or named
    return {} if plain else {"compiler_options": {"xla_backend_optimization_level": 1}}


@eqx.filter_jit
def changed(change: Callable, inputs: Inputs, state: State, mesh: Mesh) -> State:
    """The state after a change without a gradient, if all of it is finite. The averages follow what it moves."""
    context = Context(state.state, inputs.frozen, state.step)
    before = (state.model, state.state)
    after = change(state.model, inputs.batch, inputs.key, context)
    after = choose(all_finite(after), after, before)
    # An average that lingers at a code's old place would undo its move.
    follow = lambda old, new, ema: jnp.where(new != old, new, ema) if eqx.is_inexact_array(new) else ema
    averaged = tuple(
        jax.tree.map(follow, before, after, average) for average in zip(state.ema, state.averaged_state, strict=True)
    )
    ema, averaged_state = zip(*averaged, strict=True)
    after = dataclasses.replace(state, model=after[0], ema=ema, state=after[1], averaged_state=averaged_state)
    return place(after, mesh)
