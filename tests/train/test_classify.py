"""The classifier recipe: three nets as runs of the loop and as released models; mixing, pictures, classified folders."""

import csv
import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import train
from eqxgen.configs import ConvNetConfig, ResNetConfig, ViTConfig
from eqxgen.models import ResNet, ViT
from eqxgen.nn import WithState
from tests.full import FULL, full
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from train import classify, sample
from train._errors import UsageError, UserError
from train.config.base import parse
from train.data import load
from train.engine.dryrun import abstract_update
from train.engine.recipe import Context
from train.engine.step import Setup, abstract_state
from train.parallel import make_mesh
from train.params.paths import named_arrays
from train.tasks.classify import nets, pictures
from train.tasks.facts import ClassifierFacts

SIZES = ResNetConfig(width=8, multipliers=(1, 2), blocks=1, dropout=0.1)


def config_of(folder, **changes):
    values = {"steps": 6, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, "model": SIZES}
    return dataclasses.replace(classify.PRESETS["digits"], run_dir=str(folder), **values | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify") / "whole"
    assert classify.main(config_of(folder, sample_every=6)) == 0
    return folder


@full
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


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify") / "vit"
    mix = classify.MixConfig(mixup=0.4, cutmix=1.0)
    sizes = {"backbone": "vit", "vit": ViTConfig(patch=4, dim=16, depth=2, heads=2, registers=1, dropout=0.1)}
    assert classify.main(config_of(folder, steps=2, sample_every=2, mix=mix, **sizes)) == 0
    return folder


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


@full
def test_a_run_ends_with_pictures_of_its_confusion_and_attention(whole, transformer):
    data = load(config_of(whole).data)
    for folder in (whole, transformer):
        with (folder / "confusion.csv").open(newline="") as file:
            first, *rows = csv.reader(file)
        assert first == ["label", *data.class_names]
        counts = np.array([row[1:] for row in rows], int)
        np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(data.test_labels, minlength=10))
        summary = json.loads((folder / "summary.json").read_text())
        assert np.trace(counts) / counts.sum() == pytest.approx(summary["eval_accuracy"])
        assert size_of(folder / "confusion.png") == (12 * pictures.CELL, 12 * pictures.CELL)
    assert (transformer / "attention.png").exists()
    assert not (whole / "attention.png").exists()


@full
def test_attention_is_a_share_of_every_token(transformer):
    model = train.load(transformer / "model.safetensors")
    assert isinstance(model, ViT)
    image = jax.random.normal(jax.random.key(0), (8, 8, 1))
    maps = model.attention(image)
    assert maps.shape == (2, 2, 2, 2)
    assert jnp.all((maps > 0) & (maps.sum(axis=(2, 3))[..., None, None] < 1))
    first = jax.tree.map(lambda x: x[0] if isinstance(x, jax.Array) else x, model.stack.blocks)
    x = first.attention_norm(model._sequence(model.embedded(image)))
    q, k, _ = (part.reshape(-1, 2, 8) for part in first.attention._heads(x, None))
    logits = jnp.einsum("hd,khd->hk", q[0], k) / np.sqrt(8)
    np.testing.assert_allclose(maps[0].reshape(2, 4), jax.nn.softmax(logits)[:, 2:], rtol=1e-5)


def test_pictures_of_a_folder_get_a_table_and_a_picture(transformer, tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "in" / "more").mkdir(parents=True)
    for name, shape in {"a.png": (8, 8), "more/b.png": (20, 30, 3)}.items():
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / "in" / name)
    for name in ("c.txt", "d.txt", "more/e.heic"):
        (tmp_path / "in" / name).write_text("x")
    out = tmp_path / "guesses.png"
    assert sample.main(words(run=transformer, images=tmp_path / "in", out=out, top=2)) == 0
    said = capsys.readouterr().out
    assert "in: 2 files; 3 left out: 3 of another kind (c.txt, more/e.heic, d.txt)" in said
    assert "2 pictures (1 resized to 8 x 8, 1 without their colours)" in said
    with out.with_suffix(".csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["file"] for row in rows] == ["a.png", "more/b.png"]
    with Image.open(tmp_path / "in" / "a.png") as picture:
        pixels = np.asarray(picture, np.float32)[..., None] / 127.5 - 1
    shares = jax.nn.softmax(train.load(transformer / "model.safetensors")(jnp.asarray(pixels)))
    order = np.argsort(-shares)
    assert [int(rows[0][name]) for name in ("label", "label_2")] == list(order[:2])
    assert float(rows[0]["probability"]) == pytest.approx(float(shares[order[0]]), abs=2e-6)
    assert rows[0]["name"] == load(config_of(transformer).data).class_names[order[0]]
    assert size_of(out) == (2 * 100, 114)
    for asked, says in (
        ({"images": tmp_path / "none"}, "expected a picture or a folder of pictures"),
        ({"images": tmp_path / "in", "top": 11}, "--top must be at most the classes of the run, 10: got 11"),
        ({"top": 2}, "top goes with images, which was not given"),
        ({"per_class": 3000, "out": f"{tmp_path}/x/"}, "--per-class must be at most the held-out images of class 0, "),
        ({"n": 3000, "out": f"{tmp_path}/x/"}, "--n must be at most the held-out images of the classes, .*: got 3,000"),
    ):
        with pytest.raises(UserError, match=says):
            sample.main(words(**{"run": transformer, "out": out, **asked}))


@full
def test_mixing_is_of_the_whole_batch_however_it_is_split(tmp_path):
    sizes = {"backbone": "conv", "conv": ConvNetConfig(width=8, levels=1, features=8, dropout=0.0)}
    options = {"steps": 2, "evals": ("none",), "mix": classify.MixConfig(mixup=0.4, cutmix=0.4), **sizes}
    runs = {}
    for accumulate in (1, 4):
        folder = tmp_path / str(accumulate)
        assert classify.main(config_of(folder, accumulate=accumulate, **options)) == 0
        runs[accumulate] = metrics(folder)
    for first, second in zip(runs[1], runs[4], strict=True):
        assert second == pytest.approx(first, rel=1e-4)


def test_the_loss_of_a_mixed_batch_is_that_of_its_soft_targets():
    config = classify.Config(
        backbone="conv",
        conv=ConvNetConfig(width=8, levels=1, features=8, dropout=0.0),
        mix=classify.MixConfig(mixup=1.0),
    )
    program = classify.program(config, ClassifierFacts((8, 8, 1), 4))
    net = program.init(jax.random.key(0))
    labels = jnp.array([0, 1, 2, 3])
    batch = {"image": jax.random.normal(jax.random.key(1), (4, 8, 8, 1)), "label": labels, "weight": jnp.ones(4)}
    after = program.mix(batch, jax.random.key(2))
    share = after["target"][0, 0]
    np.testing.assert_allclose(
        after["image"][0], share * batch["image"][0] + (1 - share) * batch["image"][3], rtol=1e-5
    )
    keys = jax.random.split(jax.random.key(3), 4)
    sums = program.loss(net, after, keys, Context())
    logs = jax.nn.log_softmax(jax.vmap(lambda image, key: net(image, key=key))(after["image"], keys))
    smooth = 0.9 * after["target"] + 0.1 / 4
    assert float(sums.loss) == pytest.approx(float(-(smooth * logs).sum()), rel=1e-5)


def test_images_are_normalised_as_published_nets_expect_them():
    config = classify.Config(normalise="imagenet", model=SIZES)
    model = classify.model(config, ClassifierFacts((8, 8, 3), 4))(jax.random.key(0))
    image = jax.random.uniform(jax.random.key(1), (8, 8, 3))
    mean, deviation = (np.float32(x) for x in nets.NORMALISED["imagenet"])
    expected = jnp.asarray((np.asarray(image) - mean) / deviation)
    np.testing.assert_allclose(model(2 * image - 1), model.model(expected), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="--normalise imagenet: must have images of 3 channels: got 1"):
        classify.model(config, ClassifierFacts((8, 8, 1), 4))(jax.random.key(0))


@pytest.mark.parametrize("name", ["cifar10-resnet", "cifar10-vit", "imagenet-vit-s16", "imagenet-resnet50"])
def test_large_presets_have_steps_on_paper(name):
    config = classify.PRESETS[name]
    program = classify.program(config, classify.RECIPE.on_paper(config))
    state = abstract_state(Setup.of(config, program, make_mesh("", jax.devices()[:1]), on_cpu=True))
    assert not any("positions" in path for path in named_arrays(state.opt_state))
    if FULL:
        update, inputs, state = abstract_update(config, program, make_mesh("", jax.devices()[:1]))
        after, found = eqx.filter_eval_shape(update, inputs, state)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert "accuracy" in found


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--label-smoothing", "1"], r"label_smoothing must be in \[0, 1\): got 1"),
        (["--model.multipliers", "0"], "model.multipliers must be one or more integers of at least 1: got"),
        (["--model.blocks", "0"], "model.blocks must be"),
        (["--mix.mixup", "-1"], "mix.mixup must be at least 0 and finite: got -1"),
        (["--mix.cutmix", "inf"], "mix.cutmix must be at least 0 and finite: got inf"),
        (["--backbone", "mlp"], "--backbone must be one of conv, mage, resnet, vit: got 'mlp'"),
        (["--vit.dim", "24"], "--vit.dim goes with --backbone vit, which was not given"),
        (["--backbone", "conv", "--conv.width", "12"], "conv.width must be a multiple of 8: got 12"),
        (["--backbone", "vit", "--vit.positions", "none"], "vit.positions must be one of learned, sincos"),
        (["--evals", "classifier"], "evals must be of labels, none: got .classifier."),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(flags, says):
    with pytest.raises(UsageError, match=says):
        parse("classify", classify.Config, classify.PRESETS, "", flags)
