"""Several updates in one call: on one device the numbers of single steps, bit for bit."""

import dataclasses
import signal

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import pytest

from tests.full import full
from tests.train.small_runs import metrics, same, tiny, weights
from tests.train.test_players import MESH, batch, of_examples, program
from train import maskgit
from train._errors import UsageError
from train.config.optim import EmaConfig
from train.engine.recipe import Player, Turn
from train.engine.scan import Span, kinds, make_scan, several, spans
from train.engine.step import Inputs, Setup, make_step, sharded_state
from train.optim.ema import averages
from train.precision import Policy
from train.report.log import Log


def drawn_loss(name: str, scale: float = 1.0):
    """Quadratic in one parameter, with a draw for each example."""

    def loss(model, batch, keys, context):
        noise = jax.vmap(jr.normal)(keys)
        value = model["c"]["weight"] if name == "c" else model[name]
        found = of_examples(lambda model, x, _: scale * value * x)(model, batch, keys, context)
        return found._replace(loss=found.loss + batch["weight"] @ (noise * value * value))

    return loss


PLAYERS = {"first": Player("a"), "second": Player(("b", "c"))}
TURNS = {
    "one": {"main": Turn(drawn_loss("a"), ("first", "second"))},
    "lazy": {
        "main": Turn(drawn_loss("a"), ("first",)),
        "lazy": Turn(drawn_loss("b"), ("second",), every=2),
        "rare": Turn(drawn_loss("c", 3.0), ("second",), every=3),
    },
}
UPDATES = 6


def setup_of(name: str, policy: str) -> Setup:
    core = program(TURNS[name], players=PLAYERS)
    adam = {player: optax.adam(0.1) for player in PLAYERS}
    return Setup(core, adam, averages(EmaConfig(decay=0.5), 4), MESH, Policy.parse(policy, on_cpu=True), 2)


@pytest.mark.parametrize("policy", [pytest.param("float32", marks=full), "float16"])
@pytest.mark.parametrize("name", TURNS)
def test_updates_in_one_call_are_those_of_single_steps(name, policy):
    setup = setup_of(name, policy)
    batches = [batch(x=np.arange(1.0, 5.0, dtype=np.float32) * (step + 1)) for step in range(UPDATES)]
    batches[2]["x"] = batches[2]["x"] * np.float32(np.inf)  # an update that is skipped
    state, latest = sharded_state(setup, jr.key(0)), {}
    steps = {due: make_step(setup, due) for due in kinds(setup.program)}
    for step in range(UPDATES):
        state, found = steps[setup.program.due(step)](Inputs(batches[step], jr.key(1)), state)
        latest |= found
    scan, scanned, seen = make_scan(setup), sharded_state(setup, jr.key(0)), {}
    for start in range(0, UPDATES, 3):
        stacked = {key: np.stack([each[key] for each in batches[start : start + 3]]) for key in batches[0]}
        given = several(setup.program, Span(start, 3), Inputs(stacked, jr.key(1)), seen)
        scanned, found = scan(given, scanned)
        seen |= found
    assert int(state.skipped["main"].total) >= 1
    for x, y in zip(jax.tree.leaves(eqx.filter(state, eqx.is_array)), jax.tree.leaves(scanned)):
        np.testing.assert_array_equal(x, y)
    assert {key: float(x) for key, x in latest.items()} == {key: float(x) for key, x in seen.items()}


@pytest.mark.parametrize(
    ("first", "last", "scan", "changes", "counts"),
    [
        (0, 7, 3, (), [3, 3, 1]),
        (0, 4, 1, (), [1, 1, 1, 1]),
        (2, 9, 3, (), [1, 3, 3]),  # resumed between two
        (0, 2, 3, (), [1, 1]),
        (0, 9, 3, (0, 6), [3, 3, 3]),  # a change before the first of a call
        (0, 9, 3, (4,), [3, 1, 1, 1, 3]),  # and before another step
    ],
)
def test_calls_begin_at_multiples_and_the_rest_are_single_steps(first, last, scan, changes, counts):
    found = list(spans(first, last, scan, lambda step: step in changes))
    assert [span.count for span in found] == counts
    assert [span.start for span in found] == [first + sum(counts[:number]) for number in range(len(counts))]


OPTIONS = {"steps": 17, "log_every": 3, "checkpoint_every": 3, "evals": ("none",), "accumulate": 2}


@pytest.mark.usefixtures("shared_data")
def test_a_run_is_the_same_with_it_and_resumes_between_two_calls(tmp_path, monkeypatch):
    plain, scanned = (tiny(tmp_path / name, **OPTIONS) for name in ("plain", "scanned"))
    assert maskgit.RECIPE.main(plain) == 0
    compiled, say = [], Log.say
    monkeypatch.setattr(Log, "say", lambda self, line: (compiled.append(line), say(self, line)))

    def interrupted(self, step, values):
        metric(self, step, values)
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    metric = Log.metrics
    with monkeypatch.context() as patch:  # single steps, and a signal that is answered within a few
        patch.setattr(Log, "metrics", interrupted)
        assert maskgit.RECIPE.main(dataclasses.replace(scanned, log_every=1)) == 130
    compiled.clear()
    assert maskgit.RECIPE.main(dataclasses.replace(scanned, scan=3)) == 0
    assert sum(line.startswith("compiling 3 steps in one call") for line in compiled) == 1
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "scanned"))
    assert metrics(tmp_path / "plain")[-1] == metrics(tmp_path / "scanned")[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_every": 4}, "scan must divide log_every: got scan=3, log_every=4; give 1, or another period"),
        ({"scan": 4, "log_every": 6}, "scan=4, log_every=6; give 2"),
        ({"sample_every": 7}, "scan must divide sample_every"),
        ({"evals": ("held_out:5",)}, "scan must divide the period of evals held_out: got scan=3"),
        ({"profile": "2:3"}, "scan must divide the first step of profile"),
        ({"profile": "3:2"}, "scan must divide the count of profile"),
        ({"scan": 0}, "scan must be at least 1: got 0"),
    ],
)
def test_periods_between_two_calls_are_refused(tmp_path, changes, message):
    with pytest.raises((UsageError, ValueError), match=message):
        tiny(tmp_path, **{**OPTIONS, "scan": 3, **changes})


@pytest.mark.parametrize(
    "changes", [{"eval_every": 7}, {"sample_every": 500}, {"evals": ("held_out:50",)}, {"log_every": 17}]
)
def test_a_period_that_the_run_does_not_reach_or_that_no_evaluator_reads_is_no_hindrance(tmp_path, changes):
    assert tiny(tmp_path, **{**OPTIONS, "scan": 3, **changes}).scan == 3


@pytest.mark.usefixtures("shared_data")
def test_the_dry_run_compiles_the_call(tmp_path, capsys):
    assert maskgit.RECIPE.main(tiny(tmp_path, **OPTIONS, scan=3, dry_run=True)) == 0
    assert "updates in one call      3" in capsys.readouterr().out
