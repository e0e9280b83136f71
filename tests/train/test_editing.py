"""Edits of `train.sample`: what is kept, closed ends, one program for other numbers, and pictures that cannot be."""

import dataclasses
import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image

from eqxgen.configs import DenoiserConfig, DiffusionLoss, DiffusionSampling, DiTConfig
from eqxgen.diffusion.editing import strength
from tests.full import full
from tests.train.small_runs import words
from tests.train.test_sample import COMPILED, made
from train import diffusion, sample
from train._errors import UserError
from train.config.base import to_dict
from train.evaluators.examples import Examples
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.run.weights import digest
from train.tasks.denoised import NO_CLASS, counted, tree_of
from train.tasks.edits import Change, Inpaint
from train.tasks.encoded import latents
from train.tasks.facts import ImageFacts, LatentFacts

FACTS = ImageFacts((8, 8, 1), 10, 17)
SIZES = DiTConfig(dim=8, depth=1, heads=2, hidden_dim=16, patch=4, learn_variance=False)
PRESET = diffusion.PRESETS["digits"]


def untrained(folder, preset, facts=FACTS, **changes):
    """A folder with the config.json of a run alone: what is refused is refused before the model is read."""
    folder.mkdir()
    config = to_dict(dataclasses.replace(diffusion.PRESETS[preset], **changes))
    (folder / "config.json").write_text(
        json.dumps({"recipe": "diffusion", "config": config, "facts": facts.to_record()}), encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of drawn weights, runs without weights, and pictures."""
    folder = tmp_path_factory.mktemp("editing")
    drawn = lambda x: x + 0.2 * jr.normal(jr.key(x.size), x.shape) if eqx.is_inexact_array(x) else x
    made("diffusion", folder / "run", lambda model: jax.tree.map(drawn, model))
    untrained(folder / "digits", "digits")
    untrained(folder / "alone", "digits", label_dropout=0.0)
    untrained(folder / "cifar10", "cifar10", ImageFacts((32, 32, 3), 10))
    untrained(folder / "average", "digits-meanflow")
    learned = dataclasses.replace(PRESET.dit, learn_variance=True)
    untrained(
        folder / "learned",
        "digits",
        dit=learned,
        denoiser=DenoiserConfig(),
        loss=DiffusionLoss(variance=0.001),
        sampling=DiffusionSampling(sampler="ddpm", grid="linspace", variance="learned"),
    )
    latents = LatentFacts((32, 32, 3), 10, latent_shape=(4, 4, 4), latent_mean=(0.0,) * 4, latent_deviation=(1.0,) * 4)
    untrained(folder / "latents", "digits", latents, autoencoder="elsewhere")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 3:] = 255
    pictures = {"a": pixels[0], "b": pixels[1], "mask": mask, "black": 0 * mask, "soft": mask // 2}
    pictures |= {"wide": np.zeros((8, 9), np.uint8), "wide_mask": np.full((8, 9), 255, np.uint8)}
    pictures["colour"] = np.zeros((8, 8, 3), np.uint8)
    pictures |= {"small": pixels[0, :4, :4] // 2 + 64, "thin": pixels[0, :4, :2]}
    pictures["small_colour"] = np.zeros((4, 4, 3), np.uint8)
    for name, array in pictures.items():
        Image.fromarray(array).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    return folder


def call(folder, line, run="run", **options):
    """`train.sample` with the pictures of the folder, which the line names without their suffix."""
    names = {path.stem: str(path) for path in folder.glob("*.png")}
    return sample.main([*words(run=folder / run, **options), *(names.get(word, word) for word in line.split())])


def pixels(folder, name):
    with Image.open(folder / f"{name}.png") as picture:
        return np.asarray(picture)[..., None]


def test_a_picture_is_kept_to_the_bit_outside_the_mask(folder, tmp_path, capsys):
    line = "--inpaint a --mask mask --steps 2 --repeats 2 --n 3"
    assert call(folder, line, out=tmp_path / "x.npz") == 0
    assert "3 evaluations of the network an image" in capsys.readouterr().out
    with np.load(tmp_path / "x.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    assert labels.tolist() == [NO_CLASS] * 3
    mask, picture = pixels(folder, "mask") == 255, pixels(folder, "a")
    for image in images:
        np.testing.assert_array_equal(image[~mask], picture[~mask])
        assert (image[mask] != picture[mask]).mean() > 0.9
    assert (images[0] != images[1]).any()


@full
def test_an_inversion_writes_the_noise_and_the_image_that_it_makes(folder, tmp_path, capsys):
    line = "--invert a --steps 2 --iterations 3 --label 3"
    assert call(folder, line, out=tmp_path / "x.npz") == 0
    (off,) = re.findall(r"root mean squared error ([0-9.e-]+) in a range of 2", capsys.readouterr().out)
    with np.load(tmp_path / "x.npz") as arrays:
        noise, images = arrays["noise"], arrays["images"]
    assert (noise.shape, noise.dtype, images.shape) == ((1, 8, 8, 1), np.float32, (1, 8, 8, 1))
    apart = (images[0].astype(float) - pixels(folder, "a")) / 127.5
    # The file is clipped to [-1, 1].
    assert 0.8 * float(off) < np.sqrt(np.mean(apart**2)) < float(off) + 0.005
    # The ends of an interpolation are the reconstructions of its pictures.
    assert call(folder, "--interpolate a b --n 3 --steps 2 --iterations 3 --label 3", out=tmp_path / "y.npz") == 0
    with np.load(tmp_path / "y.npz") as arrays:
        assert np.abs(arrays["images"][0].astype(int) - images[0]).max() <= 1
        assert (arrays["images"][1] != images[0]).any()


def test_a_small_picture_is_the_means_of_the_blocks_of_those_that_it_is_enlarged_to(folder, tmp_path, capsys):
    line = "--upscale small --steps 2 --sampler euler --label 3 --guidance 2 --guidance-rule apg --n 2"
    assert call(folder, line, out=tmp_path / "x.npz") == 0
    assert "4 evaluations of the network an image" in capsys.readouterr().out
    with np.load(tmp_path / "x.npz") as arrays:
        images = arrays["images"].astype(float)
    assert images.shape == (2, 8, 8, 1)
    small, means = pixels(folder, "small"), images.reshape(2, 4, 2, 4, 2, 1).mean((2, 4))
    # The file is clipped to [-1, 1].
    inside = ((images > 0) & (images < 255)).reshape(2, 4, 2, 4, 2, 1).all((2, 4))
    assert inside.mean() > 0.2
    assert np.abs(means - small)[inside].max() <= 0.5
    assert (images[0] != images[1]).any()


def test_a_likelihood_is_printed_with_its_error_and_its_evaluations(folder, capsys):
    assert call(folder, "--likelihood --n 5 --steps 3") == 0
    said = capsys.readouterr().out
    assert re.match(r"-?[0-9.]+ ± [0-9.]+ bits per dimension, 5 held-out images of 17 levels\n8 evaluations", said)


REFUSED = {
    "--inpaint wide --mask mask": r"^--inpaint .*: must be 8 x 8 in grey, as the run's images: got 8 x 9 in grey",
    "--inpaint colour --mask mask": "must be 8 x 8 in grey, as the run's images: got 8 x 8 in colour",
    "--inpaint a --mask wide_mask": r"^--mask .*: must be 8 x 8, as the run's images: got 8 x 9",
    "--inpaint a --mask black": "expected a mask with white pixels, got black ones alone: white is the part that",
    "--inpaint a --mask soft": "expected a mask of black and white pixels alone, got 15 of 64 pixels of other values",
    "--inpaint a --mask broken": "expected a whole picture, .*: give another file",
    "--inpaint nowhere.png --mask mask": "nowhere.png",
    "--inpaint a --mask mask --sampler heun": "^--sampler must be ddim with --inpaint, or left out: got heun",
    "--inpaint a --mask mask --jump 13": "^--jump must be at most the number of steps, 12: got 13",
    "--inpaint a --mask mask --guidance 3": "^--guidance must be 1 without --label, as there is no class: got 3",
    "--inpaint a --mask mask --label 10": r"^--label must be in \[0, 10\): got 10",
    "--edit wide": "^--edit .*: must be 8 x 8",
    "--edit a --steps 1": "^--steps must be at least 2 with --edit",
    "--edit a --strength 1e-12": "^--strength: share must be large enough for the times to differ: got 1e-12",
    "--upscale a": "^--upscale .*: the small image must have the sides 8 x 8 divided by .*, at least 2: got 8 x 8",
    "--upscale wide": "the sides 8 x 8 divided by the same number, at least 2: got 8 x 9",
    "--upscale thin": "the sides 8 x 8 divided by the same number, at least 2: got 4 x 2",
    "--upscale small_colour": "^--upscale .*: must be in grey, as the run's images: got 4 x 4 in colour",
    "--upscale small --guidance 2": "^--guidance must be 1 without --label, as there is no class: got 2",
    "--invert wide": "^--invert .*: must be 8 x 8",
    "--invert a --label 1 --guidance 2 --guidance-rule apg": "^--apg-momentum must be 0 with --invert, .*: got -0.5",
    "--edit a --apg-norm 2": "^--apg_norm must be 0 with guidance_rule cfg, as it is of apg: got 2",
    "--interpolate a wide": "^--interpolate .*: must be 8 x 8",
    "--interpolate a b --sampler heun": "^--sampler must be euler with --interpolate, or left out: got heun",
    "--likelihood --guidance 2": "^--guidance must be 1 with --likelihood",
    "--likelihood --steps 1": "^--steps must be at least 2 with --likelihood: got 1",
    "--sigma-min 60": "^--sigma_min must be below sigma_max: got 60.0 and 40.0",
}
OF_RUN = {
    ("average", "--upscale small --label 1"): "^--sampler must be another than average with --upscale",
    ("learned", "--upscale small --label 1"): "^--variance must be small or large with --upscale, .*: got learned",
    ("latents", "--upscale small --label 1"): "^--upscale: the run is of latents, whose means are not those of the",
    ("latents", "--likelihood"): "^--likelihood: the run is of latents, whose density is not that of the images",
    ("alone", "--edit a"): "^--label must be given with --edit: the model was trained on classes alone",
    ("cifar10", "--grid karras"): r"^--sigma_min must be at least the schedule's first .* 0.0100005, .*: got 0.002",
    ("cifar10", "--grid karras --sigma-min 0.009"): "^--sigma_min must be at least .* got 0.009",
    ("cifar10", "--edit a --label 1"): "^--label: the model has no classes: leave it out",
}


@pytest.mark.parametrize(("run", "line"), [*(("digits", line) for line in REFUSED), *OF_RUN])
def test_what_cannot_be_edited_is_one_line_before_the_model_is_read(run, line, folder, tmp_path):
    with pytest.raises(UserError, match=REFUSED.get(line) or OF_RUN[run, line]) as caught:
        call(folder, line, run, **({} if "--likelihood" in line else {"out": tmp_path / "x.npz"}))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_run_of_a_grid_below_its_schedule_is_sampled_as_before():
    config = diffusion.PRESETS["cifar10"]
    config = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, grid="karras", sigma_max=90.0))
    assert len(diffusion.rules(config, ImageFacts((32, 32, 3), 10)).times) == 51


def test_other_numbers_of_an_edit_run_the_same_program():
    config = dataclasses.replace(PRESET, dit=SIZES)
    model, stream = diffusion.model(config, FACTS)(jr.key(0)), Stream(make_mesh())
    rows = np.linspace(-1, 1, 2 * 64, dtype=np.float32).reshape(2, 8, 8, 1)
    examples = Examples.of(label=np.asarray([3, NO_CLASS], np.int32), image=rows, mask=rows[..., 0] > 0.1)

    def run(function, share=1.0, **changes):
        options = dataclasses.replace(PRESET.sampling, **{"steps": 3, "sampler": "ddim"} | changes)
        rules = diffusion.rules(dataclasses.replace(config, sampling=options), FACTS)
        rules = dataclasses.replace(rules, times=strength(rules.times, share))
        found = stream.gather(function, tree_of(model, None, rules, 0), examples)
        return found[0], int(found[1][0]), COMPILED[0]

    other = {"eta": 0.7, "guidance": 3.0, "sigma_max": 30.0, "sigma_min": 0.01, "interval": "0,9"}
    for function in (Change(), Inpaint(1, 2)):
        (first, spent, before), (second, again, after) = run(function), run(function, 0.4, **other)
        assert before == after
        assert spent == again
        assert (first != second).any()
    tight, loose = (run(counted, sampler="rk45", steps=2, guidance=1.0, rtol=tol, atol=tol) for tol in (1e-5, 1e-2))
    assert tight[2] == loose[2]
    assert tight[1] > 1.5 * loose[1] > 0


class Halves(eqx.Module):
    """An autoencoder of latents of half the size."""

    gain: jax.Array

    def encode(self, image):
        class Normal:
            mean = self.gain * image.reshape(4, 2, 4, 2, 1).mean((1, 3))

        return Normal

    def decode(self, x):
        return x.repeat(2, 0).repeat(2, 1) / self.gain


def test_latents_are_painted_where_any_pixel_is_and_pixels_outside_are_kept():
    config = dataclasses.replace(PRESET, dit=dataclasses.replace(SIZES, patch=2))
    model = diffusion.model(config, dataclasses.replace(FACTS, shape=(4, 4, 1)))(jr.key(0))
    options = dataclasses.replace(PRESET.sampling, steps=2, sampler="ddim", eta=1.0, guidance=1.0)
    rules = diffusion.rules(dataclasses.replace(config, sampling=options), FACTS)
    image, mask = np.random.default_rng(0).uniform(-1, 1, (8, 8, 1)).astype(np.float32), np.zeros((8, 8), bool)
    mask[3, 3:] = True
    tree = tree_of(model, Halves(jnp.asarray(2.0)), rules, 0)
    examples = Examples.of(label=np.asarray([1], np.int32), image=image[None], mask=mask[None])
    (found,), _ = Stream(make_mesh()).gather(Inpaint(1, 1), tree, examples)
    np.testing.assert_array_equal(found[~mask], image[~mask])
    assert (found[mask] != image[mask]).all()


def test_latents_of_another_autoencoder_are_refused(tmp_path, monkeypatch):
    """An edit encodes by the run's own autoencoder: another's latents would be noise to the model."""
    first, second = Halves(jnp.asarray(2.0)), Halves(jnp.asarray(2.5))
    (tmp_path / "config.json").write_text(json.dumps({"frozen": digest(first)}), encoding="utf-8")
    monkeypatch.setattr(latents, "autoencoder_of", lambda where, facts: found)
    found = first
    assert latents.autoencoder_of_run(tmp_path, "./vae", FACTS) is first
    found = second
    with pytest.raises(
        UserError, match=r"its latents are of another autoencoder than ./vae is now \(SHA-256"
    ) as caught:
        latents.autoencoder_of_run(tmp_path, "./vae", FACTS)
    assert "\n" not in str(caught.value)
