"""The recipe of segmentation: runs of the loop, prediction by tiles, masks of a folder, scores of summed counts."""

import dataclasses
import json

import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image

import train
from eqxgen.configs import SegmentationConfig
from eqxgen.metrics import Confusion
from eqxgen.nn import WithState
from tests.full import full
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from train import evaluate, sample, segment
from train._errors import DataError, UsageError
from train.config.pairs import PairConfig, WarpConfig
from train.data.feed.order import Order
from train.data.pairs.sources import load_pairs
from train.evaluators.stream import Stream
from train.evaluators.tiles import Tiling, shares_of
from train.parallel import make_mesh
from train.tasks.segment.folder import _of_folder
from train.tasks.segment.recipe import crops

TABLE = np.array([[0, 0, 0], [250, 0, 0], [0, 0, 250]], np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noisy colour pictures of three grounds, whose masks are their colours."""
    root, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for row in range(6):
        labels = np.kron(rng.integers(0, 3, (4, 5)), np.ones((8, 9), int))
        image = np.clip(TABLE[labels] // 2 + 60 + rng.integers(0, 30, (*labels.shape, 3)), 0, 255).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", TABLE[labels])):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{row}.png")
    return root


def config_of(run, folder, **changes):
    data = PairConfig(str(folder), classes=("0,0,0=ground", "250,0,0=road", "0,0,250=water"), crop=16)
    values = {"steps": 6, "batch_size": 4, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, "tile": 32}
    sizes = SegmentationConfig(width=4, multipliers=(1, 2), dropout=0.1)
    return segment.Config(run_dir=str(run), data=data, overlap=8, model=sizes, **values | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, folder):
    run = tmp_path_factory.mktemp("segment") / "whole"
    assert segment.main(config_of(run, folder)) == 0
    return run


@full
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, folder, tmp_path, monkeypatch):
    crashed_and_resumed(segment, config_of(tmp_path, folder), 3, monkeypatch)
    assert same(weights(whole), weights(tmp_path))
    assert metrics(whole) == metrics(tmp_path)


def test_scores_are_of_the_pixels_of_all_images_together(whole, folder):
    model, pairs = train.load(whole / "model.safetensors"), load_pairs(config_of(whole, folder).data)
    assert isinstance(model, WithState)
    counts, run = Confusion.of(3), eqx.filter_jit(lambda model, tiles: jax.nn.softmax(jax.vmap(model)(tiles)))
    for image, mask in zip(pairs.test.images, pairs.test.masks):
        # Tiles of 32 pixels at 0 and 24 of the 8 + 32 and 8 + 45 that an image has with its mirrored border.
        larger = np.pad(pairs.normalise(image), ((4, 20), (4, 7), (0, 0)), mode="reflect")
        corners = [(top, left) for top in (0, 24) for left in (0, 24)]
        found = run(model, np.stack([larger[top : top + 32, left : left + 32] for top, left in corners]))
        shares = Tiling(32, 8).blend(np.asarray(found), corners, mask.shape)
        counts = counts.update(np.argmax(shares, axis=-1).ravel(), mask.ravel().astype(int))
    summary = json.loads((whole / "summary.json").read_text())
    names = [f"eval_{word}_{kind}" for word in ("dice", "iou") for kind in ("ground", "road", "water")]
    assert {"eval_loss", "eval_accuracy", "eval_dice", "eval_iou", *names} <= summary.keys()
    for kind in ("ground", "road", "water"):
        dice, iou = summary[f"eval_dice_{kind}"], summary[f"eval_iou_{kind}"]
        assert dice == pytest.approx(2 * iou / (1 + iou))
    assert [summary[name] for name in names] == pytest.approx([*counts.f1(), *counts.iou()], abs=1e-3)
    assert evaluate.main(words(run=whole)) == 0
    again = json.loads((whole / "evaluation.json").read_text())
    assert again["eval_iou_road"] == summary["eval_iou_road"]


class Pixelwise(eqx.Module):
    """Logits of a pixel from its own value."""

    def __call__(self, image):
        return jax.numpy.concatenate([image, -2 * image, image**2], axis=-1)


@pytest.mark.parametrize(("shape", "overlap"), [((9, 37), 6), ((16, 16), 0), ((5, 3), 7), ((40, 17), 15), ((1, 16), 4)])
def test_tiles_of_any_size_give_what_the_whole_image_gives(shape, overlap):
    image = np.random.default_rng(0).uniform(-1, 1, (*shape, 1)).astype(np.float32)
    found = shares_of(Pixelwise(), image, Tiling(16, overlap), Stream(make_mesh("")))
    assert found.shape == (*shape, 3)
    np.testing.assert_allclose(found, jax.nn.softmax(Pixelwise()(image)), rtol=1e-5)


def test_a_tile_counts_less_towards_its_border():
    tiling = Tiling(8, 4)
    assert tiling.corners(8).tolist() == [0, 4]  # of 2 + 8 + 2 pixels
    ramp = tiling.weights()[3] / tiling.weights()[3, 3]
    np.testing.assert_allclose(ramp, [0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125] / ramp.dtype.type(0.875))
    tiles = np.stack([np.full((8, 8, 1), value, np.float32) for value in (0, 1)])
    blended = tiling.blend(tiles, [(0, 0), (0, 4)], (4, 8))[0, :, 0]
    np.testing.assert_allclose(blended, [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1], atol=1e-6)


def test_crops_depend_on_the_seed_the_step_and_the_place_alone(folder, tmp_path):
    config = config_of(tmp_path, folder)
    pairs = load_pairs(config.data, say=lambda line: None)
    order = Order(0, 4, len(pairs.train))
    both, rest = crops(pairs, config, order.part(5)), crops(pairs, config, order.part(5, slice(2, 4)))
    for name, array in both.items():
        np.testing.assert_array_equal(array[2:], rest[name])
    assert both["image"].shape == (4, 16, 16, 3)
    assert both["label"].dtype == np.int32
    still = dataclasses.replace(config, data=dataclasses.replace(config.data, augment=WarpConfig(False, 0.0, 0.0)))
    batch = crops(pairs, still, order.part(5))
    guesses = np.argmin(((batch["image"][..., None, :] + 1) / 2 - TABLE / 510 - 0.29) ** 2 @ np.ones(3), axis=-1)
    np.testing.assert_array_equal(guesses, batch["label"])


def test_pictures_of_any_size_get_masks_of_the_trained_values(whole, tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "in" / "more").mkdir(parents=True)
    for name, shape in {"a.png": (11, 7), "more/b.jpg": (40, 70, 3)}.items():
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "c.txt").write_text("x")
    out = tmp_path / "masks"
    assert sample.main(words(run=whole, images=tmp_path / "in", out=f"{out}/")) == 0
    assert "in: 2 files; 1 left out: 1 of another kind (c.txt)\n2 masks" in capsys.readouterr().out
    assert next(_of_folder((tmp_path / "in", ["more/b.jpg"]), 1)).grey
    for name, size in {"a.png": (7, 11), "more/b.png": (70, 40)}.items():
        with Image.open(out / name) as mask:
            assert mask.size == size
            colours = np.unique(np.asarray(mask).reshape(-1, 3), axis=0)
        assert {tuple(colour) for colour in colours.tolist()} <= {tuple(colour) for colour in TABLE.tolist()}
    assert (tmp_path / "masks.png").exists()
    assert sample.main(words(run=whole, out=f"{tmp_path}/held/", tile=48, overlap=16)) == 0
    assert len(list((tmp_path / "held").glob("*.png"))) == 1
    for options, error, says in (
        ({"tile": 15}, UsageError, "--tile must be a multiple of 2, .*: got 15"),
        ({"overlap": 32}, UsageError, "--overlap must be at least 0 and below tile, 32: got 32"),
        ({"out": "x.png"}, UsageError, "out must be FOLDER/: got 'x.png'"),
        ({"images": tmp_path / "none"}, DataError, "none: expected a picture or a folder of pictures"),
    ):
        with pytest.raises(error, match=says):
            sample.main(words(**{"run": whole, "out": f"{tmp_path}/new/", **options}))
