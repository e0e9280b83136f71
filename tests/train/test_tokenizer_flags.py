"""Flags of `train.vqgan`: nets, quantisers, losses and critics; runs of older versions; hints about unused codes."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.random as jr
import pytest

from eqxgen.configs import AutoencoderConfig, TamingConfig, TiTokConfig, ViTVQGANConfig, VQGANConfig
from tests.full import full
from train import klvae, vqgan
from train._errors import UsageError, UserError
from train.config.base import from_dict, parse, to_dict
from train.engine.step import Inputs, Setup, abstract_state, make_update
from train.parallel import make_mesh
from train.tasks.facts import ImageFacts
from train.tasks.judged.nets import perceptual_net
from train.tasks.usage import low_usage, tokenizer_usage

FACTS = ImageFacts((16, 16, 3), 10)
SMALL: dict[str, dict] = {
    "maskgit": {"model": VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=4, codes=16)},
    "taming": {
        "taming": TamingConfig(widths=(8, 8), blocks=1, latent_dim=4, attention=(1,), groups=4, codes=16, code_dim=4)
    },
    "vit": {"vit": ViTVQGANConfig(patch=4, dim=16, depth=1, heads=2, codes=16, code_dim=4, unit=True)},
    "titok": {"titok": TiTokConfig(patch=4, latents=3, dim=16, depth=1, heads=2, codes=16, code_dim=4)},
}
ADDED = (
    *("net", "quantizer", "levels", "bits", "stages", "scales", "gumbel_temperature", "legacy", "data_start"),
    *(
        "pixel_loss",
        "pixel",
        "perceptual",
        "perceptual_net",
        "perceptual_name",
        "adversarial_form",
        "adversarial_start",
        "adaptive",
    ),
    *("alternate", "critic", "critic_width", "critic_layers", "critic_norm", "lecam", "taming", "vit", "titok"),
)
"""Fields that runs of older versions lack."""


def config_of(net="maskgit", **changes):
    values = {"batch_size": 8, "steps": 20, "net": net, **SMALL[net]}
    return dataclasses.replace(vqgan.PRESETS["digits"], **values | changes)


def metrics_of(config, recipe=vqgan):
    """Names of the metrics of a step and the turns, without computing anything."""
    program = recipe.program(config, FACTS)
    setup = Setup.of(config, program, make_mesh("", jax.devices()[:1]), on_cpu=True)
    arrays = {"image": (FACTS.shape, "float32"), "index": ((), "int32"), "weight": ((), "float32")}
    batch = {name: jax.ShapeDtypeStruct((8, *shape), kind) for name, (shape, kind) in arrays.items()}
    inputs = Inputs(batch, jax.eval_shape(lambda: jr.key(0)))
    return set(eqx.filter_eval_shape(make_update(setup), inputs, abstract_state(setup))[1]), list(program.turns)


@pytest.mark.parametrize(
    ("changes", "metrics", "turns"),
    [
        pytest.param(
            {"net": "titok", "quantizer": "gumbel", "pixel_loss": "logit_laplace"}, {"nll"}, ["main"], marks=full
        ),
        (
            {"adversarial": 0.1, "adaptive": True, "lecam": 0.1, "accumulate": 2, "quantizer": "residual"},
            {"adaptive_weight", "lecam"},
            ["main", "r1"],
        ),
        (
            {"net": "vit", "adversarial": 0.8, "critic": "patch", "critic_layers": 1, "critic_norm": "act"}
            | {"alternate": True, "adversarial_form": "hinge", "adversarial_start": 5, "quantizer": "cosine"},
            {"critic_loss", "generator"},
            ["main", "critic"],
        ),
        pytest.param(
            {"net": "taming", "quantizer": "ema", "adversarial": 0.1, "lecam": 0.1, "alternate": True, "r1": 0.0},
            {"lecam", "realness_gap"},
            ["main", "critic"],
            marks=full,
        ),
    ],
)
def test_nets_quantisers_losses_and_critics_go_together(changes, metrics, turns):
    found, made = metrics_of(config_of(**changes))
    assert metrics <= found
    assert {"mse", "distance", "usage", "perplexity"} <= found
    assert made == turns


@full
def test_an_autoencoder_with_a_gaussian_of_latents_is_judged_as_a_tokenizer_is():
    sizes = AutoencoderConfig(widths=(4, 8), blocks=1, latent_dim=2, groups=2, middle_attention=False)
    paper = {"adversarial": 0.5, "adversarial_form": "hinge", "adaptive": True, "alternate": True, "critic": "patch"}
    config = dataclasses.replace(klvae.PRESETS["digits"], batch_size=8, steps=20, model=sizes, critic_layers=1, **paper)
    found, made = metrics_of(config, klvae)
    assert {"absolute_error", "divergence", "adaptive_weight", "generator", "critic_loss"} <= found
    assert made == ["main", "critic"]


def test_a_config_of_an_older_version_is_today_what_it_was():
    for name in ("digits", "cifar10"):
        values = json.loads(json.dumps(to_dict(vqgan.PRESETS[name])))
        old = {key: value for key, value in values.items() if key not in ADDED}
        del old["model"]["remat"], old["model"]["group_width"]
        assert from_dict(vqgan.Config, old, "config.json") == vqgan.PRESETS[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversarial": 0.1, "adversarial_start": 20}, "adversarial_start must be before the end of the run: got 20"),
        ({"adversarial_start": -1}, "adversarial_start must be at least 0: got -1"),
        ({"pixel": 0.0}, "pixel must be above 0 without perceptual or adversarial, .*: got 0"),
        ({"pixel": 0.0, "adversarial": 0.1, "adaptive": True}, "pixel must be above 0 .* with adaptive, .*: got 0"),
        ({"perceptual": 0.1}, "perceptual_net must name a file of weights"),
        ({"lecam": -0.1}, "lecam must be at least 0 and finite: got -0.1"),
        ({"quantizer": "multiscale", "scales": ()}, r"scales must be integers of at least 1 that increase: got \(\)"),
        ({"quantizer": "lfq", "bits": 3}, r"bits must be log2 of model\.codes: got bits=3 and model\.codes=16"),
        ({"quantizer": "fsq", "levels": (3, 5)}, r"levels must multiply to model\.codes: got 3 x 5 = 15"),
        (
            {"quantizer": "fsq", "model": dataclasses.replace(SMALL["maskgit"]["model"], codebook="ema")},
            "model.codebook must be learned with quantizer fsq",
        ),
    ],
)
def test_values_that_cannot_be_are_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        config_of(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("net", "changes", "shape", "message"),
    [
        ("maskgit", {}, (15, 16, 3), "--model.multipliers: each but the first halves the image, so 2 must divide"),
        ("taming", {}, (15, 16, 3), "--taming.widths: each but the first halves the image, so 2 must divide"),
        ("vit", {}, (18, 16, 3), "--vit.patch: 4 must divide its sides"),
        ("titok", {}, (18, 16, 3), "--titok.patch: 4 must divide its sides"),
        (
            "maskgit",
            {"quantizer": "multiscale", "scales": (1, 2, 4)},
            (16, 16, 3),
            "--scales must end at the grid of --net maskgit, 8 x 8, and that be a square: got 1 2 4",
        ),
        ("titok", {"quantizer": "multiscale"}, (16, 16, 3), "--scales must end at the grid of --net titok, 3, and"),
        ("maskgit", {"adversarial": 0.1}, (16, 8, 3), "--critic style must have square images"),
        (
            "maskgit",
            {"adversarial": 0.1, "critic": "patch", "critic_layers": 3},
            (8, 8, 3),
            "--critic-layers: 3 halvings leave no patch",
        ),
    ],
)
def test_images_that_a_net_cannot_take_are_one_line_before_anything_is_made(net, changes, shape, message):
    with pytest.raises(UsageError, match=message):
        vqgan.program(config_of(net, **changes), ImageFacts(shape, 10))


def test_a_perceptual_net_that_is_missing_or_cannot_take_the_images_is_one_line(tmp_path):
    config = config_of(perceptual=0.1, perceptual_net=str(tmp_path / "none.pth"), perceptual_name="alex")
    with pytest.raises(UserError, match=r"--perceptual-net .*none\.pth"):
        perceptual_net(config, FACTS)
    dry = dataclasses.replace(config, dry_run=True)
    with pytest.raises(UsageError, match=r"--perceptual-name alex must take images of \(16, 16, 3\)"):
        eqx.filter_eval_shape(lambda: perceptual_net(dry, FACTS))


@pytest.mark.parametrize(
    ("line", "reader"),
    [
        ("--levels 4 4", "--levels goes with --quantizer fsq"),
        ("--scales 1 2", "--scales goes with --quantizer multiscale"),
        ("--critic patch --adversarial 0.1 --r1 1", "--r1 goes with --critic style"),
        ("--critic-layers 2 --adversarial 0.1", "--critic-layers goes with --critic patch"),
        ("--net vit --model.width 8", "--model.width goes with --net maskgit"),
        ("--vit.patch 2", "--vit.patch goes with --net vit"),
        ("--adaptive", "--adaptive goes with --adversarial above 0"),
        ("--perceptual-name alex", "--perceptual-name goes with --perceptual above 0"),
    ],
)
def test_a_flag_that_nothing_reads_is_refused(line, reader):
    with pytest.raises(UsageError, match=reader):
        parse("vqgan", vqgan.Config, vqgan.PRESETS, "", line.split())


def test_the_hint_of_few_codes_comes_after_a_tenth_of_the_run():
    hint = lambda done, perplexity: low_usage(100, 1000, 200, done, {"perplexity": perplexity})
    assert "a perplexity of 4.9 is below 5 % of 100 codes" in hint(20, 4.9)
    assert hint(19, 4.9) == ""
    assert hint(20, 5.0) == ""
    assert low_usage(1000, 40, 10, 10, {"perplexity": 3.0}) == ""  # a batch of 40 tokens has no more to show


@pytest.mark.parametrize(
    ("summary", "says"),
    [
        (None, "has codes of unknown use"),
        ({"codebook_perplexity": 3.2}, "has a perplexity of 3.2, below 5 % of 100 codes"),
        ({"codebook_perplexity": 5.0}, ""),
        ({"psnr": 20.0}, "has codes of unknown use"),
    ],
)
def test_a_second_stage_says_where_a_tokenizers_codes_are_unused_or_unknown(tmp_path, summary, says):
    if summary is not None:
        (tmp_path / "summary.json").write_text(json.dumps(summary))
    line = tokenizer_usage(str(tmp_path), 100)
    assert (says in line) if says else line == ""
