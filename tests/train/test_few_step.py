"""Objectives of few steps in the diffusion recipe: runs, samples of one step, resumption, and flags that cannot be."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import FewStepLoss, UNetConfig
from eqxgen.diffusion.few_step import pairs
from eqxgen.diffusion.few_step.meanflow import meanflow_loss
from eqxgen.diffusion.precondition import EDM, Average
from tests.full import full
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from tests.train.test_diffusion import FACTS, SIZES, opened
from train import diffusion, load, sample
from train._errors import UsageError, UserError
from train.engine.recipe import Context
from train.tasks.diffusion.few_step import target

SMALL = dataclasses.replace(SIZES, times=2)
NET = UNetConfig(width=8, multipliers=(1,), blocks=1, attention=(), groups=4, times=2)


def config_of(folder, name="meanflow", **changes):
    values = {"steps": 4, "batch_size": 4, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, "evals": ("none",)}
    values |= {"dit": SIZES if name == "consistency" else SMALL}
    preset = diffusion.PRESETS[f"digits-{name}"]
    values["optim"] = dataclasses.replace(preset.optim, learning_rate=0.05, warmup=1)
    return dataclasses.replace(preset, run_dir=str(folder), **values | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few") / "whole"
    assert diffusion.main(config_of(folder)) == 0
    return folder


@full
def test_a_resumed_run_of_meanflow_equals_an_uninterrupted_one_bit_for_bit(whole, tmp_path, monkeypatch):
    crashed_and_resumed(diffusion, config_of(tmp_path), 3, monkeypatch)
    assert same(weights(whole), weights(tmp_path))
    assert metrics(whole) == metrics(tmp_path)


@full
@pytest.mark.parametrize("name", ["shortcut", "consistency"])
def test_a_resumed_run_equals_an_uninterrupted_one_with_its_target_and_levels(name, tmp_path, monkeypatch):
    assert diffusion.main(config_of(tmp_path / "whole", name)) == 0
    crashed_and_resumed(diffusion, config_of(tmp_path / "resumed", name), 3, monkeypatch)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))


@full
def test_a_run_of_meanflow_samples_in_one_step_and_by_many_of_a_solver(whole, tmp_path):
    assert isinstance(load(whole / "model.safetensors"), Average)
    found = []
    for name, options in (("one", {}), ("two", {"steps": 2}), ("euler", {"steps": 3, "sampler": "euler"})):
        assert sample.main(words(run=whole, out=tmp_path / f"{name}.npz", n=2, **options)) == 0
        found.append(np.load(tmp_path / f"{name}.npz")["images"])
    assert found[0].shape == (2, 8, 8, 1)
    assert not np.array_equal(found[0], found[1])


REFUSED = {
    "--guidance 2": "--guidance must be 1 with sampler average, as it is trained: got 2.0",
    "--grid karras": "--grid must be flow with sampler average: got karras",
    "--sampler consistency": "--sampler must be consistency with objective consistency alone: got consistency",
    "--rescale 0.5": "--rescale must be 0 with sampler average: got 0.5",
    "--steps 0": "steps must be at least 1: got 0",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_a_sampler_that_does_not_fit_a_run_is_one_line(whole, flags, tmp_path):
    with pytest.raises((UsageError, ValueError), match=f"^{REFUSED[flags]}") as caught:
        sample.main([*words(run=whole, out=tmp_path / "x.png"), *flags.split()])
    assert "\n" not in str(caught.value)


WRONG = {
    "--objective meanflow": "denoiser.prediction must be average with objective meanflow: got edm",
    "--preset digits-meanflow --objective denoise": "denoiser.prediction must be another than average with objective",
    "--preset digits-consistency --denoiser.prediction v": "denoiser.prediction must be edm with objective consistency",
    "--preset digits-meanflow --dit.times 1": "dit.times must be 2 with objective meanflow: got 1 of dit",
    "--dit.times 2": "dit.times must be 1 with objective denoise: got 2 of dit",
    "--dit.times 3": "dit.times must be 1 or 2: got 3",
    "--dit.guide": "dit.times must be 2 with dit.guide: got 1",
    "--preset digits-meanflow --backbone uvit": "uvit.times must be 2 .* got 1 of uvit; dit and unet have two",
    "--preset digits-meanflow --few-step.guidance 1 --dit.guide": "few_step.guidance must be above 1 with dit.guide",
    "--preset digits-meanflow --denoiser.schedule.name edm": "denoiser.prediction average must have schedule flow",
    "--sampling.sampler average": "sampling.sampler average must have a model of average velocities: got objective",
    "--sampling.sampler consistency": "sampling.sampler must be consistency with objective consistency alone",
    "--preset digits-consistency --sampling.sampler heun": "sampling.sampler must be consistency with .*: got heun",
    "--preset digits-consistency --sampling.guidance 2": "sampling.guidance must be 1 with sampler consistency",
    "--preset digits-shortcut --sampling.steps 3": "sampling.steps must be a power of two up to few_step.shortest=",
    "--preset digits-shortcut --few-step.shortest 12": "few_step.shortest must be a power of two, at least 2: got 12",
    "--preset digits-meanflow --few-step.equal 1.5": r"few_step.equal must be in \[0, 1\]: got 1.5",
    "--preset digits-meanflow --few-step.mix 1": r"few_step.mix must be in \[0, 1\): got 1.0",
    "--preset digits-meanflow --few-step.interval 0.8,0.2": "few_step.interval must be LOW,HIGH .*: got '0.8,0.2'",
    "--preset digits-consistency --few-step.first 1": "few_step.first and few_step.last must be 2 <= first <= last",
    "--preset digits-consistency --few-step.guidance 2": "few_step.guidance must be 1 .* without a teacher",
    "--preset digits-consistency --teacher nowhere": "nowhere/config.json: no such file",
    "--few-step.equal 0.5": "--few-step.equal goes with --objective meanflow, which was not given",
    "--teacher runs/x": "--teacher goes with --objective consistency, which was not given",
    "--preset digits-meanflow --loss.weight edm": "--loss.weight goes with --objective denoise, which was not given",
    "--preset digits-meanflow --few-step.last 20": "--few-step.last goes with --objective consistency",
    "--objective flow": "--objective must be one of denoise, meanflow, improved_meanflow, shortcut, consistency",
}


@pytest.mark.parametrize("flags", WRONG)
def test_a_wrong_flag_of_few_steps_is_one_line_that_names_it(flags):
    with pytest.raises((UsageError, UserError), match=WRONG[flags]) as caught:
        opened(flags)
    assert "\n" not in str(caught.value)


TRACED = {
    "improved, guidance as inputs": ("meanflow", {"objective": "improved_meanflow", "dit": {"guide": True}}),
    "shortcut": ("shortcut", {}),
    "shortcut of itself": ("shortcut", {"few_step": FewStepLoss(target_decay=0.0)}),
    "consistency": ("consistency", {}),
    "U-Net": ("meanflow", {"backbone": "unet", "unet": NET}),
}


def parts_of(case, **more):
    name, changes = TRACED[case]
    changes = {key: dataclasses.replace(SMALL, **value) if key == "dit" else value for key, value in changes.items()}
    config = config_of(".", name, **changes | more)
    return config, diffusion.program(config, FACTS)


@pytest.mark.parametrize("case", TRACED)
def test_the_loss_of_an_objective_and_its_gradients_can_be_traced(case):
    config, core = parts_of(case)
    shapes = {key: jax.ShapeDtypeStruct((2, *shape), kind) for key, (shape, kind) in core.shapes.items()}

    def loss(model, state, key, batch):
        sums = core.loss(
            model, batch | {"index": jnp.arange(2), "weight": jnp.ones(2)}, jr.split(key, 2), Context(state)
        )
        return sums.loss, sums

    def run(key, batch):
        model = core.init(key)
        return eqx.filter_grad(loss, has_aux=True)(model, core.init_state(model), key, batch)

    grads, sums = eqx.filter_eval_shape(run, jr.key(0), shapes)
    assert sums.loss.shape == ()
    assert (sums.state is not None) == (case == "shortcut")
    assert diffusion.rules(config, FACTS).shape == (8, 8, 1)
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(grads)}
    assert any("span" in name for name in names) == (config.objective != "consistency")
    assert any("guide" in name for name in names) == (case.startswith("improved"))


@pytest.mark.parametrize(("changes", "holds"), [({}, True), ({"high": 80.0, "mean": -1.1, "std": 2.0}, False)])
def test_a_preset_of_consistency_trains_the_levels_that_samples_start_from(changes, holds):
    config = diffusion.PRESETS["digits-consistency"]
    known = {"high": config.denoiser.schedule.sigma_max, "mean": config.loss.mean, "std": config.loss.std} | changes
    t, s = pairs.consistency_times((jnp.arange(20_000) + 0.5) / 20_000, config.few_step.last, **known)
    scale = jax.vmap(EDM(None).scalings)(t).c_out
    gradient = np.asarray(scale / (t - s))  # of the network, at an error of any size: the distance is all but a norm
    assert (gradient[t > known["high"] / 8].sum() / gradient.sum() > 0.05) == holds
    assert config.sampling.sigma_max == config.denoiser.schedule.sigma_max


def awake(config):
    """A denoiser whose last layers are not zero, as they are at the start."""
    model = diffusion.model(config, FACTS)(jr.key(0))
    arrays, still = eqx.partition(model, eqx.is_inexact_array)
    leaves, shape = jax.tree.flatten(arrays)
    leaves = [x + 0.1 * jr.normal(key, x.shape) for x, key in zip(leaves, jr.split(jr.key(1), len(leaves)))]
    return eqx.combine(jax.tree.unflatten(shape, leaves), still)


@full
def test_the_loss_of_a_model_in_bfloat16_is_computed_in_float32():
    config = config_of(".", few_step=FewStepLoss(power=0.0, equal=0.0), label_dropout=0.0)
    model = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x, awake(config))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, model)
    batch = {
        "image": jr.normal(jr.key(2), (2, 8, 8, 1)),
        "label": jnp.array([3, 5]),
        "index": jnp.arange(2),
        "weight": jnp.ones(2),
    }
    core = eqx.filter_jit(
        lambda model: diffusion.loss(config, FACTS)({"denoiser": model}, batch, jr.split(jr.key(3), 2), Context())
    )
    np.testing.assert_allclose(core(model).loss, core(wide).loss, rtol=1e-5)


@full
def test_the_target_of_shortcut_is_the_average_of_the_weights_and_moves_towards_them():
    config, core = parts_of("shortcut", accumulate=2, few_step=FewStepLoss(equal=0.0))
    model = {"denoiser": awake(config)}
    state = jax.tree.map(jnp.zeros_like, target(config, model))
    batch = {"image": jnp.zeros((1, 8, 8, 1)), "label": jnp.array([3]), "index": jnp.arange(1), "weight": jnp.ones(1)}
    loss = jax.jit(lambda state: core.loss(model, batch, jr.split(jr.key(3), 1), Context(state, step=100_000)))
    once = loss(state)
    twice = loss(once.state)
    for weight, moved in zip(jax.tree.leaves(target(config, model)), jax.tree.leaves(twice.state)):
        np.testing.assert_allclose(moved, 0.001 * weight, rtol=2e-3, atol=1e-7)
    assert once.loss != loss(target(config, model)).loss


def test_a_second_time_changes_no_parameter_of_a_net_of_one_time():
    one, two = (diffusion.model(config_of(".", name), FACTS)(jr.key(5)).net for name in ("consistency", "meanflow"))
    known = dict(jax.tree_util.tree_leaves_with_path(eqx.filter(two, eqx.is_array)))
    rest = {jax.tree_util.keystr(path).split(".")[1] for path in known}
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(one, eqx.is_array)):
        assert np.array_equal(leaf, known.pop(path))
    assert {jax.tree_util.keystr(path).split(".")[1] for path in known} == {"span"} < rest
    assert one.span is None
    assert one.guide is None


@pytest.mark.parametrize("backbone", ["dit", pytest.param("unet", marks=full)])
def test_the_derivative_of_a_net_of_two_times_is_that_of_finite_differences(backbone):
    config = config_of(".", backbone=backbone, unet=dataclasses.replace(NET, dropout=0.3))
    denoiser = awake(config)
    z, v = jr.normal(jr.key(6), (2, 8, 8, 1))
    t, r, h = *jnp.array([0.7, 0.4]), 3e-5
    average = jax.jit(lambda z, t, r: denoiser.average(z, t, r, 3, key=jr.key(7)))
    _, change = jax.jit(
        lambda z, t: jax.jvp(lambda z, t: denoiser.average(z, t, r, 3, key=jr.key(7)), (z, t), (v, jnp.ones_like(t)))
    )(z, t)
    moved = [np.asarray(average(z + side * h * v, t + side * h, r), np.float64) for side in (1, -1)]
    wanted = (moved[0] - moved[1]) / (2 * h)
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(change, wanted, atol=0.02 * np.abs(wanted).max())


@full
def test_equal_times_alone_train_the_velocity_of_a_flow():
    config = config_of(".", few_step=FewStepLoss(power=0.0, equal=1.0), label_dropout=0.0)
    model = awake(config)
    batch = {
        "image": jr.normal(jr.key(2), (2, 8, 8, 1)),
        "label": jnp.array([3, 5]),
        "index": jnp.arange(2),
        "weight": jnp.ones(2),
    }
    sums = diffusion.loss(config, FACTS)({"denoiser": model}, batch, jr.split(jr.key(3), 2), Context())
    assert sums.metrics["error"] * 64 == pytest.approx(float(sums.loss), rel=1e-5)
    one = lambda t: meanflow_loss(model.average, batch["image"][0], t, t, 3, noise=batch["image"][1], power=0.0)
    velocity = model.average(0.5 * batch["image"].sum(0), jnp.float32(0.5), jnp.float32(0.5), 3)
    wanted = np.sum(np.square(velocity - (batch["image"][1] - batch["image"][0])))
    np.testing.assert_allclose(one(jnp.float32(0.5)), wanted, rtol=1e-4)
