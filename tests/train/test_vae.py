"""The recipes vae and klvae: runs, resumption, released models, evaluation, samples, flags that cannot be."""

import dataclasses
import json

import jax
import jax.random as jr
import numpy as np
import pytest

import train
from eqxgen.configs import AutoencoderConfig, VAEConfig
from eqxgen.losses.elbo import importance_weighted_nll, negative_elbo
from eqxgen.models import VAE, KLAutoencoder
from tests.full import FULL, full, rows
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from train import klvae, sample, vae
from train._errors import UsageError
from train.config.base import parse
from train.config.data import DataConfig
from train.data import load
from train.evaluators.likelihood import SEED, binarised
from train.tasks.facts import ImageFacts

RECIPES = {"vae": vae, "klvae": klvae}
SIZES = {
    "vae": {"model": VAEConfig(hidden=(8,), latent_dim=3), "binarise": True, "iw_samples": 5, "eval_samples": 40},
    "klvae": {
        "model": AutoencoderConfig(widths=(4,), blocks=1, latent_dim=2, groups=2, middle_attention=False),
        **({"adversarial": 0.1, "adversarial_start": 2} if FULL else {}),
    },
}
EVALS = {"vae": ("elbo:2", "likelihood"), "klvae": ("reconstruction",)}


def config_of(recipe, folder, **changes):
    module = RECIPES[recipe]
    values = {"steps": 4, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "sample_every": 0}
    values |= {"evals": EVALS[recipe], **SIZES[recipe]}
    return dataclasses.replace(module.PRESETS["digits"], run_dir=str(folder), **values | changes)


@pytest.fixture(scope="module", params=rows(RECIPES, "klvae"))
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / request.param
    assert RECIPES[request.param].main(config_of(request.param, folder)) == 0
    return folder


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, tmp_path, monkeypatch):
    # Evaluators at the end have no line of metrics, and their numbers are held against the released model below.
    changes = {"evals": ("elbo:2",) if whole.name == "vae" else ("none",)}
    crashed_and_resumed(RECIPES[whole.name], config_of(whole.name, tmp_path, **changes), 3, monkeypatch)
    assert same(weights(whole), weights(tmp_path))
    assert metrics(whole) == metrics(tmp_path)


def test_the_released_model_has_the_numbers_of_the_summary(whole):
    model, config = train.load(whole / "model.safetensors"), config_of(whole.name, whole)
    summary, data = json.loads((whole / "summary.json").read_text()), load(config.data)
    images = jax.numpy.asarray(data.normalise(data.test_images))
    made, posterior = jax.jit(jax.vmap(model))(images)
    if whole.name == "klvae":
        assert isinstance(model, KLAutoencoder)
        assert summary["eval_loss"] == pytest.approx(float(np.mean((made - images) ** 2)), rel=1e-5)
        divergence = jax.vmap(lambda one: one.divergence())(posterior)
        assert summary["eval_divergence"] == pytest.approx(float(np.mean(divergence)), rel=1e-4)
        return
    assert isinstance(model, VAE)
    assert summary["binarisation_seed"] == str(SEED)

    @jax.jit
    @jax.vmap
    def bounds(image, index):
        image = binarised(image, key=jr.fold_in(jr.key(SEED), index))
        one, many = (jr.fold_in(jr.key(seed), index) for seed in (0, 1))
        return negative_elbo(model, image, key=one).total, importance_weighted_nll(model, image, 5, key=many)

    elbo, weighted = bounds(images, np.arange(len(images)))
    assert summary["eval_loss"] == pytest.approx(float(np.mean(elbo)), rel=1e-5)
    assert summary["nll_iw5"] == pytest.approx(float(np.mean(weighted[:40])), rel=1e-5)


@full
def test_the_discriminator_rests_until_its_start(whole):
    lines = [line for line in metrics(whole) if "discriminator_grad_norm" in line]
    assert [line["discriminator_grad_norm"] == 0 for line in lines] == [True, True, False, False] * (
        whole.name == "klvae"
    )


def test_samples_are_drawn_reconstructed_and_interpolated(whole, tmp_path):
    draw = lambda name, *flags: sample.main([*words(run=whole, out=tmp_path / f"{name}.npz"), *flags])
    read = lambda name: dict(np.load(tmp_path / f"{name}.npz"))
    prior = whole.name == "vae"
    assert draw("pairs", "--per-class=1", *["--reconstruct"] * prior) == 0
    assert sorted(read("pairs")["labels"]) == list(range(10))
    assert draw("between", "--interpolate", "--columns=5", "--n=10", "--label=3") == 0
    between = read("between")
    assert between["images"].shape == (10, 8, 8, 1)
    assert set(between["labels"]) == {3}
    model, data = train.load(whole / "model.safetensors"), load(config_of(whole.name, whole).data)
    ends = data.test_images[data.test_labels == 3][:2]
    first, last = (model(jax.numpy.asarray(data.normalise(end[None])[0]))[0] for end in ends)
    np.testing.assert_array_equal(between["images"][0], data.denormalise(np.asarray(first)[None])[0])
    np.testing.assert_array_equal(between["images"][4], data.denormalise(np.asarray(last)[None])[0])
    if prior:
        assert draw("drawn", "--n=3", "--seed=2") == 0
        one = model.sample(key=jr.fold_in(jr.key(2), 1))
        np.testing.assert_array_equal(read("drawn")["images"][1], data.denormalise(np.asarray(one)[None])[0])


WRONG = [
    ("vae", ["--beta", "-1"], "beta must be at least 0 and finite: got -1.0"),
    ("vae", ["--k", "0"], "k must be at least 1: got 0"),
    ("vae", ["--iw-samples", "0"], "iw_samples must be at least 1: got 0"),
    ("vae", ["--k", "5", "--beta", "2"], "beta must be 1 with k above 1: got beta=2.0, k=5"),
    ("vae", ["--binarise", "--model.likelihood", "gaussian"], "binarise goes with model.likelihood=bernoulli: got gau"),
    ("vae", ["--model.hidden", "0"], r"model.hidden must be integers of at least 1: got \(0,\)"),
    ("vae", ["--model.likelihood", "laplace"], "model.likelihood must be one of bernoulli, gaussian, logit_laplace"),
    ("vae", ["--keep-best", "nll_iw500"], "keep_best must be a metric that is measured during training: got nll_iw500"),
    ("klvae", ["--kl", "-1e-6"], "kl must be at least 0 and finite: got -1e-06"),
    ("klvae", ["--adversarial-start", "5"], "--adversarial-start goes with --adversarial above 0"),
    ("klvae", ["--discriminator.lr", "1"], "--discriminator.lr"),
    (
        "klvae",
        ["--adversarial", "1", "--adversarial-start", "1000"],
        "adversarial_start must be before the end of the run: got 1000 with steps=1000",
    ),
    ("klvae", ["--model.widths", "4", "6"], "model.widths must be one or more multiples of groups=8: got"),
]


@pytest.mark.parametrize(("recipe", "flags", "says"), WRONG)
def test_a_wrong_flag_is_one_line_that_names_it(recipe, flags, says):
    module = RECIPES[recipe]
    with pytest.raises(UsageError, match=says) as caught:
        parse(recipe, module.Config, module.PRESETS, "", flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "sizes", "says"),
    [
        ("vae", VAEConfig(channels=(4, 4)), "--model.channels: .* so 4 must divide its sides: got images of"),
        ("klvae", AutoencoderConfig(widths=(32,) * 3), "--model.widths: .* so 4 must divide its sides: got images of"),
    ],
)
def test_a_side_that_the_factor_does_not_divide_is_an_error_before_any_compilation(recipe, sizes, says):
    config = dataclasses.replace(RECIPES[recipe].PRESETS["digits"], model=sizes, data=DataConfig(name="./x"))
    with pytest.raises(UsageError, match=says):
        RECIPES[recipe].program(config, ImageFacts((8, 6, 1), 10))


def test_binarised_images_are_the_share_of_their_grey_levels():
    grey = jax.numpy.linspace(-1, 1, 5)
    drawn = jax.vmap(lambda key: binarised(grey, key=key))(jr.split(jr.key(0), 4000))
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    np.testing.assert_allclose(drawn.mean(axis=0), grey, atol=0.06)


def test_the_importance_weighted_objective_trains(tmp_path):
    assert vae.main(config_of("vae", tmp_path, k=3, steps=2, evals=("none",))) == 0
    assert all(line["loss"] > 0 for line in metrics(tmp_path))
