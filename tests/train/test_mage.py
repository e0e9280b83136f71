"""`train.mage`: a run without labels and with views, its probe and samples, and options that cannot be."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from eqxgen.configs import MaskedDecoding, VQGANConfig
from tests.models.model_rows import SMALL_MAGE
from tests.train.small_runs import words
from train import classify, evaluate, mage, sample, vqgan
from train._errors import UsageError, UserError
from train.config.base import parse
from train.config.evals import CLASSIFIER
from train.engine.recipes import load
from train.evaluators import fine_tuning
from train.evaluators.base import Evaluator
from train.evaluators.probe import regression
from train.tasks.facts import TokenFacts

FACTS = TokenFacts((8, 8, 1), 10, 64, 17)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of MAGE-C on digits, without labels."""
    folder = tmp_path_factory.mktemp("mage") / "run"
    values = {"steps": 2, "batch_size": 8, "sample_every": 0, "conditional": False, "contrast": 0.1, "shift": 1}
    model = dataclasses.replace(SMALL_MAGE, projection=4, depth=1)
    values |= {"model": model, "decode": MaskedDecoding(steps=1), "evals": ("probe",)}
    assert mage.main(dataclasses.replace(mage.PRESETS["digits"], run_dir=str(folder), **values)) == 0
    return folder


def test_a_run_without_labels_has_a_probe_and_both_losses_in_its_summary(run):
    summary = json.loads((run / "summary.json").read_text())
    assert 0.1 < summary["probe_accuracy"] <= summary["probe_train_accuracy"] + 0.2
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["loss"] == pytest.approx(line["tokens"] + 0.1 * line["contrast"], rel=1e-4)
    assert load(run / "model.safetensors", "mage").features([3] * 64).shape == (16,)


@pytest.fixture(scope="module")
def on_codes(tmp_path_factory):
    """A run on the tokens of a small tokenizer."""
    folder = tmp_path_factory.mktemp("codes")
    few = {"steps": 2, "batch_size": 8, "sample_every": 0, "evals": ("none",)}
    sizes = VQGANConfig(width=4, multipliers=(1, 2), blocks=1, latent_dim=4, codes=8)
    values = few | {"model": sizes, "run_dir": str(folder / "tokenizer")}
    assert vqgan.main(dataclasses.replace(vqgan.PRESETS["digits"], **values)) == 0
    values = few | {"model": dataclasses.replace(SMALL_MAGE, depth=1), "run_dir": str(folder / "run")}
    values |= {"tokenizer": str(folder / "tokenizer"), "decode": MaskedDecoding(steps=1)}
    assert mage.main(dataclasses.replace(mage.PRESETS["digits"], **values)) == 0
    return folder / "run"


def classified(start, folder, *flags, steps=2):
    """Arrays of a classifier on the encoder of a run."""
    given = words(backbone="mage", run_dir=folder, steps=steps, batch_size=8, sample_every=0)
    config = parse("classify", classify.Config, classify.PRESETS, "", [*given, f"--from={start}", *flags])
    assert classify.main(config) == 0
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["pixels", "codes"])
def test_an_image_classifier_begins_with_the_encoder_and_its_tokenizer_is_not_trained(kind, request, tmp_path):
    start = request.getfixturevalue("run" if kind == "pixels" else "on_codes")
    found, before = classified(start, tmp_path / "tuned"), load_file(start / "model.safetensors")
    encoder = {name.removeprefix("model."): x for name, x in found.items() if name.startswith("model.encoder.")}
    assert encoder.keys() == {name for name in before if name.startswith("encoder.")} - {
        "encoder.norm.scale",
        "encoder.norm.bias",
    }
    moved = {name for name, x in encoder.items() if not np.array_equal(x, before[name])}
    assert "encoder.embedding.weight" in moved
    assert all(np.abs(x - before[name]).max() < 0.1 for name, x in encoder.items())
    tokens = {name.removeprefix("model.tokenizer."): x for name, x in found.items() if "tokenizer" in name}
    kept = {} if kind == "pixels" else load_file(start / "tokenizer.safetensors")
    assert tokens.keys() == kept.keys()
    for name, x in tokens.items():
        np.testing.assert_array_equal(x, kept[name], err_msg=name)


def test_a_linear_probe_trains_the_head_alone_and_is_used_without_the_runs_that_it_began_with(on_codes, tmp_path):
    shutil.copytree(on_codes, tmp_path / "mage")
    found = classified(tmp_path / "mage", tmp_path / "probe", "--freeze", "**")
    before = load_file(on_codes / "model.safetensors")
    np.testing.assert_array_equal(found["model.encoder.embedding.weight"], before["encoder.embedding.weight"])
    assert np.abs(found["model.head.bias"]).max() > 0
    shutil.rmtree(tmp_path / "mage")
    net = load(tmp_path / "probe" / "model.safetensors", "classify")
    assert net(jnp.zeros((8, 8, 1))).shape == (10,)
    assert sample.main(words(run=tmp_path / "probe", out=tmp_path / "x.npz")) == 0
    again = classified(tmp_path / "probe", tmp_path / "again")  # from the classifier, head and all
    assert again.keys() == found.keys()


def test_a_tokenizer_that_is_gone_or_another_is_one_line(on_codes, tmp_path):
    shutil.copytree(on_codes, tmp_path / "mage")
    kept = tmp_path / "mage" / "tokenizer.safetensors"
    values = {"backbone": "mage", "start_from": str(tmp_path / "mage"), "run_dir": str(tmp_path / "run")}
    config = dataclasses.replace(classify.PRESETS["digits"], batch_size=8, **values)
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for main in (
        lambda: classify.main(config),
        lambda: sample.main(words(run=tmp_path / "mage", out=tmp_path / "x.npz")),
        lambda: evaluate.main(words(run=tmp_path / "mage", evals="probe")),
    ):
        with pytest.raises(
            UserError, match=r"is not the tokenizer that the run began with|tokenizer are not those of its"
        ):
            main()
    kept.unlink()
    with pytest.raises(UserError, match=r"^--from .*: has no tokenizer\.safetensors, which its run began with"):
        classify.main(config)


def test_a_classifier_of_other_images_than_the_encoders_is_one_line(on_codes, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 12, 12, 1), np.uint8), labels=np.arange(40) % 10)
    data = dataclasses.replace(classify.PRESETS["digits"].data, name=str(tmp_path / "x.npz"))
    values = {"backbone": "mage", "start_from": str(on_codes), "data": data, "run_dir": str(tmp_path / "run")}
    config = dataclasses.replace(classify.PRESETS["digits"], batch_size=8, **values)
    says = (
        r"^--from .*: is for images of \(8, 8, 1\) \(height, width, channels\), but those of .* are \(12, 12, 1\): give"
    )
    with pytest.raises(UserError, match=says):
        classify.main(config)


def test_fine_tuning_begins_with_the_probe_and_is_asked_for_by_name(run, monkeypatch, capsys):
    monkeypatch.setattr(fine_tuning, "PASSES", 0)
    monkeypatch.setattr(fine_tuning, "LEAST", 3)
    assert "fine_tuned_accuracy" not in (run / "summary.json").read_text()
    assert evaluate.main(words(run=run, evals="fine_tuning", out=run / "found.json")) == 0
    assert "fine-tuning: 3 steps of 128" in capsys.readouterr().out
    probe = json.loads((run / "summary.json").read_text())["probe_accuracy"]
    assert json.loads((run / "found.json").read_text())["fine_tuned_accuracy"] == pytest.approx(probe, abs=0.05)


def test_samples_without_labels_are_drawn_and_a_class_of_them_is_one_line(run, tmp_path):
    assert sample.main(words(run=run, n=2, out=tmp_path / "x.npz")) == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["images"].shape == (2, 8, 8, 1)
    for flags in ({"label": 3}, {"labels": 3}, {"per_class": 2}):
        flag = next(iter(flags)).replace("_", "-")
        with pytest.raises(UsageError, match=f"^--{flag} goes with a model of classes: --run .* --no-conditional"):
            sample.main(words(run=run, out=tmp_path / "y.npz", **flags))
    with pytest.raises(UsageError, match=r"^--guidance must be 1 with --no-conditional: got 2"):
        sample.main(words(run=run, out=tmp_path / "y.npz", guidance=2.0))


def test_samples_without_a_class_have_no_accuracy():
    data = dataclasses.make_dataclass("Data", ["train_labels", "test", "test_labels", "num_classes"])
    empty = data(np.zeros(3, int), np.zeros((2, 64), int), np.zeros(2, int), 10)
    judge = Evaluator(CLASSIFIER, lambda *_: {})
    free = dataclasses.replace(mage.PRESETS["digits"], conditional=False, decode=MaskedDecoding())
    first, probe, _ = mage.offered(free, empty, (judge,))
    assert "--no-conditional" in first.lacks
    assert not probe.lacks
    assert mage.offered(mage.PRESETS["digits"], empty, (judge,))[0] is judge


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrast": 0.1}, "contrast goes with model.projection, both 0 or both above: got 0.1 and 0"),
        ({"model": SMALL_MAGE, "contrast": -1.0}, "contrast must be at least 0 and finite: got -1.0"),
        ({"shift": 1}, "shift must be 0 without contrast: got 1"),
        ({"shift": -1}, "shift must be at least 0: got -1"),
        ({"probe_examples": 1}, "probe_examples must be at least 2: got 1"),
        ({"temperature": 0.0}, "temperature must be positive and finite: got 0.0"),
        ({"label_dropout": 1.0}, r"label_dropout must be in \[0, 1\): got 1.0"),
        (
            {"model": dataclasses.replace(SMALL_MAGE, projection=4), "contrast": 0.1, "accumulate": 2},
            "accumulate must be 1 with contrast, whose negatives are one batch: got 2",
        ),
    ],
)
def test_an_option_that_cannot_be_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(mage.PRESETS["digits"], **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decode": MaskedDecoding(steps=65)}, r"decode\.steps must be from 1 to the number of tokens, 64: got 65"),
        ({"conditional": False}, r"decode\.guidance must be 1 with --no-conditional: got 1\.8"),
    ],
)
def test_a_sampler_that_cannot_be_is_an_error_before_any_compile(changes, message):
    with pytest.raises(ValueError, match=message):
        mage.draw(dataclasses.replace(mage.PRESETS["digits"], **changes), FACTS)


def test_a_view_cannot_be_moved_by_the_whole_grid():
    model = dataclasses.replace(SMALL_MAGE, projection=4)
    config = dataclasses.replace(mage.PRESETS["digits"], contrast=0.1, model=model, shift=8)
    with pytest.raises(
        UsageError, match=r"^--shift must be below the shorter side of the grid of 8 x 8 tokens: got 8$"
    ):
        mage.RECIPE.on_paper(config)


def test_views_are_in_a_batch_only_where_they_are_contrasted():
    plain = mage.RECIPE.program(mage.PRESETS["digits"], FACTS)
    model = dataclasses.replace(mage.PRESETS["digits"].model, projection=8)
    config = dataclasses.replace(mage.PRESETS["digits"], contrast=0.1, model=model)
    assert (set(plain.shapes), set(mage.RECIPE.program(config, FACTS).shapes)) == (
        {"ids", "label"},
        {"ids", "label", "other"},
    )


def test_a_probe_finds_the_regression_with_the_least_loss():
    rng = np.random.default_rng(0)
    x, right = rng.normal(size=(300, 2)), np.array([[2.0, -1.0, 0.0], [0.5, 1.0, -2.0]])
    labels = np.argmax(x @ right + np.array([0.3, 0.0, -0.2]) + rng.gumbel(size=(300, 3)), axis=1)
    weight, bias = regression(x, labels, 3)
    scores = x @ weight + bias
    share = np.exp(scores - scores.max(axis=1, keepdims=True))
    slope = (share / share.sum(axis=1, keepdims=True) - np.eye(3)[labels]) / len(x)
    np.testing.assert_allclose(x.T @ slope + 1e-4 * weight, 0, atol=1e-3)
    np.testing.assert_allclose(slope.sum(axis=0), 0, atol=1e-3)
