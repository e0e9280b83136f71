"""The classifier recipe: a convolutional net with batch norm, as runs of the loop and as a released model."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import train
from eqxgen.configs import ResNetConfig
from eqxgen.models import ResNet
from eqxgen.nn import WithState
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from train import classify, sample
from train._errors import UsageError
from train.config.base import parse
from train.data import load

SIZES = ResNetConfig(width=8, multipliers=(1, 2), blocks=1, dropout=0.1)


def config_of(folder, **changes):
    values = {"steps": 6, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, "model": SIZES}
    return dataclasses.replace(classify.PRESETS["digits"], run_dir=str(folder), **values | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify") / "whole"
    assert classify.main(config_of(folder, sample_every=6)) == 0
    return folder


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, tmp_path, monkeypatch):
    crashed_and_resumed(classify, config_of(tmp_path, sample_every=6), 3, monkeypatch)
    assert same(weights(whole), weights(tmp_path))
    assert metrics(whole) == metrics(tmp_path)


def test_the_released_model_has_its_statistics_and_the_accuracy_of_the_summary(whole):
    model, data = train.load(whole / "model.safetensors"), load(config_of(whole).data)
    assert isinstance(model, WithState)
    assert isinstance(model.model, ResNet)
    assert all(np.any(np.asarray(state.mean) != 0) for state in model.state)
    guesses = np.argmax(jax.jit(jax.vmap(model))(data.normalise(data.test_images)), axis=-1)
    summary = json.loads((whole / "summary.json").read_text())
    assert np.mean(guesses == data.test_labels) == pytest.approx(summary["eval_accuracy"])
    assert summary["eval_loss"] > 0


def test_pictures_are_held_out_images_by_predicted_class(whole, tmp_path):
    assert list((whole / "samples").glob("*.png"))
    assert sample.main(words(run=whole, out=tmp_path / "sevens.png", label=7)) == 0
    assert (tmp_path / "sevens.png").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--label-smoothing", "1"], r"label_smoothing must be in \[0, 1\): got 1"),
        (["--model.multipliers", "0"], "model.multipliers must be one or more integers of at least 1: got"),
        (["--model.blocks", "0"], "model.blocks must be"),
        (["--evals", "classifier"], "evals must be of labels, none: got .classifier."),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(flags, says):
    with pytest.raises(UsageError, match=says):
        parse("classify", classify.Config, classify.PRESETS, "", flags)
