"""The recipe of generators and discriminators: turns, state, augmentation, divergence, samples by seed."""

import dataclasses
import itertools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.augment.adaptive import PARTS, SYM6, ada_augment, resampled
from eqxgen.augment.differentiable import PARTS as DIFFERENTIABLE
from eqxgen.augment.differentiable import DrawnParts, coin_flip, diff_augment
from eqxgen.augment.geometry import translation
from eqxgen.configs import DCGANConfig, R3GANConfig, StyleGAN2Config
from eqxgen.models import DCGANGenerator, StyleGAN2Generator
from eqxgen.nn import WithState
from tests.arrays import drawn, filled
from tests.full import full, rows
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights
from train import gan, sample
from train._errors import UsageError, UserError
from train.config.base import parse
from train.engine import loop
from train.engine.recipe import Context
from train.tasks.facts import ImageFacts
from train.tasks.gan import losses as adversaries
from train.tasks.gan.projection import Projection, pyramid_distance
from train.tasks.gan.recipe import seeds_of

SIZES = {
    "dcgan": DCGANConfig(latent_dim=4, width=4, base=2, label_dim=3),
    "r3gan": R3GANConfig(4, (8, 6), (2, 2), (1, 1), label_dim=3),
    "stylegan2": StyleGAN2Config(latent_dim=6, mapping=1, width=32, max_width=6),
}
FACTS = ImageFacts((8, 8, 1), 10, 17)
KEY = jr.key(0)


def config_of(folder, **changes):
    values = {"steps": 4, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, **SIZES}
    values["penalty"] = gan.PenaltyConfig(r1=0.1, every=2)
    return dataclasses.replace(gan.PRESETS["digits"], run_dir=str(folder), evals=("none",), **values | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gan") / "whole"
    assert gan.main(config_of(folder)) == 0
    return folder


@full
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, tmp_path, monkeypatch):
    crashed_and_resumed(gan, config_of(tmp_path), 3, monkeypatch)
    assert same(weights(whole), weights(tmp_path))
    assert metrics(whole) == metrics(tmp_path)
    last = metrics(whole)[-1]
    assert {"real_logit", "fake_logit", "r_t", "augmentation_p", "diversity", "penalty_loss"} <= last.keys()


@full
@pytest.mark.parametrize(
    "changes",
    [
        {
            "family": "stylegan2",
            "mixing": 0.9,
            "augmentation": "ada",
            "target": 0.6,
            "penalty": gan.PenaltyConfig(r1=0.1, every=2, path=2.0, path_every=2),
        },
        {
            "family": "r3gan",
            "objective": "relativistic",
            "augmentation": "diffaugment",
            "penalty": gan.PenaltyConfig(r1=0.1, r2=0.1, final=0.1),
            "ramp": 16.0,
        },
        {"objective": "wasserstein", "conditional": False, "penalty": gan.PenaltyConfig(wgan_gp=10.0)},
    ],
)
def test_every_family_trains_with_its_penalties_and_augmentation(changes, tmp_path):
    assert gan.main(config_of(tmp_path / "run", **changes)) == 0
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "run").values())


def test_penalties_are_turns_of_their_own_every_so_many_steps():
    penalty = gan.PenaltyConfig(r1=1.0, every=4, path=2.0, path_every=2)
    program = gan.program(config_of("unused", family="stylegan2", penalty=penalty), FACTS)
    assert program.due(0) == ("main", "path", "discriminator", "penalty")
    assert program.due(1) == ("main", "discriminator")
    assert program.due(2) == ("main", "path", "discriminator")
    assert program.pace("discriminator").share == pytest.approx(4 / 5)
    assert program.pace("generator").share == pytest.approx(2 / 3)
    every = gan.program(config_of("unused", penalty=gan.PenaltyConfig(r1=1.0)), FACTS)
    assert set(every.turns) == {"main", "discriminator"}


def test_the_probability_moves_every_fourth_batch_towards_the_target_and_not_below_zero():
    config = config_of("unused", augmentation="ada", target=0.6, speed=320.0)
    of = adversaries.Adversaries(config, FACTS, ("color",))
    state = {"p": jnp.float32(0.05), "signs": jnp.float32(0)}
    seen = []
    for step, sign in enumerate([1.0] * 4 + [0.0] * 8):
        state |= of._moved_p(state, jnp.float32(sign), Context(step=jnp.asarray(step)))
        seen.append(float(state["p"]))
    np.testing.assert_allclose(seen, [0.05] * 3 + [0.15] * 4 + [0.05] * 4 + [0.0], atol=1e-6)


@pytest.mark.parametrize("parts", [2, 4])
def test_the_probability_and_running_means_move_once_a_step_in_any_number_of_micro_batches(parts):
    of = adversaries.Adversaries(config_of("unused", augmentation="ada", target=0.6, speed=640.0), FACTS, ("color",))
    seen = {}
    for count in (1, parts):
        state = {"p": jnp.float32(0.2), "signs": jnp.float32(0)}
        for step, part in itertools.product(range(12), range(count)):
            at = Context(step=jnp.asarray(step), parts=count, part=jnp.asarray(part))
            state |= of._moved_p(state, jnp.float32(0.9), at)
        seen[count] = float(state["p"])
    assert seen[parts] == pytest.approx(seen[1], abs=1e-6)
    assert seen[1] == pytest.approx(0.2 + 3 * 4 * of.config.batch_size / 640, abs=1e-6)
    kept = 1.0
    for _ in range(parts):
        kept *= 1 - adversaries._moving(0.01, Context(parts=parts))
    assert kept == pytest.approx(0.99)


def test_a_batch_of_one_image_a_part_is_refused_as_its_diversity_is_unknown():
    with pytest.raises(ValueError, match=r"batch_size must be at least 2 in each of accumulate=4 parts.*got 4"):
        config_of("unused", batch_size=4, accumulate=4)


def test_the_weight_of_a_penalty_and_p_go_along_half_a_cosine():
    changes = {"augmentation": "ada", "probability": 0.5, "ramp": 80.0}
    config = config_of("unused", penalty=gan.PenaltyConfig(r1=2.0, final=0.5), **changes)
    of = adversaries.Adversaries(config, FACTS, ("color",))
    at = lambda step: Context(step=jnp.asarray(step))
    np.testing.assert_allclose([of._gamma(2.0, at(step)) for step in (0, 5, 10, 99)], [2.0, 1.5, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose([of._p({}, at(step)) for step in (0, 5, 10, 99)], [0, 0.25, 0.5, 0.5], atol=1e-6)


@full
def test_samples_that_are_all_alike_stop_the_run_and_the_last_checkpoint_before_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(adversaries, "LEAST", 1e9)
    monkeypatch.setattr(loop, "PATIENCE", 8)
    with pytest.raises(UserError, match=r"step 16: the generator has collapsed: .* step 8; .* before it is of step 6"):
        gan.main(config_of(tmp_path / "run", steps=40, keep=20))
    assert adversaries.collapsed({"diversity": 1.0})
    monkeypatch.setattr(adversaries, "LEAST", 0.02)
    assert not adversaries.collapsed({"diversity": 0.5})
    assert not adversaries.collapsed({"diversity": float("nan")})


def test_diversity_is_the_deviation_within_classes_over_that_of_the_data():
    config = config_of("unused", batch_size=80)
    of = adversaries.Adversaries(config, FACTS, ())
    labels = jnp.arange(80) % 10
    images = jr.normal(KEY, (80, 8, 8, 1))
    batch = {"image": images, "label": labels, "weight": jnp.ones(80)}
    assert of._diversity(batch, images / 2, Context()) == pytest.approx(0.5, rel=1e-5)
    assert of._diversity(batch, images[labels], Context()) == pytest.approx(0, abs=1e-3)  # one image a class


def test_seeds_are_numbers_and_ranges():
    assert seeds_of("0-3,9, 7") == (0, 1, 2, 3, 9, 7)
    assert seeds_of("") == ()


def test_samples_by_seed_do_not_depend_on_others_and_a_path_has_them_at_its_ends(whole, tmp_path):
    images = {}
    for name, words in {"all": ["--seeds=3-5"], "one": ["--seeds=4"], "path": ["--seeds=3-4", "--interpolate"]}.items():
        out = tmp_path / f"{name}.npz"
        assert sample.main([f"--run={whole}", f"--out={out}", "--label=2", *words]) == 0
        with np.load(out) as arrays:
            images[name] = arrays["images"].astype(int)
    np.testing.assert_array_equal(images["all"][1], images["one"][0])
    assert len(images["path"]) == 8
    assert np.abs(images["path"][[0, -1]] - images["all"][:2]).max() <= 1


WRONG = {
    "--penalty.r1 -1": "penalty.r1 must be at least 0 and finite: got -1.0",
    "--penalty.every 0": "penalty.every must be at least 1: got 0",
    "--augmentation ada --policy colour": "policy must be of blit, geometry, color, .*: got 'colour'",
    "--augmentation diffaugment --policy color,color": "policy must name each part once",
    "--augmentation mixup": "augmentation must be .*: got 'mixup'",
    "--policy color": "--policy goes with --augmentation diffaugment or ada",
    "--mixing 0.9": "--mixing goes with --family stylegan2",
    "--target 0.6": "--target goes with --augmentation ada",
    "--penalty.path 2": "goes with --family stylegan2|penalty.path must be 0 without",
}


@pytest.mark.parametrize(("line", "says"), WRONG.items())
def test_a_wrong_flag_is_one_line(line, says):
    with pytest.raises(UsageError, match=says) as caught:
        parse("gan", gan.Config, gan.PRESETS, "", line.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", SIZES)
def test_a_size_that_a_family_cannot_make_is_a_usage_error(family):
    with pytest.raises(UsageError, match=r"must be (even|a power of two)|halve the image evenly"):
        gan.program(config_of("unused", family=family), ImageFacts((7, 7, 1), 10, 17))
    with pytest.raises(UsageError, match=f"--family {family}: the images must be square: got 8 x 4"):
        gan.program(config_of("unused", family=family), ImageFacts((8, 4, 1), 10, 17))


IMAGE = jnp.tanh(jr.normal(KEY, (8, 10, 3)))
ADA = jax.jit(ada_augment, static_argnums=2)


def test_the_adaptive_augmentation_is_the_identity_at_zero_and_another_p_compiles_nothing():
    for part in (*((part,) for part in PARTS), PARTS):
        np.testing.assert_allclose(ADA(IMAGE, jnp.float32(0), part, key=KEY), IMAGE, atol=1e-5)
    before = ADA._cache_size()
    moved = [ADA(IMAGE, jnp.float32(p), PARTS, key=KEY) for p in (0.5, 1.0)]
    assert ADA._cache_size() == before
    assert all(jnp.abs(image - IMAGE).max() > 0.1 for image in moved)
    np.testing.assert_array_equal(moved[1], ADA(IMAGE, jnp.float32(1), PARTS, key=KEY))
    slope = jax.grad(lambda image: jnp.sum(ADA(image, jnp.float32(1), PARTS, key=KEY) ** 2))(IMAGE)
    assert jnp.isfinite(slope).all()
    assert jnp.abs(slope).max() > 0


def test_whole_moves_keep_pixels_and_the_wavelet_is_orthogonal_to_its_shifts():
    moved = resampled(IMAGE, translation(jnp.float32(2), jnp.float32(-1)))
    np.testing.assert_allclose(moved[:-1, 2:], IMAGE[1:, :-2], atol=1e-5)
    taps = np.asarray(SYM6)
    products = [taps[2 * k :] @ taps[: len(taps) - 2 * k] for k in range(6)]
    np.testing.assert_allclose(products, [1, 0, 0, 0, 0, 0], atol=1e-10)


@pytest.mark.parametrize("part", DIFFERENTIABLE)
def test_a_part_of_diffaugment_is_drawn_by_its_key_and_differentiable(part):
    run = jax.jit(lambda image, key: diff_augment(image, (part,), key=key))
    made = [run(IMAGE, jr.key(seed)) for seed in (1, 1, 2, 3, 4)]
    np.testing.assert_array_equal(made[0], made[1])
    assert any(jnp.abs(made[0] - other).max() > 0.01 for other in made[2:])
    slope = jax.grad(lambda image: jnp.sum(run(image, jr.key(1)) ** 2))(IMAGE)
    assert jnp.isfinite(slope).all()


def test_flips_turn_columns_and_rows_and_never_channels():
    drawn = DrawnParts.draw(8, 10, key=KEY)._replace(flips=jnp.ones(2, int))
    np.testing.assert_array_equal(diff_augment(IMAGE, ("flip_x",), drawn=drawn), IMAGE[:, ::-1])
    np.testing.assert_array_equal(diff_augment(IMAGE, ("flip_y",), drawn=drawn), IMAGE[::-1])


def test_a_coin_leaves_an_image_or_augments_it_and_has_its_probability():
    image, made = jnp.asarray(drawn((4, 4, 1))), lambda image, key: -image
    flipped = jax.jit(jax.vmap(lambda key, share: coin_flip(image, made, probability=share, key=key), (0, None)))
    keys = jax.random.split(jax.random.key(0), 400)
    for share in (0.0, 0.25, 1.0):
        found = flipped(keys, jnp.float32(share))
        turned = jnp.all(found == -image[None], axis=(1, 2, 3))
        assert bool(jnp.all(turned | jnp.all(found == image[None], axis=(1, 2, 3))))
        assert abs(float(jnp.mean(turned)) - share) < 0.07
    assert flipped._cache_size() == 1
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\]: got 1.5"):
        coin_flip(image, made, probability=1.5, key=keys[0])


@pytest.mark.parametrize("kind", rows(["stylegan2", "dcgan"], "stylegan2"))
def test_an_image_of_a_generator_is_projected_onto_itself_in_any_number_of_steps(kind):
    key, label = jax.random.key(1), jnp.asarray(1)
    net = (
        StyleGAN2Generator(8, 1, 3, SIZES[kind], key=key)
        if kind == "stylegan2"
        else filled(lambda key: DCGANGenerator(8, 1, 3, SIZES[kind], key=key))
    )
    state = net.init_state()
    latent = drawn((net.config.latent_dim,))
    latent = latent * jnp.sqrt(latent.size / jnp.sum(latent**2))
    image = net.sample(latent, label, state, key=key)
    run = eqx.filter_jit(Projection())
    tree, example = (WithState(net, state), key), {"image": image, "label": label, "index": jnp.asarray(0)}
    few = run(tree, example | {"steps": jnp.asarray(7)})
    compiled = run._cached._cache_size()
    many = run(tree, example | {"steps": jnp.asarray(140)})
    assert run._cached._cache_size() == compiled
    error = lambda found: float(jnp.mean((found.images[-1] - image) ** 2))
    assert error(many) < 0.02 * float(jnp.var(image))
    assert error(many) < error(few)
    assert many.images.shape == (7, 8, 8, 1)


def test_the_distance_of_a_projection_sees_each_halving():
    first = jnp.zeros((4, 4, 1))
    checks = jnp.asarray(np.indices((4, 4)).sum(0) % 2 * 2 - 1, jnp.float32)[:, :, None]
    assert float(pyramid_distance(checks, first)) == 1  # the means of all halvings are 0
    assert float(pyramid_distance(first + 2, first)) == 3 * 4


def test_an_unknown_part_of_an_augmentation_is_an_error():
    with pytest.raises(ValueError, match=r"parts must be of color, translation, .*: got 'colour'"):
        diff_augment(IMAGE, ("colour",), key=KEY)
    with pytest.raises(ValueError, match=r"parts must be of blit, geometry, .*: got 'filter'"):
        ada_augment(IMAGE, jnp.float32(0), ("filter",), key=KEY)


def test_the_released_model_is_the_generator_with_its_state(whole):
    assert {name.split(".")[0] for name in weights(whole)} == {"model", "state"}
    assert json.loads((whole / "config.json").read_text())["recipe"] == "gan"
