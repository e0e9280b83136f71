"""Data sources, and the examples of a step."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.full import full
from train.data import DataConfig, DataError, Dataset, batch_indices, image_grid, load, save_picture
from train.data.images.held_out import held_out

CHECKOUT = Path(__file__).parents[2]

# name, training images, test images, image shape, mean training pixel / 255 (published for MNIST and Fashion-MNIST)
REAL_SETS = [
    ("mnist", 60_000, 10_000, (28, 28, 1), 0.1307),
    ("fashion_mnist", 60_000, 10_000, (28, 28, 1), 0.2860),
    ("eurosat64", 2_160, 540, (64, 64, 3), None),
]


@pytest.mark.parametrize(("name", "train", "test", "shape", "mean"), REAL_SETS)
def test_real_sets_have_their_published_sizes_and_mean(
    name, train, test, shape, mean, shared_data, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load(DataConfig(name, root=str(shared_data)))
    assert data.train_images.shape == (train, *shape)
    assert data.test_images.shape == (test, *shape)
    assert (data.num_classes, data.levels, data.image_shape) == (10, 256, shape)
    assert set(np.unique(data.train_labels)) == set(np.unique(data.test_labels)) == set(range(10))
    if mean is not None:
        assert round(float(data.train_images.mean() / 255), 4) == mean


@full
@pytest.mark.slow
def test_cifar10_batches_are_read_and_their_decoded_pixels_kept(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load(DataConfig("cifar10", root=str(shared_data)))
    assert (data.train_images.shape, data.test_images.shape) == ((20_000, 32, 32, 3), (5_000, 32, 32, 3))
    entries = sorted((tmp_path / "eqxgen" / "decoded").iterdir())
    assert len(entries) == 3
    monkeypatch.setattr("train.data.files.npz.zipfile.ZipFile.open", _only_labels(monkeypatch))
    again = load(DataConfig("cifar10", root=str(shared_data)))
    np.testing.assert_array_equal(again.train_images, data.train_images)
    np.testing.assert_array_equal(again.test_images, data.test_images)


def _only_labels(monkeypatch):
    """`ZipFile.open` that refuses to unpack images."""
    import zipfile

    original = zipfile.ZipFile.open

    def unpack(self, info, *args, **kwargs):
        assert info.filename != "images.npy"
        return original(self, info, *args, **kwargs)

    return unpack


def test_digits_keep_their_seventeen_levels_and_hold_out_a_fifth():
    data = load(DataConfig())
    assert data.train_images.shape == (1442, 8, 8, 1)
    assert data.test_images.shape == (355, 8, 8, 1)
    assert (data.levels, int(data.train_images.max()), data.num_classes) == (17, 16, 10)
    whole = {image.tobytes() for image in data.train_images} & {image.tobytes() for image in data.test_images}
    assert not whole


def test_normalise_reaches_both_ends_and_denormalise_returns_to_screen_levels():
    digits = load(DataConfig())
    levels = np.arange(17, dtype=np.uint8)
    normal = digits.normalise(levels)
    assert (normal.dtype, normal[0], normal[-1]) == (np.float32, -1, 1)
    np.testing.assert_array_equal(digits.denormalise(normal), np.rint(levels * (255 / 16)).astype(np.uint8))
    grey = _dataset(np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1))
    np.testing.assert_array_equal(grey.denormalise(grey.normalise(grey.train_images)), grey.train_images)
    np.testing.assert_array_equal(grey.denormalise(np.array([-7.0, 3.0, -np.inf])), np.array([0, 255, 0], np.uint8))
    with pytest.raises(ValueError, match="1 NaN among 2"):
        grey.denormalise(np.array([0.0, np.nan]))


def _dataset(images, labels=None, **changes):
    labels = np.zeros(len(images), np.int32) if labels is None else np.array(labels, np.int32)
    parts = {
        "name": "made",
        "train_images": images,
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels,
    }
    return Dataset(**(parts | {"class_names": ("a", "b")} | changes))


GOOD = np.zeros((2, 4, 4, 1), np.uint8)
BAD_DATASETS = [
    ("labels above the classes", {"labels": [0, 2]}, "labels from 0 to 1, got label 2 at index 1"),
    ("negative labels", {"labels": [-1, 0]}, "got label -1 at index 0"),
    ("labels of another length", {"labels": [0]}, "expected 2 labels"),
    (
        "no test images",
        {"test_images": GOOD[:0], "test_labels": np.zeros(0, np.int32)},
        r"made \(test part\): expected at least one image",
    ),
    ("four channels", {"images": np.zeros((2, 4, 4, 4), np.uint8)}, "with 1 or 3 channels"),
    ("channels first", {"images": np.zeros((2, 3, 32, 32), np.uint8)}, "put channels last"),
    ("a side of zero", {"images": np.zeros((2, 0, 4, 1), np.uint8)}, r"got shape \(2, 0, 4, 1\)"),
    (
        "parts of two sizes",
        {"test_images": np.zeros((2, 5, 5, 1), np.uint8)},
        r"images of \(4, 4, 1\), got \(5, 5, 1\)",
    ),
    ("a pixel above the levels", {"images": GOOD + np.uint8(17), "levels": 17}, "values below 17, got 17"),
]


@pytest.mark.parametrize(
    ("changes", "message"), [case[1:] for case in BAD_DATASETS], ids=[case[0] for case in BAD_DATASETS]
)
def test_a_dataset_that_does_not_fit_together_is_refused(changes, message):
    changes = dict(changes)
    with pytest.raises(DataError, match=message):
        _dataset(changes.pop("images", GOOD), changes.pop("labels", None), **changes)


BAD_CONFIGS = [
    ({"name": "cfar10"}, "data.name must be one of .*did you mean cifar10"),
    ({"name": ""}, "data.name"),
    ({"name": "a\0b"}, "data.name"),
    ({"name": "flowers"}, r"a path is written \./flowers"),
    ({"root": " "}, "data.root must be a folder: got ' '"),
    ({"image_size": 0}, "data.image_size must be between 1 and 8192: got 0"),
    ({"image_size": -3}, "got -3"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CONFIGS)
def test_a_config_that_cannot_work_is_refused_before_any_file_is_touched(changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**changes)


def test_the_image_size_of_a_fixed_set_must_match():
    assert load(DataConfig(image_size=8)).image_shape == (8, 8, 1)
    with pytest.raises(ValueError, match=r"image_size must be 8 with data\.name=digits, .*: got 16; leave it out"):
        DataConfig(image_size=16)


@given(
    seed=st.integers(0, 2**64 - 1),
    size=st.integers(1, 12),
    shares=st.integers(1, 10),
    processes=st.integers(1, 4),
    first=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_batches_cut_one_stream_of_whole_permutations(seed, size, shares, processes, first):
    batch = shares * processes
    stream = np.concatenate([batch_indices(seed, step, batch, size) for step in range(-(-3 * size // batch))])
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))
    parts = [
        batch_indices(seed, first, batch, size, process_index=index, process_count=processes)
        for index in range(processes)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), batch_indices(seed, first, batch, size))


def test_a_seed_decides_the_order_for_ever():
    # Raw Philox words are promised never to change, so a run resumed under a newer NumPy goes on with the same
    # examples.
    assert batch_indices(0, 0, 8, 5).tolist() == [0, 2, 1, 4, 3, 3, 2, 4]
    far = batch_indices(1, 10**9, 7, 1000)
    np.testing.assert_array_equal(far, batch_indices(1, 10**9, 7, 1000))
    assert far.dtype == np.int64
    assert far.tolist() != batch_indices(2, 10**9, 7, 1000).tolist()


BAD_BATCHES = [
    ((-1, 0, 4, 10), {}, "seed must be"),
    ((2**64, 0, 4, 10), {}, "seed must be"),
    ((0, -1, 4, 10), {}, "step must be 0 or more: got -1"),
    ((0, 0, 0, 10), {}, "got batch_size=0"),
    ((0, 0, 4, 0), {}, "size must be 1 or more"),
    ((0, 0, 4, 10), {"process_count": 3}, "batch_size=4, process_count=3"),
    ((0, 0, 4, 10), {"process_count": 2, "process_index": 2}, "process_index=2"),
    ((0, 0, 4, 10), {"process_count": 0}, "process_count=0"),
]


@pytest.mark.parametrize(("arguments", "named", "message"), BAD_BATCHES)
def test_a_batch_that_cannot_be_drawn_is_refused(arguments, named, message):
    with pytest.raises(ValueError, match=message):
        batch_indices(*arguments, **named)


def test_held_out_takes_a_share_of_every_class_and_never_its_only_example():
    labels = np.array([0] * 50 + [1] * 7 + [2] * 2 + [3], np.int32)
    mask = held_out(labels, 0.2, "made")
    assert np.bincount(labels[mask], minlength=4).tolist() == [10, 1, 1, 0]
    with pytest.raises(DataError, match="two or more images of some class"):
        held_out(np.arange(3, dtype=np.int32), 0.2, "made")


def test_a_grid_is_filled_row_by_row_and_saved_large_enough_to_see(tmp_path):
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 5, 3), np.uint8)
    grid = image_grid(images, 2)
    assert grid.shape == (9, 11, 3)
    assert [int(grid[row, column, 0]) for row, column in ((0, 0), (0, 6), (5, 0), (5, 6), (4, 0))] == [
        0,
        1,
        2,
        128,
        128,
    ]
    save_picture(tmp_path / "new" / "grid.png", grid)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        assert picture.size == (517, 423)
        np.testing.assert_array_equal(np.asarray(picture)[::47, ::47], grid)
    save_picture(tmp_path / "grey.png", images[2, :, :, :1], scale=3)
    with Image.open(tmp_path / "grey.png") as picture:
        assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("L", (15, 12), 2)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["grey.png"]


@pytest.mark.parametrize(("suffix", "kind", "off"), [(".jpg", "JPEG", 4), (".JPEG", "JPEG", 4), (".webp", "WEBP", 0)])
def test_a_picture_has_the_format_of_its_suffix(suffix, kind, off, tmp_path):
    pixels = np.full((4, 5, 3), 100, np.uint8)
    save_picture(tmp_path / f"x{suffix}", pixels, scale=2)
    with Image.open(tmp_path / f"x{suffix}") as picture:
        assert (picture.format, picture.size) == (kind, (10, 8))
        np.testing.assert_allclose(np.asarray(picture), 100, atol=off)


BAD_PICTURES = [
    (lambda path: image_grid(GOOD[:0], 2), "at least one image"),
    (lambda path: image_grid(GOOD, 0), "columns must be 1 or more: got 0"),
    (lambda path: save_picture(path, np.zeros((4, 4, 2), np.uint8)), r"1 or 3 channels: got \(4, 4, 2\)"),
    (lambda path: save_picture(path, np.zeros((0, 4, 1), np.uint8)), "got"),
    (lambda path: save_picture(path.with_suffix(".gif"), np.zeros((4, 4, 1), np.uint8)), r"must end in \.png, .*: got"),
    (
        lambda path: save_picture(path.with_suffix(".webp"), np.zeros((1, 16_384, 1), np.uint8)),
        "a side of a WEBP picture must be at most 16,383 pixels: got 16,384",
    ),
    (lambda path: save_picture(path, np.zeros((4, 4, 1), np.uint8), scale=0), "scale must be 1 or more: got 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD_PICTURES)
def test_a_picture_that_cannot_be_drawn_is_refused(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_the_package_imports_neither_jax_nor_what_only_some_sources_need():
    heavy = "jax", "sklearn", "PIL", "rich", "urllib.request", "torch"
    code = f"import sys, train.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
