"""Runs that train a part of a model: frozen parameters, a new head, low-rank updates."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from eqxgen import nn
from eqxgen.configs import ResNetConfig, ViTConfig
from tests.full import full
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights
from train import classify
from train._errors import UsageError
from train.config.base import parse
from train.config.optim import LoraConfig, OptimConfig
from train.engine.dryrun import on_paper
from train.engine.recipe import Context
from train.engine.recipes import RECIPES, named
from train.engine.tuning import division, tuned
from train.params.paths import named_arrays
from train.tasks.facts import ClassifierFacts

FACTS = ClassifierFacts((8, 8, 1), 10, 17)
VIT = ViTConfig(patch=4, dim=16, depth=2, heads=2, hidden_dim=32, dropout=0.1, registers=1)
RESNET = ResNetConfig(width=8, multipliers=(1, 2), blocks=1)


def config_of(folder, **changes):
    values = {
        "steps": 4,
        "batch_size": 8,
        "log_every": 1,
        "checkpoint_every": 2,
        "sample_every": 0,
        "evals": ("none",),
        "backbone": "vit",
        "vit": VIT,
        "model": RESNET,
        "optim": OptimConfig(learning_rate=1e-2, warmup=1, decay="constant"),
    }
    return dataclasses.replace(classify.PRESETS["digits"], run_dir=str(folder), **values | changes)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A transformer and a ResNet of two steps."""
    folder = tmp_path_factory.mktemp("tuning")
    for name in ("vit", "resnet"):
        assert classify.main(config_of(folder / name, steps=2, backbone=name)) == 0
    return folder


def state_names(folder):
    """Arrays of the model in a run's last checkpoint."""
    last = max((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    return {path.name.removeprefix("model.") for path in (last / "state").iterdir() if path.name.startswith("model.")}


def test_low_rank_updates_alone_are_in_the_checkpoints_and_the_merged_model_is_released(parent, tmp_path):
    config = config_of(tmp_path / "lora", start_from=str(parent / "vit"), lora=LoraConfig(rank=2, alpha=4.0))
    assert classify.main(config) == 0
    names = state_names(tmp_path / "lora")
    assert len(names) == 2 * 6
    assert all(name.rpartition(".")[2] in ("lora_a", "lora_b") for name in names)
    base, made = weights(parent / "vit"), weights(tmp_path / "lora")
    assert base.keys() == made.keys()
    moved = {name for name in base if not np.array_equal(base[name], made[name])}
    assert moved == {name.replace("lora_a", "weight") for name in names if name.endswith("lora_a")}
    assert train.load(tmp_path / "lora" / "model.safetensors")(jnp.zeros((8, 8, 1))).shape == (10,)


@full
def test_a_resumed_run_of_low_rank_updates_equals_an_uninterrupted_one_bit_for_bit(parent, tmp_path, monkeypatch):
    config = config_of(tmp_path / "lora", start_from=str(parent / "vit"), lora=LoraConfig(rank=2, alpha=4.0))
    assert classify.main(config) == 0
    other = dataclasses.replace(config, run_dir=str(tmp_path / "other"))
    crashed_and_resumed(classify, other, 3, monkeypatch)
    assert same(weights(tmp_path / "other"), weights(tmp_path / "lora"))
    assert metrics(tmp_path / "other") == metrics(tmp_path / "lora")


@full
def test_a_low_rank_update_begins_as_the_base_and_has_gradients_alone():
    config = config_of("new", start_from="base", lora=LoraConfig(rank=3))
    program = classify.program(config, FACTS)
    parts = division(config, program, ())
    base, adapted = program.init(jax.random.key(1)), parts.make(jax.random.key(1))
    core = tuned(program, parts, lambda: parts.rest(adapted))
    moved, frozen = core.init(jax.random.key(1)), core.frozen()
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.normal(size=(5, 8, 8, 1)), jnp.float32),
        "label": jnp.arange(5) % 10,
        "weight": jnp.ones(5),
    }
    keys = jax.random.split(jax.random.key(2), 5)

    @eqx.filter_jit
    def both(moved, base):
        loss = lambda moved: core.loss(moved, batch, keys, Context(None, frozen)).loss
        return eqx.filter_value_and_grad(loss)(moved), program.loss(base, batch, keys, Context()).loss

    (first, grads), second = both(moved, base)
    assert float(first) == float(second)
    grads = named_arrays(grads)
    assert grads.keys() == named_arrays(moved).keys()
    assert all(name.endswith(("lora_a", "lora_b")) for name in grads)
    assert all(np.any(grads[name] != 0) == name.endswith("lora_b") for name in grads)
    shift = lambda x: x + 0.1 * jax.random.normal(jax.random.key(3), x.shape) if eqx.is_array(x) else x
    learned = jax.tree.map(shift, adapted)
    image = jax.random.normal(jax.random.key(4), (8, 8, 1))
    call = eqx.filter_jit(lambda net: net(image, inference=True))
    np.testing.assert_allclose(call(learned), call(nn.merge_lora(learned)), rtol=1e-6, atol=1e-6)


def test_a_linear_probe_moves_the_new_head_alone_and_keeps_the_statistics_of_batch_norm(parent, tmp_path):
    config = config_of(tmp_path, start_from=str(parent / "resnet"), backbone="resnet", freeze=("**",), new_head=True)
    assert classify.main(config) == 0
    assert state_names(tmp_path) == {"head.weight", "head.bias"}
    base, made = weights(parent / "resnet"), weights(tmp_path)
    moved = {name for name in base if not np.array_equal(base[name], made[name])}
    assert moved == {"model.head.weight", "model.head.bias"}
    assert any(name.startswith("state.") for name in base)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["from"]["left"] == 2


def test_frozen_parameters_keep_their_values_and_the_others_move(parent, tmp_path):
    config = config_of(tmp_path, start_from=str(parent / "vit"), freeze=("stack", "patches"))
    assert classify.main(config) == 0
    base, made = weights(parent / "vit"), weights(tmp_path)
    still = {name for name in base if np.array_equal(base[name], made[name])}
    assert still == {name for name in base if name.startswith(("stack", "patches"))}


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if name not in ("klvae", "rnn", "segment", "vqgan", "wavegru")]
)
def test_every_recipe_with_projections_takes_low_rank_updates(name, shared_data, monkeypatch):
    monkeypatch.setenv("EQXGEN_DATA", str(shared_data))
    recipe = named(name)
    preset = next(iter(recipe.presets.values()))
    config = dataclasses.replace(preset, start_from="base", lora=LoraConfig(rank=1))
    program = on_paper(config, recipe.program(config, recipe.on_paper(config)))
    if len(program.players) == 1:
        found = named_arrays(eqx.filter_eval_shape(program.init, jax.random.key(0)))
        assert {path.rpartition(".")[2] for path in found} == {"lora_a", "lora_b"}


def test_a_division_of_shapes_is_compiled_on_paper():
    config = config_of("new", start_from="base", freeze=("**",), new_head=True)
    program = on_paper(config, classify.program(config, FACTS))
    shapes = jax.eval_shape(lambda key: named_arrays(program.init(key)), jax.random.key(0))
    assert set(shapes) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"freeze": ("stacks",)}, "--freeze: a path pattern must name something: got 'stacks'.*nearest: stack"),
        ({"freeze": ("**",)}, r"--freeze \*\*: must leave something to train: got every parameter"),
        ({"lora": LoraConfig(rank=2, targets=("mlp",))}, "--lora.targets: a path pattern must name something"),
        ({"lora": LoraConfig(rank=2, targets=("norm",))}, "--lora.rank 2, of --lora.targets norm: it is for models"),
        ({"lora": LoraConfig(rank=17)}, "--lora.rank 17.*rank must be at most the weight's smaller side"),
        ({"data": "grey"}, "its head must be of the 3 classes of the data: got 10; --new-head"),
    ],
)
def test_a_part_that_cannot_be_trained_is_one_line_before_any_compile(changes, says, parent, tmp_path):
    if "data" in changes:
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (30, 8, 8, 1), np.uint8), np.arange(30) % 3
        np.savez(tmp_path / "grey.npz", images=images, labels=labels)
        changes = {"data": dataclasses.replace(classify.PRESETS["digits"].data, name=str(tmp_path / "grey.npz"))}
    config = config_of(tmp_path / "run", start_from=str(parent / "vit"), **changes)
    with pytest.raises(UsageError, match=says):
        classify.main(config)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--lora.alpha 8", "--lora.alpha goes with --lora.rank, which was not given"),
        ("--lora.rank 2 --lora.alpha 0 --from x", "lora.alpha must be positive and finite: got 0"),
        ("--lora.rank 2 --lora.targets --from x", "lora.targets must be one or more patterns"),
        ("--freeze stack --lora.rank 2 --from x", "freeze goes without lora.rank"),
    ],
)
def test_a_wrong_flag_of_a_part_is_one_line(flags, says):
    with pytest.raises(UsageError, match=says):
        parse("classify", classify.Config, classify.PRESETS, "", flags.split())
