"""MUSE on pictures with texts: two stages, resuming, their samples, and wrong first stages."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import MaskedDecoding, MuseConfig, VQGANConfig
from tests.full import FULL, full
from tests.train.captioned_pictures import captioned_pictures
from tests.train.small_runs import crashed_and_resumed, same, weights, words
from train import muse, sample, vqgan
from train._errors import UserError
from train.config.base import to_dict
from train.config.data import DataConfig
from train.run.weights import save_model
from train.tasks.facts import ImageFacts
from train.tasks.low_tokens import shrunk

TINY = MuseConfig(
    dim=8, depth=1, decoder_depth=1, heads=1, head_dim=8, hidden_dim=8, context=8, dropout=0.1, low_depth=0
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return captioned_pictures(tmp_path_factory.mktemp("pictures"))


def tokenizer(folder, shape):
    """A run of an untrained tokenizer."""
    config = vqgan.Config(model=VQGANConfig(width=4, latent_dim=4, codes=5, multipliers=(1, 1), blocks=1))
    facts = ImageFacts(shape, 2)
    record = {"recipe": "vqgan", "config": to_dict(config), "facts": facts.to_record()}
    folder.mkdir()
    save_model(folder / "model.safetensors", vqgan.RECIPE.model(config, facts)(jr.key(0)), record)
    return str(folder)


def config_of(pictures, folder, **changes):
    values = {
        "steps": 2,
        "batch_size": 4,
        "log_every": 1,
        "sample_every": 0,
        "checkpoint_every": 1,
        "evals": ("held_out",),
        "data": DataConfig(name=str(pictures), image_size=4),
        "model": TINY,
        "decode": MaskedDecoding(steps=2, guidance=2.0),
    }
    return muse.Config(run_dir=str(folder), **values | changes)


@full
def test_two_stages_are_trained_resumed_and_sampled_by_text(pictures, tmp_path, monkeypatch):
    coarse = tokenizer(tmp_path / "coarse", (4, 4, 3))
    first, second = tmp_path / "first", tmp_path / "second"
    assert muse.main(config_of(pictures, first, tokenizer=coarse, evals=("none",), steps=1)) == 0
    staged = config_of(pictures, second, tokenizer="pixels", low_tokenizer=coarse)
    assert muse.main(staged) == 0
    facts = json.loads((second / "config.json").read_text())["facts"]
    assert {k: facts[k] for k in ("vocab", "text", "tokens", "low_tokens", "low_codes")} == {
        "vocab": 9, "text": 8, "tokens": 48, "low_tokens": 4, "low_codes": 5
    }  # fmt: skip
    if FULL:  # three more compilations
        again = dataclasses.replace(staged, run_dir=str(tmp_path / "again"))
        crashed_and_resumed(muse, again, 2, monkeypatch)
        assert same(weights(second), weights(tmp_path / "again"))
    shutil.rmtree(coarse)  # each run has its own copy
    asked = {"run": second, "text": "red", "n": 2}
    assert sample.main(words(**asked, low=first, out=tmp_path / "x.npz")) == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["images"].shape == (2, 4, 4, 3)
    changed = json.loads((first / "config.json").read_text())
    changed["facts"]["tokenizer"] = "0" * 64
    shutil.copytree(first, tmp_path / "changed")
    (tmp_path / "changed" / "config.json").write_text(json.dumps(changed))
    for message, low in {
        "--low must be the run of a first stage: .* is a second stage": {},
        "--low .*: must be a first stage: got a second stage": {"low": second},
        "--low .*: must have the tokens that .* was trained on": {"low": tmp_path / "changed"},
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            sample.main(words(**asked, **low, out=tmp_path / "y.npz"))
        assert "\n" not in str(caught.value)


def test_a_low_tokenizer_is_of_the_same_images_or_of_these_made_smaller_by_a_whole_number(
    pictures, tmp_path, monkeypatch
):
    early = lambda *_, **__: pytest.fail("tokens were made before the tokenizers were compared")
    monkeypatch.setattr("train.tasks.encoded.token_data.tokenized", early)
    wide = tokenizer(tmp_path / "wide", (4, 2, 3))
    for message, low in {
        r"--low-tokenizer .*: is for images of \(4, 2, 3\) .*, and those of .* are \(4, 4, 3\)": wide,
        "--low-tokenizer .*: has no model.safetensors": str(tmp_path / "none"),
    }.items():
        config = config_of(pictures, tmp_path / "run", tokenizer="pixels", low_tokenizer=low)
        with pytest.raises(UserError, match=message) as caught:
            muse.RECIPE.task(config, tmp_path / "run")
        assert "\n" not in str(caught.value)
    image = jnp.arange(16.0).reshape(4, 4, 1)
    assert shrunk(image, 2, 2)[..., 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_wrong_flags_are_one_line(tmp_path):
    flip = dataclasses.replace(DataConfig().augment, flip=True)
    for message, changes in {
        r"text_dropout must be in \[0, 1\): got 1": {"text_dropout": 1.0},
        "text_tokenizer must be chars, bytes, bpe-SIZE, or a path: got ' '": {"text_tokenizer": " "},
        "data.augment.flip must be off with low_tokenizer": {"low_tokenizer": "x", "data": DataConfig(augment=flip)},
        r"label_smoothing must be in \[0, 1\): got 1": {"label_smoothing": 1.0},
    }.items():
        with pytest.raises(ValueError, match=message):
            muse.Config(run_dir=str(tmp_path), **changes)


def test_facts_on_paper_have_the_tokens_of_both_stages():
    facts = muse.RECIPE.on_paper(muse.PRESETS["captioned_digits-super"])
    assert (facts.tokens, facts.low_tokens, facts.low_codes, facts.text) == (144, 36, 1024, 12)
    facts = muse.RECIPE.on_paper(muse.PRESETS["muse-super"])
    assert (facts.tokens, facts.low_tokens) == (4096, 256)
    wrong = dataclasses.replace(muse.PRESETS["muse-super"], low_tokenizer="runs/x")
    with pytest.raises(UserError, match="--low-tokenizer runs/x: must be runs/vqgan-PRESET on paper"):
        muse.RECIPE.on_paper(wrong)
