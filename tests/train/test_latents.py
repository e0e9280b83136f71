"""Latents and tokens that are prepared once: what is written, what training reads, and what is refused."""

# A case is a row, however long.

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import AutoencoderConfig, DiTConfig, VQGANConfig
from eqxgen.models import VQGAN
from eqxgen.models.autoencoder import KLAutoencoder, VQAutoencoder
from eqxgen.nn.distributions import DiagonalGaussian
from eqxgen.pretrained import to_pretrained
from tests.devices import ROOT, environment
from tests.train.latents_prepared import SHARD
from tests.train.small_runs import crashed_and_resumed, tiny
from train import diffusion, maskgit, sample, vqgan
from train._errors import UserError
from train._files import write_json
from train.config.base import to_dict
from train.config.data import AugmentConfig, DataConfig
from train.config.optim import EmaConfig
from train.data import Part, load
from train.data.__main__ import Prepare, encodes_images
from train.data.encoded import IDS, LATENTS, Statistics, read_encoded, sums_of
from train.data.images.picture import read_picture
from train.data.inspection import check
from train.engine import recipes
from train.parallel import make_mesh
from train.run.weights import digest, save_model
from train.tasks import denoising
from train.tasks.denoised import decoded, tree_of
from train.tasks.encoded.encoding import prepare_encoded
from train.tasks.encoded.latents import SCALE, Latents, autoencoder_of, drawn, latents_of
from train.tasks.facts import ImageFacts, LatentFacts, TokenFacts
from train.tasks.tokenizers import keep_tokenizer, tokenizer_at, tokenizer_of_run

NET = AutoencoderConfig(widths=(4, 4), blocks=1, latent_dim=3, groups=2, middle_attention=False)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 6, 3), np.uint8)
QUIET = lambda line: None
FLIP = AugmentConfig(flip=True)


@dataclasses.dataclass(frozen=True)
class Made:
    """A folder with `x.npz`, published autoencoders `kl` and `vq`, and sets `latents` and `ids` made of them."""

    path: Path
    kl: KLAutoencoder
    vq: VQAutoencoder

    def config(self, name: str, **values) -> DataConfig:
        return DataConfig(str(self.path / name), **values)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("latents")
    np.savez(path / "x.npz", images=IMAGES, labels=np.arange(30) % 3, class_names=np.array(["a", "b", "c"]))
    kl = KLAutoencoder(3, NET, key=jr.key(0))
    vq = VQAutoencoder(3, 32, NET, code_dim=2, key=jr.key(1))
    to_pretrained(kl, path / "kl", "autoencoder_kl")
    to_pretrained(vq, path / "vq", "autoencoder_vq")
    for tokenizer, out in (("kl", "latents"), ("vq", "ids")):
        prepare(path, tokenizer, out)
    return Made(path, kl, vq)


def prepare(path, tokenizer, out, say=QUIET, **options):
    options = {"mirror": True, "batch": 6, "shard_bytes": SHARD} | options
    config = DataConfig(str(path / "x.npz"))
    return prepare_encoded(config, path / out, str(path / tokenizer), make_mesh(""), say=say, **options)


def posteriors(kl, dataset, images):
    """Mean and deviation of each image, by the model itself."""
    mean, log_variance = jax.jit(jax.vmap(kl.encode))(dataset.normalise(images))
    return np.concatenate([mean, np.exp(0.5 * log_variance)], -1)


def test_prepared_latents_are_the_posteriors_of_the_images_and_of_their_mirror_images(made):
    dataset, found = load(made.config("x.npz")), read_encoded(made.config("latents"), LATENTS)
    both = np.concatenate([dataset.train_images, dataset.train_images[:, :, ::-1], dataset.test_images])
    rows = np.concatenate([*found.copies, found.test])
    np.testing.assert_allclose(rows, posteriors(made.kl, dataset, both), atol=2e-5)
    assert found.latent_shape == (4, 3, 3)
    assert np.array_equal(found.train_labels, dataset.train_labels)
    assert np.array_equal(found.test_labels, dataset.test_labels)
    assert (found.class_names, found.image_shape, found.levels) == (dataset.class_names, dataset.image_shape, 256)
    assert found.sha256 == digest(made.kl)
    assert found.images().fingerprint == dataset.fingerprint
    assert len(list((made.path / "latents").glob("train-0*"))) > 1  # shards


def test_statistics_are_those_of_draws_of_all_that_training_reads(made):
    found = read_encoded(made.config("latents"), LATENTS)
    mean, deviation = np.split(np.concatenate(found.copies).astype(np.float64), 2, axis=-1)
    np.testing.assert_allclose(found.statistics.mean, mean.mean((0, 1, 2)), rtol=1e-12)
    variance = np.mean(mean**2 + deviation**2, (0, 1, 2)) - mean.mean((0, 1, 2)) ** 2
    np.testing.assert_allclose(found.statistics.deviation, np.sqrt(variance), rtol=1e-12)


def test_statistics_do_not_depend_on_the_split_into_shards_and_keep_a_small_deviation_beside_a_large_mean():
    draws = np.random.default_rng(1).normal(size=(60, 3, 5, 4))
    moments = np.concatenate([100 + 0.01 * draws, np.full_like(draws, 0.02)], -1).astype(np.float32)
    whole, parts = (Statistics.of_sums(map(sums_of, np.split(moments, count))) for count in (1, 6))
    np.testing.assert_allclose(whole.deviation, parts.deviation, rtol=1e-7)
    exact = np.sqrt(moments[..., :4].astype(np.float64).var((0, 1, 2)) + np.float64(np.float32(0.02)) ** 2)
    np.testing.assert_allclose(whole.deviation, exact, rtol=1e-6)


def test_tokens_that_are_prepared_give_the_batches_of_those_made_at_the_start(made, tmp_path):
    common = {"batch_size": 8, "tokenizer": str(made.path / "vq")}
    tasks = []
    for name in ("x.npz", "ids"):
        config = tiny(tmp_path / name, data=made.config(name, augment=FLIP), **common)
        tasks.append(maskgit.RECIPE.task(config, tmp_path / name))
    plain, prepared = tasks
    assert plain.facts == prepared.facts
    assert prepared.facts.tokenizer == read_encoded(made.config("ids"), IDS).sha256
    for step in range(3):
        part = Part(step, np.arange(8, dtype=np.int32), np.arange(8, 16))
        first, second = plain.batch(part), prepared.batch(part)
        assert all(np.array_equal(first[name], second[name]) for name in ("ids", "label"))
        assert first["ids"].dtype == second["ids"].dtype == np.int32
    (tmp_path / "run").mkdir()
    prepared.prepare(tmp_path / "run")
    kept = maskgit.RECIPE.task(tiny(tmp_path / "run", data=made.config("ids"), **common), tmp_path / "run")
    assert kept.facts == prepared.facts  # by the run's own copy


def published(seed=0):
    """Posteriors, and what Stable Diffusion's factor makes of their draws."""
    keys = jr.split(jr.key(seed), 6)
    mean, log_variance = 3 * jr.normal(jr.key(1), (2, 6, 4, 3, 3))
    return keys, DiagonalGaussian(mean, log_variance)


def test_latents_of_one_factor_are_todays_latents_to_rounding_whether_prepared_or_encoded():
    keys, posterior = published()
    latents = Latents((4, 3, 3), *Statistics.of_scale(SCALE, 3))
    today = jax.vmap(lambda each, key: SCALE * each.sample(key=key))(posterior, keys)
    stored = {"mean": posterior.mean, "deviation": jnp.exp(0.5 * posterior.log_variance)}
    prepared = jax.vmap(lambda example, key: drawn(latents, example, None, key=key))(stored, keys)
    coder = types.SimpleNamespace(encode=lambda number: jax.tree.map(lambda leaf: leaf[number], posterior))
    encoded = jnp.stack([drawn(latents, {"image": number}, coder, key=key) for number, key in enumerate(keys)])
    np.testing.assert_allclose(prepared, today, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(encoded, today, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(latents.restored)(prepared), prepared / SCALE, rtol=1e-6)


def test_a_draw_is_of_its_key_alone_and_another_step_draws_anew():
    keys, posterior = published()
    latents = Latents((4, 3, 3), (0.1, 0.2, 0.3), (2.0, 1.0, 0.5))
    stored = {"mean": posterior.mean, "deviation": jnp.exp(0.5 * posterior.log_variance)}
    one = jax.vmap(lambda example, key: drawn(latents, example, None, key=key))
    whole = one(stored, keys)
    halves = [one(jax.tree.map(lambda x, part=part: x[part], stored), keys[part]) for part in (np.s_[:2], np.s_[2:])]
    assert np.array_equal(whole, np.concatenate(halves))
    others = one(stored, published(seed=7)[0])
    assert float(jnp.abs(whole - others).min()) > 0
    mean = one(stored | {"deviation": jnp.zeros_like(posterior.mean)}, keys)
    expected = (np.asarray(posterior.mean) - np.array([0.1, 0.2, 0.3])) / np.array([2, 1, 0.5])
    np.testing.assert_allclose(mean, expected, atol=1e-5)


def test_decoding_is_in_float32_whatever_the_weights_are_stored_in(made):
    latents = Latents((4, 3, 3), (0.1, 0.2, 0.3), (2.0, 1.0, 0.5))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x, made.kl)
    shape = eqx.filter_eval_shape(
        decoded, tree_of(None, half, None, 0, latents), jax.ShapeDtypeStruct((4, 3, 3), jnp.bfloat16)
    )
    assert (shape.shape, shape.dtype) == ((8, 6, 3), jnp.float32)


def small(folder, data, **changes):
    """A diffusion model of latents that takes a second."""
    values = {"steps": 2, "batch_size": 8, "log_every": 1, "checkpoint_every": 1, "sample_every": 0, "evals": ("none",)}
    base = diffusion.PRESETS["digits"]
    sizes = DiTConfig(dim=8, depth=1, heads=1, hidden_dim=8, patch=1, learn_variance=False)
    sampling = dataclasses.replace(base.sampling, steps=2)
    given = {"run_dir": str(folder), "data": data, "dit": sizes, "sampling": sampling, "ema": EmaConfig(decay=0.9)}
    return dataclasses.replace(base, **given | values | changes)


def test_a_batch_of_prepared_latents_is_of_the_chosen_sides_and_the_same_from_files(made, tmp_path):
    found = read_encoded(made.config("latents"), LATENTS)
    tasks = [
        diffusion.RECIPE.task(small(tmp_path, made.config("latents", augment=FLIP, memory=memory)), tmp_path)
        for memory in (1.0, 0.0)
    ]
    part = Part(5, np.arange(8, dtype=np.int32), np.arange(8))
    held, lazy = (task.batch(part) for task in tasks)
    assert all(np.array_equal(held[name], lazy[name]) for name in held)
    rows = np.concatenate([held["mean"], held["deviation"]], -1)
    sides = [(rows == copy[:8]).all((1, 2, 3)) for copy in found.copies]
    assert np.array_equal(sides[0], ~sides[1])
    assert 0 < sides[0].sum() < 8
    assert tasks[0].facts.statistics == found.statistics.sha256
    assert tasks[0].program.shapes["mean"] == ((4, 3, 3), "float32")


def test_a_run_on_prepared_latents_names_their_statistics_and_encoder_resumes_and_is_sampled(
    made, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(denoising, "FILM", (8, 2))
    config = small(tmp_path / "run", made.config("latents", augment=FLIP))
    crashed_and_resumed(diffusion, config, 2, monkeypatch)
    assert "from step 1" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    found = read_encoded(made.config("latents"), LATENTS)
    assert record["frozen"] == record["facts"]["tokenizer"] == found.sha256
    assert record["facts"]["statistics"] == found.statistics.sha256
    assert (tmp_path / "run" / "samples" / "step-0000002.png").exists()
    asked = ["--run", str(tmp_path / "run"), "--n", "3", "--out", str(tmp_path / "s.png")]
    assert sample.main(asked) == 0
    assert read_picture(tmp_path / "s.png", None).shape[2] == 3
    to_pretrained(KLAutoencoder(3, NET, key=jr.key(5)), made.path / "kl", "autoencoder_kl")
    with pytest.raises(UserError, match=r"--autoencoder .*kl: the latents were made by another"):
        sample.main(asked)
    to_pretrained(made.kl, made.path / "kl", "autoencoder_kl")


def test_facts_of_latents_survive_config_json_and_runs_without_them_have_the_published_latents():
    facts = LatentFacts((8, 6, 3), 3, 256, (4, 3, 3), (0.5, 1.0, 2.0), (1.0, 2.0, 3.0), "ab", "/kl", "cd")
    assert LatentFacts.from_record(json.loads(json.dumps(facts.to_record()))) == facts
    assert LatentFacts((8, 8, 1), 10).to_record() == ImageFacts((8, 8, 1), 10).to_record()
    old = LatentFacts.from_record({"image_shape": [256, 128, 3], "classes": 10})
    found = latents_of("./sd-vae", old)
    assert found == Latents((32, 16, 4), (0.0,) * 4, (1 / 0.18215,) * 4)
    assert latents_of("", old) is None
    with pytest.raises(ValueError, match=r"facts\.latent_mean must be numbers: got 'x'"):
        LatentFacts.from_record({"image_shape": [8, 8, 1], "classes": 1, "latent_mean": "x"})


def test_the_factor_and_the_channels_are_those_of_the_autoencoder_and_the_scale_that_of_its_config(made, tmp_path):
    shutil.copytree(made.path / "kl", tmp_path / "kl")
    record = json.loads((tmp_path / "kl" / "config.json").read_text())
    write_json(tmp_path / "kl" / "config.json", record | {"scaling_factor": 0.5})
    config = small(tmp_path / "run", made.config("x.npz"), autoencoder=str(tmp_path / "kl"))
    facts = diffusion.RECIPE.task(config, tmp_path / "run").facts
    assert (facts.latent_shape, facts.latent_deviation) == ((4, 3, 3), (2.0,) * 3)
    write_json(tmp_path / "config.json", {"facts": {"image_shape": [8, 6, 3]}})  # a run of an older version
    facts = diffusion.RECIPE.task(config, tmp_path).facts
    assert facts.latent_deviation == (1 / SCALE,) * 3


@pytest.fixture
def run_of_ours(made, tmp_path, monkeypatch):
    """The folder of a run of a recipe of autoencoders, which the engine knows by its name."""
    facts = ImageFacts((8, 6, 3), 3)
    record = {"recipe": "klvae", "config": to_dict(vqgan.PRESETS["digits"]), "facts": facts.to_record()}
    model = lambda config, facts: lambda key: KLAutoencoder(facts.shape[2], NET, key=key)
    recipe = dataclasses.replace(vqgan.RECIPE, name="klvae", model=model)
    monkeypatch.setattr(recipes, "RECIPES", (*recipes.RECIPES, "klvae"))
    monkeypatch.setitem(sys.modules, "train.klvae", types.SimpleNamespace(RECIPE=recipe))
    folder = tmp_path / "klvae"
    folder.mkdir()
    write_json(folder / "config.json", record)
    save_model(folder / "model.safetensors", made.kl, record)
    return folder


def test_an_autoencoder_of_a_run_is_taken_as_a_published_one_is(made, run_of_ours, tmp_path):
    assert encodes_images(str(run_of_ours))
    prepare(made.path, run_of_ours, tmp_path / "out", mirror=False, scale=0.25)
    found, other = (
        read_encoded(DataConfig(str(tmp_path / "out")), LATENTS),
        read_encoded(made.config("latents"), LATENTS),
    )
    assert found.sha256 == other.sha256
    assert np.array_equal(found.copies[0], other.copies[0])
    assert found.statistics == Statistics((0.0,) * 3, (4.0,) * 3)
    config = small(tmp_path / "run", made.config("x.npz"), autoencoder=str(run_of_ours))
    with pytest.raises(UserError, match="is of a run, whose latents have no known deviation: give --autoencoder-scale"):
        diffusion.RECIPE.task(config, tmp_path / "run")
    facts = diffusion.RECIPE.task(dataclasses.replace(config, autoencoder_scale=0.25), tmp_path / "run").facts
    assert facts.latent_deviation == (4.0,) * 3


def test_a_killed_preparation_on_eight_devices_is_finished_on_one_and_equals_that_of_one(made, tmp_path):
    arguments = [str(made.path / "x.npz"), str(made.path / "kl"), str(tmp_path / "set"), "3"]
    line = [sys.executable, "-m", "tests.train.latents_prepared", *arguments]
    done = subprocess.run(line, cwd=ROOT, env=environment(8), capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == -9, done.stderr[-2000:]
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").glob("*.npy")}
    assert len(kept) == 3
    lines = []
    prepare(made.path, "kl", tmp_path / "set", say=lines.append)
    assert {name: (tmp_path / "set" / name).stat().st_mtime_ns for name in kept} == kept
    assert not any(name in line for name in kept for line in lines)
    found, other = (read_encoded(DataConfig(str(path)), LATENTS) for path in (tmp_path / "set", made.path / "latents"))
    for first, second in zip((*found.copies, found.test), (*other.copies, other.test)):
        np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(found.statistics.deviation, other.statistics.deviation, rtol=1e-5)


def of(kind, **values):
    """The task of a recipe on the prepared set of its kind."""

    def run(made, folder):
        recipe, name = (diffusion, "latents") if kind == LATENTS else (maskgit, "ids")
        make = small if kind == LATENTS else tiny
        data = made.config(values.pop("name", name), **values.pop("data", {}))
        return recipe.RECIPE.task(make(folder, data=data, **values), folder)

    return run


def begun(kind, **facts):
    """The same in the folder of a run that was begun with other facts."""

    def run(made, folder):
        write_json(folder / "config.json", {"facts": facts})
        return of(kind)(made, folder)

    return run


def prepared_by(tokenizer, **options):
    return lambda made, folder: prepare(made.path, tokenizer, folder / "out", **options)


def other_tokenizer(made, folder):
    to_pretrained(VQAutoencoder(3, 32, NET, code_dim=2, key=jr.key(5)), folder / "vq", "autoencoder_vq")
    return of(IDS, tokenizer=str(folder / "vq"))(made, folder)


def other_autoencoder(made, folder):
    facts = of(LATENTS)(made, folder).facts
    to_pretrained(KLAutoencoder(3, NET, key=jr.key(5)), folder / "kl", "autoencoder_kl")
    return autoencoder_of(str(folder / "kl"), facts)


def edited(made, folder):
    shutil.copytree(made.path / "latents", folder / "set")
    index = json.loads((folder / "set" / "index.json").read_text())
    index["statistics"]["deviation"][0] *= 2
    (folder / "set" / "index.json").write_text(json.dumps(index))
    return read_encoded(DataConfig(str(folder / "set")), LATENTS)


def checked(made, folder):
    with pytest.raises(UserError):
        edited(made, folder)
    return check(str(folder / "set"), 10, 4)


def without_spread(made, folder):
    shutil.copytree(made.path / "latents", folder / "set")
    index = json.loads((folder / "set" / "index.json").read_text())
    values = index["statistics"]
    values["deviation"][0] = 0.0
    values["sha256"] = Statistics(tuple(values["mean"]), tuple(values["deviation"])).sha256
    (folder / "set" / "index.json").write_text(json.dumps(index))
    return read_encoded(DataConfig(str(folder / "set")), LATENTS)


def a_file(made, folder):
    (folder / "out").write_text("")
    prepare(made.path, "kl", folder / "out")


def classes(made, folder):
    from train import classify

    config = dataclasses.replace(classify.PRESETS["digits"], data=made.config("latents"), run_dir=str(folder))
    return classify.RECIPE.task(config, folder)


REFUSED = {
    "other statistics": (begun(LATENTS, statistics="ab"), "--data.name .*latents: must have the statistics that .* was begun with .ab.: got"),
    "another autoencoder": (begun(LATENTS, tokenizer="ab"), "--data.name .*latents: must have the tokenizer that .* was begun with .ab."),
    "another autoencoder by flag": (other_autoencoder, "--autoencoder .*kl: the latents were made by another .SHA-256"),
    "another tokenizer by flag": (other_tokenizer, "--tokenizer .*vq: the tokens of ids were made by another, .*vq .SHA-256"),
    "tokens of another tokenizer": (begun(IDS, tokenizer="ab"), "--data.name .*ids: must have the tokenizer"),
    "tokens of another grid": (begun(IDS, tokens=64), "--data.name .*ids: must have the tokens that .* begun with .64.: got 12"),
    "tokens as latents": (of(LATENTS, name="ids"), "expected eqxgen-data 1 of images, got eqxgen-data 1 of image tokens"),
    "latents as images": (classes, "expected eqxgen-data 1 of images, got eqxgen-data 1 of latents"),
    "statistics that were edited": (edited, "expected statistics with SHA-256 .*they were edited"),
    "statistics that were edited, checked": (checked, "expected statistics with SHA-256 .*they were edited"),
    "a deviation of 0": (without_spread, "expected finite means and deviations above 0 of the channels, got .* and 0,"),
    "a scale of prepared latents": (of(LATENTS, autoencoder="kl", autoencoder_scale=0.5), "--autoencoder-scale 0.5: the prepared latents of .* have statistics of their own"),
    "a file in the place of a folder": (a_file, "expected a new or an empty folder to write to, got a file"),
    "another size": (of(LATENTS, data={"image_size": 16}), "expected latents of images of --data.image-size 16, got of .8, 6."),
    "colours": (of(LATENTS, data={"augment": AugmentConfig(brightness=0.1)}), "expected no --data.augment but flip"),
    "a large batch": (of(LATENTS, batch_size=64), "expected at least as many training images as --batch-size, 64"),
    "a scale of tokens": (prepared_by("vq", scale=0.5), "--scale goes with latents: got 0.5"),
    "no such tokenizer": (prepared_by("nowhere"), "--tokenizer .*nowhere: no such file or folder"),
    "a full folder": (lambda made, folder: prepare(made.path, "kl", "latents"), "expected a new or an empty folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(case, made, tmp_path):
    run, message = REFUSED[case]
    with pytest.raises(UserError) as caught:
        run(made, tmp_path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_mirror_images_that_were_not_prepared_are_not_chosen_from(made, tmp_path):
    prepare(made.path, "kl", tmp_path / "set", mirror=False)
    config = small(tmp_path / "run", DataConfig(str(tmp_path / "set"), augment=FLIP))
    with pytest.raises(UserError, match=r"latents of mirror images for --data\.augment\.flip, got none"):
        diffusion.RECIPE.task(config, tmp_path / "run")


def test_without_the_images_the_judges_say_why_they_are_left_out(made, tmp_path):
    shutil.copytree(made.path / "latents", tmp_path / "set")
    index = json.loads((tmp_path / "set" / "index.json").read_text())
    index["origin"]["name"] = str(tmp_path / "gone.npz")
    (tmp_path / "set" / "index.json").write_text(json.dumps(index))
    task = diffusion.RECIPE.task(small(tmp_path / "run", DataConfig(str(tmp_path / "set"))), tmp_path / "run")
    lacks = {each.kind.name: each.lacks for each in task.evaluators}
    assert lacks.pop("held_out") == ""
    assert all("gone.npz: expected a readable .npz file" in why for why in lacks.values())


@pytest.mark.parametrize("kind", ["vqgan", "autoencoder_vq"])
def test_a_published_tokenizer_is_kept_beside_the_run_bit_for_bit(kind, made, tmp_path):
    sizes = VQGANConfig(width=2, multipliers=(1, 2), blocks=1, latent_dim=2, codes=5, form="published")
    net = VQGAN(8, 8, 3, sizes, key=jr.key(0)) if kind == "vqgan" else made.vq
    to_pretrained(net, tmp_path / "net", kind)
    tokenizer = tokenizer_at(tmp_path / "net", (8, 8, 3), "--tokenizer net", "the images")
    assert (tokenizer.tokens, tokenizer.codes) == (16, net.codes)
    keep_tokenizer(str(tmp_path / "net"), tokenizer, tmp_path)
    shutil.rmtree(tmp_path / "net")
    kept = tokenizer_of_run(tmp_path, "net", TokenFacts((8, 8, 3), 3, 16, net.codes))
    assert digest(kept) == digest(tokenizer)


WRONG = [
    ({"tokenizer": "chars", "mirror": True}, "--mirror goes with a --tokenizer of images: got chars"),
    ({"scale": 0.5}, "--scale goes with a --tokenizer of images: got none"),
    ({"tokenizer": "chars", "image_size": 8}, "--image-size is for images and --tokenizer for texts: got both"),
    ({"tokenizer": "./nowhere"}, "--tokenizer ./nowhere: no such file or folder: correct the path"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG)
def test_a_flag_of_prepare_that_goes_with_another_source_is_an_error(flags, message, tmp_path):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        Prepare("digits", tmp_path / "out", **flags)()
