"""`train.ar --order scales`: a run with its tokenizer's quantiser, resumed and sampled; tokenizers that cannot be."""

import dataclasses
import json
import shutil

import jax
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import ImageSampling, VARConfig, VQGANConfig
from tests.full import full
from tests.train.small_runs import crashed_and_resumed, same, weights, words
from train import ar, sample, vqgan
from train._errors import UsageError, UserError
from train.config.base import parse, to_dict
from train.engine.recipes import load
from train.run.weights import save_model
from train.tasks.facts import ImageFacts, TokenFacts

FACTS = TokenFacts((8, 8, 1), 10, 21, 16, scales=(1, 2, 4), code_dim=4)


def tokenizer(folder, scales=(1, 2, 4), seed=0):
    """A run of an untrained tokenizer."""
    sizes = VQGANConfig(width=4, latent_dim=4, codes=16, multipliers=(1, 1), blocks=1)
    kind = {"quantizer": "multiscale", "scales": scales} if scales else {}
    config = vqgan.Config(model=sizes, **kind)
    record = {"recipe": "vqgan", "config": to_dict(config), "facts": ImageFacts((8, 8, 1), 10, 17).to_record()}
    folder.mkdir()
    model = vqgan.RECIPE.model(config, ImageFacts((8, 8, 1), 10, 17))(jr.key(seed))
    save_model(folder / "model.safetensors", model, record)
    return str(folder)


def config_of(folder, where, **changes):
    values = {"steps": 3, "batch_size": 8, "log_every": 1, "sample_every": 0, "checkpoint_every": 2}
    values |= {"evals": ("held_out",), "var": VARConfig(dim=8, depth=1, heads=2, dropout=0.1)}
    return dataclasses.replace(ar.PRESETS["digits-scales"], run_dir=str(folder), tokenizer=where, **values | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scales")
    assert ar.main(config_of(folder / "run", tokenizer(folder / "tokenizer"))) == 0
    shutil.rmtree(folder / "tokenizer")  # the run has its own copy
    return folder / "run"


@full
def test_a_run_keeps_its_tokenizer_and_not_the_quantiser_in_its_weights(run):
    facts = json.loads((run / "config.json").read_text())["facts"]
    assert {k: facts[k] for k in ("tokens", "codes", "scales", "code_dim")} == {
        "tokens": 21, "codes": 16, "scales": [1, 2, 4], "code_dim": 4
    }  # fmt: skip
    assert not [name for name in weights(run) if "quantizer" in name]
    assert load(run / "model.safetensors", "ar").quantizer is None
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["loss"] == pytest.approx(np.log(16), rel=0.1)


@full
def test_it_is_sampled_with_other_guidance(run, tmp_path):
    assert sample.main(words(run=run, n=2, guidance=2.0, guidance_ramp=1.0, out=tmp_path / "x.npz")) == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["images"].shape == (2, 8, 8, 1)


@full
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch):
    where = tokenizer(tmp_path / "tokenizer")
    assert ar.main(config_of(tmp_path / "whole", where)) == 0
    crashed_and_resumed(ar, config_of(tmp_path / "again", where), 3, monkeypatch)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "again"))


def test_a_tokenizer_of_one_scale_is_one_line_before_any_token_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("train.tasks.encoded.token_data.tokenized", None)
    for where, tokens in (("pixels", 64), (tokenizer(tmp_path / "flat", ()), 16)):
        config = config_of(tmp_path / "run", where)
        message = (
            f"--order scales: needs a tokenizer of several scales, as of train.vqgan .* {tokens} tokens are of one"
        )
        with pytest.raises(UsageError, match=message) as caught:
            ar.RECIPE.task(config, tmp_path / "run")
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="--order scales: needs a tokenizer of several scales"):
        ar.RECIPE.on_paper(config_of(tmp_path / "run", "pixels"))


def test_on_paper_the_scales_are_those_of_the_tokenizers_preset():
    config = ar.PRESETS["digits-scales"]
    facts = ar.RECIPE.on_paper(config)
    assert facts == TokenFacts((8, 8, 1), 10, 30, 64, scales=(1, 2, 3, 4), code_dim=8)
    assert TokenFacts.from_record(json.loads(json.dumps(facts.to_record()))) == facts
    frozen = jax.eval_shape(lambda: jax.tree.leaves(ar.RECIPE.program(config, facts).frozen())[0])
    assert frozen.shape == (64, 8)


def test_another_tokenizer_in_the_place_of_a_run_s_own_is_one_line(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    other = tokenizer(tmp_path / "other", (1, 3, 4), seed=1)
    shutil.copyfile(f"{other}/model.safetensors", tmp_path / "run" / "tokenizer.safetensors")
    with pytest.raises(UserError, match="is not the tokenizer that the run began with") as caught:
        sample.main(words(run=tmp_path / "run", n=2, out=tmp_path / "x.npz"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reader"),
    [
        ("--var.depth 3", "--var.depth goes with --order scales"),
        ("--preset digits-scales --model.depth 3", "--model.depth goes with --order rows"),
        ("--preset digits-scales --shuffle-until 0", "--shuffle-until goes with --order rows"),
    ],
)
def test_a_flag_of_the_other_order_is_refused(line, reader):
    with pytest.raises(UsageError, match=reader):
        parse("ar", ar.Config, ar.PRESETS, "", line.split())


def test_values_that_cannot_be_are_one_line():
    null, wide = VARConfig(dim=8, depth=1, heads=2, null=False), ImageSampling(guidance_to=31)
    for message, changes in {
        r"label_dropout must be 0 with var\.null=false: got 0\.1": {"var": null},
        "shuffle_end must be 0 with order scales: got 0.5": {
            "shuffle_end": 0.5,
            "model": dataclasses.replace(ar.PRESETS["digits-scales"].model, targets=True),
        },
    }.items():
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(ar.PRESETS["digits-scales"], **changes)
    with pytest.raises(ValueError, match=r"decode\.guidance_to must be at most the number of tokens, 30: got 31"):
        ar.draw(
            dataclasses.replace(ar.PRESETS["digits-scales"], decode=wide),
            ar.RECIPE.on_paper(ar.PRESETS["digits-scales"]),
        )
