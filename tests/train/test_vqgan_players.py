"""The VQGAN's players, lazy penalty and moving codebook, as runs of the loop."""

import dataclasses
import json

import jax
import pytest

from eqxgen.configs import VQGANConfig
from tests.full import full
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights
from train import vqgan
from train._errors import UsageError
from train.config.base import parse
from train.engine.step import Setup, sharded_state
from train.parallel import make_mesh
from train.tasks.facts import ImageFacts

SIZES = VQGANConfig(width=8, multipliers=(1,), blocks=1, latent_dim=4, codes=16)
ALL = {
    "adversarial": 0.1,
    "r1_every": 2,
    "model": dataclasses.replace(SIZES, codebook="ema"),
    "restart_every": 2,
}
"""Two players, a lazy penalty, and a moving codebook with restarts."""
FACTS = ImageFacts((8, 8, 1), 10, 17)


def config_of(folder, **changes):
    values = {"steps": 4, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, "model": SIZES}
    return dataclasses.replace(vqgan.PRESETS["digits"], run_dir=str(folder), evals=("none",), **values | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vqgan") / "whole"
    assert vqgan.main(config_of(folder, **ALL)) == 0
    return folder


@full
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, tmp_path, monkeypatch):
    crashed_and_resumed(vqgan, config_of(tmp_path, **ALL), 3, monkeypatch)
    assert same(weights(whole), weights(tmp_path))
    assert metrics(whole) == metrics(tmp_path)


def test_the_penalty_is_a_turn_of_its_own_every_so_many_steps():
    program = vqgan.program(config_of("unused", adversarial=0.1, r1_every=4), FACTS)
    assert [program.due(step) for step in range(5)] == [("main", "r1"), *[("main",)] * 3, ("main", "r1")]
    assert program.turns["main"].players == ("generator", "discriminator")
    assert program.turns["r1"].players == ("discriminator",)
    assert program.pace("discriminator").share == pytest.approx(4 / 5)
    every = vqgan.program(config_of("unused", adversarial=0.1, r1_every=1), FACTS)
    assert set(every.turns) == {"main"}


def test_each_player_has_an_optimiser_of_its_own():
    config = config_of("unused", adversarial=0.1)
    program = vqgan.program(config, FACTS)
    claims = program.claims(jax.eval_shape(program.init, jax.random.key(0)))
    both = [sum(map(bool, leaves)) for leaves in zip(*(jax.tree.leaves(claims[name]) for name in program.players))]
    assert set(both) == {1}
    setup = Setup.of(config, program, make_mesh("", jax.devices()[:1]), on_cpu=True)
    state = sharded_state(setup, jax.random.key(0))
    assert set(state.opt_state) == {"generator", "discriminator"}


@full
def test_a_moving_codebook_is_released_as_a_learned_one(whole):
    assert "quantizer.codebook" in weights(whole)
    assert json.loads((whole / "config.json").read_text())["config"]["model"]["codebook"] == "ema"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"r1_every": 0}, "r1_every must be at least 1: got 0"),
        ({"r1": -1.0}, "r1 must be at least 0 and finite: got -1.0"),
    ],
)
def test_numbers_out_of_their_range_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        config_of("unused", **changes)


def test_an_unknown_codebook_is_refused():
    with pytest.raises(ValueError, match=r"model\.codebook must be one of learned, ema: got 'moving'"):
        VQGANConfig(codebook="moving")


@pytest.mark.parametrize("flag", ["--r1-every 4", "--r1 1", "--discriminator.clip 2"])
def test_a_flag_that_a_run_without_a_discriminator_would_leave_unread_is_refused(flag):
    parsed = lambda line: parse("vqgan", vqgan.Config, vqgan.PRESETS, "", line.split())
    with pytest.raises(UsageError, match=f"{flag.split()[0]} goes with --adversarial above 0, which was not given"):
        parsed(flag)
    assert parsed(f"{flag} --adversarial 0.1").adversarial == 0.1


def test_a_pattern_of_the_discriminators_rates_names_its_flag():
    rates = vqgan.DiscriminatorConfig(rates=("nothing=2",))
    config = config_of("unused", adversarial=0.1, discriminator=rates)
    setup = lambda: Setup.of(config, vqgan.program(config, FACTS), make_mesh("", jax.devices()[:1]), on_cpu=True)
    with pytest.raises(UsageError, match=r"--discriminator\.rates"):
        sharded_state(setup(), jax.random.key(0))
