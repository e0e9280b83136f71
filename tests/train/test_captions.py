"""Captions as conditions: their ids, wrong ones, the reader of scenes, and a run on pictures with texts."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import ImageSampling, PartiConfig
from eqxgen.metrics import Mean
from tests.train.captioned_pictures import captioned_pictures
from tests.train.small_runs import metrics, words
from train import load as load_model
from train import parti, sample
from train._errors import UserError
from train.config.data import DataConfig
from train.data.captioned.canvases import draw
from train.data.captioned.scenes import COLOURS, parse
from train.evaluators.captions import LARGE, Read, matched, read, scene_codes
from train.tasks.captions import TEXTS, padded

TINY = PartiConfig(dim=16, depth=1, decoder_depth=2, heads=2, head_dim=8, hidden_dim=24, context=8, dropout=0.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return captioned_pictures(tmp_path_factory.mktemp("pictures"))


def config_of(pictures, folder, **changes):
    values = {
        "steps": 2,
        "batch_size": 4,
        "log_every": 1,
        "sample_every": 0,
        "eval_samples": 4,
        "tokenizer": "pixels",
        "data": DataConfig(name=str(pictures), image_size=4),
        "model": TINY,
        "decode": ImageSampling(guidance=2.0),
    }
    return parti.Config(run_dir=str(folder), **values | changes)


def test_a_run_learns_from_pictures_with_texts_and_is_sampled_by_text(pictures, tmp_path):
    assert parti.main(config_of(pictures, tmp_path / "run")) == 0
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert {k: record["facts"][k] for k in ("vocab", "text", "tokens")} == {"vocab": 9, "text": 8, "tokens": 48}
    lines = metrics(tmp_path / "run")
    assert 0 < lines[0]["loss"] < 10
    assert "eval_loss" in json.loads((tmp_path / "run" / "summary.json").read_text())
    out = tmp_path / "x.npz"
    assert sample.main(words(run=tmp_path / "run", text="red", n=2, out=out)) == 0
    with np.load(out) as arrays:
        assert arrays["images"].shape == (2, 4, 4, 3)
    assert load_model(tmp_path / "run" / "model.safetensors").end == 9
    with pytest.raises(UserError, match="must have characters of the vocabulary's 9 alone: got 'x'"):
        sample.main(words(run=tmp_path / "run", text="box", out=tmp_path / "y.npz"))


def test_wrong_texts_of_the_data_are_one_line_before_any_token_is_made(pictures, tmp_path):
    (tmp_path / "vocabulary.json").write_text('{"characters":" bdeort","format":"eqxgen-vocabulary 1","kind":"chars"}')
    for message, changes in {
        r"--model\.context must be more than the tokens of every caption of .*: got 7, and 7 of 'red dot'": {
            "model": dataclasses.replace(TINY, context=7)
        },
        r"--text-tokenizer: caption 'blue' of .*: text must have characters of the vocabulary's 7 alone: got 'l'": {
            "text_tokenizer": str(tmp_path / "vocabulary.json")
        },
        "--text-tokenizer must be bytes, chars, bpe-SIZE .*: got 'letters'": {"text_tokenizer": "letters"},
        "digits: expected images with captions, got no captions": {"data": DataConfig(name="digits")},
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            parti.RECIPE.task(config_of(pictures, tmp_path / "run", **changes), tmp_path / "run")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"text_dropout must be in \[0, 1\): got 1"):
        config_of(pictures, tmp_path, text_dropout=1.0)
    with pytest.raises(ValueError, match="text_tokenizer must be chars, bytes, bpe-SIZE, or a path: got ' '"):
        config_of(pictures, tmp_path, text_tokenizer=" ")


def test_texts_are_filled_up_with_the_end():
    rows = padded([np.array([2, 0]), np.array([], int), np.array([1, 1, 1])], 3, 9)
    assert rows.tolist() == [[2, 0, 9], [9, 9, 9], [1, 1, 1]]


def test_facts_on_paper_have_the_vocabulary_by_name():
    for name, vocab in {"parti-350m": 16_000, "captioned_digits": 369}.items():
        config = parti.PRESETS[name]
        facts = parti.RECIPE.on_paper(config)
        assert (facts.vocab, facts.text) == (vocab, config.model.context)
    assert parti.RECIPE.on_paper(parti.PRESETS["parti-350m"]).tokens == 1024
    assert parti.RECIPE.on_paper(parti.PRESETS["captioned_digits"]).grid == (6, 6)
    assert TEXTS.shape(facts) == (12,)


DIGITS = np.asarray(jr.uniform(jr.key(0), (10, 8, 8), minval=0.1))
DIGITS = DIGITS / DIGITS.max(axis=(1, 2), keepdims=True)
CAPTIONS = (
    "three red sevens in a row",
    "two zeroes in a diagonal",
    "a green 4 above a yellow nine",
    "a blue 1 right of an eight",
    "a small five",
    "a large yellow five",
    "a large one",
)


def test_a_picture_of_a_caption_is_read_as_its_scene():
    canvases = draw([parse(caption) for caption in CAPTIONS], DIGITS, np.arange(10, dtype=np.int32), 0)
    nearest = lambda patch: jnp.argmin(jnp.sum(((patch[None, :, :, 0] + 1) / 2 - DIGITS) ** 2, axis=(1, 2)))
    reader = jax.jit(jax.vmap(lambda image: read(nearest, image)))
    found = reader(jnp.asarray(np.concatenate([canvases, 0 * canvases[:1]]), jnp.float32) / 127.5 - 1)
    wanted = np.stack([scene_codes(caption) for caption in CAPTIONS])
    np.testing.assert_array_equal(found[:-1], wanted)
    red_seven = 1 + 7 * len(COLOURS) + COLOURS.index("red")
    assert wanted[0].tolist() == [0, 0, 0, red_seven, red_seven, red_seven, 0, 0, 0]
    assert set(wanted[5].tolist()) == {LARGE + 1 + 5 * len(COLOURS) + COLOURS.index("yellow")}
    assert found[-1].tolist() == [0] * 9


def test_cells_count_that_are_asked_for_or_drawn():
    wanted = np.array([[0, 0, 3, 4], [0, 0, 0, 5]])
    codes = np.array([[0, 7, 3, 9], [0, 0, 0, 5]])
    sums = matched(Read(Mean(), Mean()), codes, wanted)
    assert (sums.cells.result(), sums.images.result()) == (2 / 4, 1 / 2)
