"""The diffusion recipe: runs of the loop, samples, and flags that cannot be."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import DiTConfig, PaxUNetConfig, UNetConfig
from eqxgen.diffusion.precondition import EDM
from tests.full import full
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from tests.train.test_sample import COMPILED
from train import diffusion, load, sample
from train._errors import UsageError, UserError
from train.config.base import parse
from train.engine.recipe import Context
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.tasks.denoised import drawn, tree_of
from train.tasks.draw import labelled
from train.tasks.facts import ImageFacts

FACTS = ImageFacts((8, 8, 1), 10, 17)
SIZES = DiTConfig(dim=8, depth=1, heads=2, hidden_dim=16, patch=4, learn_variance=False)
SAMPLING = dataclasses.replace(diffusion.PRESETS["digits"].sampling, steps=3)


def config_of(folder, **changes):
    values = {"steps": 6, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, "evals": ("none",)}
    values |= {"dit": SIZES, "sampling": SAMPLING}
    return dataclasses.replace(diffusion.PRESETS["digits"], run_dir=str(folder), **values | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusion") / "whole"
    assert diffusion.main(config_of(folder)) == 0
    return folder


@full
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, tmp_path, monkeypatch):
    crashed_and_resumed(diffusion, config_of(tmp_path), 3, monkeypatch)
    assert same(weights(whole), weights(tmp_path))
    assert metrics(whole) == metrics(tmp_path)


def test_a_run_releases_its_denoiser_with_pictures_and_a_film(whole):
    assert isinstance(load(whole / "model.safetensors"), EDM)
    assert [path.name for path in (whole / "samples").iterdir()] == ["step-0000006.png"]
    from PIL import Image

    with Image.open(whole / "denoising.webp") as film:
        assert 20 < film.n_frames <= 50  # equal neighbours are one
    assert "denoising.webp" in (whole / "README.md").read_text()


def test_samples_by_guidance_in_an_interval_are_drawn_and_repeat(whole, tmp_path):
    found = []
    for name in ("a", "b"):
        options = {"run": whole, "out": tmp_path / f"{name}.npz", "n": 3, "steps": 2, "interval": "0.3,5"}
        assert sample.main(words(**options, sampler="heun", guidance=2.0)) == 0
        found.append(np.load(tmp_path / f"{name}.npz"))
    assert found[0]["labels"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found[0]["images"], found[1]["images"])


def test_other_numbers_of_a_sampler_run_the_same_program():
    config = config_of(".")
    model = diffusion.model(config, FACTS)(jr.key(0))
    stream, seen, images = Stream(make_mesh()), [], []
    for changes in (
        {},
        {"guidance": 3.0},
        {"interval": "0.3,5"},
        {"sigma_max": 20.0, "sigma_min": 0.01, "rho": 5.0},
        {"rescale": 0.5},
        {"churn": 3.0, "churn_noise": 1.0},
    ):
        options = dataclasses.replace(SAMPLING, sampler="churn", **changes)
        rules = diffusion.rules(dataclasses.replace(config, sampling=options), FACTS)
        tree = tree_of(model, None, rules, 0)
        images.append(stream.gather(drawn, tree, labelled(np.arange(3))))
        seen.append(COMPILED[0])
    assert set(seen[1:]) == {seen[0]}
    assert not any(np.array_equal(images[0], other) for other in (images[3], images[5]))


def test_guidance_that_was_trained_is_sampled_and_not_forgotten_as_in_the_seed():
    """Labels are dropped in training, and the sampler's guide has the network's own null label."""
    config = config_of(".")
    assert config.label_dropout > 0
    rules = diffusion.rules(config, FACTS)
    assert float(rules.guide.rule.scale) == config.sampling.guidance > 1
    assert diffusion.model(config, FACTS)(jr.key(0)).null_label == 10


def test_an_image_depends_neither_on_the_batch_nor_on_the_others():
    config = config_of(".")
    model, rules = diffusion.model(config, FACTS)(jr.key(0)), diffusion.rules(config, FACTS)
    tree, stream = tree_of(model, None, rules, 0), Stream(make_mesh())
    many, few = (stream.gather(drawn, tree, labelled(np.arange(n))) for n in (5, 2))
    np.testing.assert_allclose(many[:2], few, atol=1e-6)


WRONG = {
    "--sampling.steps 0": "sampling.steps must be at least 1: got 0",
    "--preset cifar10 --sampling.steps 1001": "sampling.steps must be at most denoiser.schedule.steps: got 1001 of 1000",
    "--sampling.sigma-min 90": "sampling.sigma_min must be below sampling.sigma_max: got 90.0 and 40.0",
    "--sampling.sampler dpmm": "sampling.sampler must be one of .*: got 'dpmm'",
    "--sampling.variance learned": "sampling.variance learned must have a model with dit.learn_variance: got one without",
    "--preset cifar10 --sampling.guidance 2": "sampling.guidance must be 1 for a model without classes: got 2.0",
    "--sampling.interval 5,0.3": "sampling.interval must be LOW,HIGH .*: got '5,0.3'",
    "--sampling.interval 5": "sampling.interval must be LOW,HIGH .*: got '5'",
    "--sampling.eta 1.5": r"sampling.eta must be in \[0, 1\]: got 1.5",
    "--dit.heads 5": "dit.heads must divide dit.dim: got dit.dim=96, dit.heads=5",
    "--dit.patch 3": "--dit.patch: 3 must divide the sides of the images: got 8 x 8",
    "--denoiser.schedule.name lin": "denoiser.schedule.name must be one of linear, .*: got 'lin'",
    "--denoiser.schedule.steps 1": "denoiser.schedule.steps must be at least 2: got 1",
    "--loss.weight snrr": "loss.weight must be one of .*: got 'snrr'",
    "--label-dropout 1": r"label_dropout must be in \[0, 1\): got 1.0",
    "--non-leaking 0.1": "non_leaking must have a unet with --unet.augment 9",
    "--loss.variance 0.1": "loss.variance must be above 0 with dit.learn_variance, and 0 without",
    "--no-conditional --sampling.guidance 1": "conditional must be true with backbone dit: got false",
    "--sampling.grid trailing": "--sampling.grid trailing must have a schedule of steps: got VE",
    "--preset cifar10 --sampling.grid karras --sampling.sigma-min 0.02 --sampling.sigma-max 500": "--sampling.sigma_max must be at most",
    "--preset cifar10 --sampling.grid karras --sampling.sigma-max 50": r"--sampling.sigma_min must be at least the "
    r"schedule's first sigma / alpha, 0.0100005, with sampling.grid karras: got 0.002; trailing, .* end there",
    "--preset cifar10 --sampling.grid exponential --sampling.sigma-min 0.01": "--sampling.sigma_min must be at least",
    "--sampling.apg-norm 2": "sampling.apg_norm must be 0 with sampling.guidance_rule cfg, as it is of apg: got 2",
    "--sampling.guidance-rule cfg_zero_star --sampling.zero-steps 1": "--sampling.zero_steps must be 0 but for the",
    "--preset celeba64 --pax-unet.multipliers 1 1 1 1 1": "--pax-unet.multipliers: .*, so 16 must divide the sides",
    "--preset celeba64 --unet.width 64": "--unet.width goes with --backbone unet, which was not given",
    "--unet.width 64": "--unet.width goes with --backbone unet, which was not given",
    "--preset cifar10 --dit.patch 4": "--dit.patch goes with --backbone dit, which was not given",
    "--autoencoder nowhere": "--autoencoder nowhere: no such file or folder of a published model",
}


def opened(flags):
    config = parse("diffusion", diffusion.Config, diffusion.PRESETS, "", flags.split())
    diffusion.frozen(config, FACTS)
    diffusion.network(config, FACTS)
    diffusion.rules(config, FACTS)


@pytest.mark.parametrize("flags", WRONG)
def test_a_wrong_flag_is_one_line_that_names_it(flags):
    with pytest.raises((UsageError, UserError), match=f"^{WRONG[flags]}") as caught:
        opened(flags)
    assert "\n" not in str(caught.value)


TRACED = {
    "textbrush": {},
    "digits": {"loss": dataclasses.replace(diffusion.PRESETS["digits"].loss, weight="uncertainty"), "dit": SIZES},
    "cifar10-edm": {"unet": UNetConfig(width=32, multipliers=(1,), blocks=1, attention=(), augment=9)},
    "imagenet256-dit": {"dit": DiTConfig(dim=8, depth=1, heads=2, hidden_dim=16, patch=4), "dry_run": True},
    "celeba64": {"pax_unet": PaxUNetConfig(width=8, multipliers=(1, 2))},
}


def test_the_loss_of_a_batch_is_that_of_its_parts_however_it_is_split():
    config = dataclasses.replace(diffusion.PRESETS["digits"], batch_size=6, dit=SIZES)
    assert config.loss.stratified, "times of the whole batch, of which a part has its own"
    core = diffusion.program(config, FACTS)
    model = core.init(jr.key(0))
    batch = {"image": jr.normal(jr.key(2), (6, 8, 8, 1)), "label": jnp.arange(6), "index": jnp.arange(6)}
    batch["weight"] = jnp.ones(6)
    loss = jax.jit(lambda batch, keys: core.loss(model, batch, keys, Context(frozen=core.frozen())).loss)
    part = lambda rows: loss({name: array[rows] for name, array in batch.items()}, jr.split(jr.key(1), 6)[rows])
    whole, halves = part(slice(0, 6)), part(slice(0, 3)) + part(slice(3, 6))
    np.testing.assert_allclose(halves, whole, rtol=1e-5)


@pytest.mark.parametrize("name", TRACED)
def test_the_loss_of_a_preset_can_be_traced_and_its_sampler_has_the_shape_of_its_examples(name):
    config = dataclasses.replace(diffusion.PRESETS[name], batch_size=2, **TRACED[name])
    facts = diffusion.RECIPE.on_paper(config)
    core = diffusion.program(config, facts)
    shapes = {key: jax.ShapeDtypeStruct((2, *shape), kind) for key, (shape, kind) in core.shapes.items()}

    def loss(key, batch):
        return core.loss(
            core.init(key),
            batch | {"index": jnp.arange(2), "weight": jnp.ones(2)},
            jr.split(key, 2),
            Context(frozen=core.frozen()),
        )

    found = jax.eval_shape(loss, jr.key(0), shapes)
    assert found.loss.shape == ()
    assert ("bound" in found.metrics) == (config.loss.variance > 0)
    assert diffusion.rules(config, facts).shape == diffusion.example_shape(config, facts)
