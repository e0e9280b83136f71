"""Images with masks: a folder of pairs, classes of pixels, one transform for both."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from train.config.pairs import MaskClass, PairConfig, WarpConfig
from train.data import DataError
from train.data.feed.draws import uniforms
from train.data.pairs.sources import LEFT_OUT, load_pairs
from train.data.pairs.warp import DRAWS, drawn_places, linear, nearest

RNG = np.random.default_rng(0)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pairs(folder, count=5, values=(0, 200), shape=(20, 25)):
    """Grey images, with masks of some values."""
    for row in range(count):
        save(folder / "images" / f"{row}.png", RNG.integers(0, 256, shape, np.uint8))
        save(folder / "masks" / f"{row}.png", RNG.choice(np.array(values, np.uint8), shape))
    return folder


def config(folder, **values):
    return PairConfig(name=str(folder), **values)


def draws(count=DRAWS, step=0):
    return uniforms(0, step, np.arange(1, dtype=np.int32), count)[0]


def test_a_folder_is_read_by_the_names_of_its_pictures_with_classes_by_value(tmp_path):
    lines = []
    found = load_pairs(config(pairs(tmp_path)), say=lines.append)
    assert list(found.classes) == [MaskClass((0,), "0"), MaskClass((200,), "200")]
    assert (len(found.train), len(found.test), found.channels) == (4, 1, 1)
    names = {*found.train.names, *found.test.names}
    assert names == {str(tmp_path / "masks" / f"{row}.png") for row in range(5)}
    with Image.open(found.test.names[0]) as mask:
        np.testing.assert_array_equal(found.test.masks[0], np.asarray(mask) == 200)
    assert "4 images to train on, 1 held out; 2 classes: 0, 200" in lines[-1]
    again = load_pairs(config(tmp_path, classes=("200=cell", "0=ground")), say=lines.append)
    assert [kind.name for kind in again.classes] == ["cell", "ground"]
    np.testing.assert_array_equal(again.test.masks[0], 1 - found.test.masks[0])
    assert again.fingerprint != found.fingerprint


@pytest.mark.parametrize("kind", ["16 bits", "transparent", "opaque"])
def test_a_mask_whose_values_reading_would_change_is_refused(kind, tmp_path):
    pairs(tmp_path, values=(0, 1, 2))
    path = tmp_path / "masks" / "1.png"
    values = np.asarray(Image.open(path))
    if kind == "16 bits":
        Image.fromarray(values.astype(np.uint16) * 400).save(path)
    else:
        picture = Image.fromarray(values).convert("P")
        picture.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2])
        picture.save(path, **({"transparency": 0} if kind == "transparent" else {"transparency": 9}))
    if kind == "opaque":
        assert len(load_pairs(config(tmp_path), say=lambda line: None).classes) == 3
        return
    message = {"16 bits": "a mask of 8 bits a channel, got mode I;16", "transparent": "an opaque mask, got transparent"}
    with pytest.raises(DataError, match=rf"1\.png: expected {message[kind]}"):
        load_pairs(config(tmp_path), say=lambda line: None)


def test_colours_sizes_and_parts_of_a_folder(tmp_path):
    table = np.array([[255, 0, 0], [0, 0, 255], [0, 0, 0]], np.uint8)
    for part, shape in (("train", (9, 12)), ("val", (7, 5))):
        save(tmp_path / part / "images" / "a.png", RNG.integers(0, 256, (*shape, 3), np.uint8))
        save(tmp_path / part / "masks" / "a.png", table[RNG.integers(0, 3, shape)])
    for name in ("train/images/a.json", "train/masks/b.txt", "notes.md"):
        (tmp_path / name).write_text("x")
    lines = []
    found = load_pairs(config(tmp_path), say=lines.append)
    assert lines[-1].endswith(
        "1 image to train on, 1 held out, of val/; 3 classes: 0,0,0, 0,0,255, 255,0,0; 3 left out: "
        "1 outside train/ and val/ (notes.md), 2 of another kind (train/images/a.json, train/masks/b.txt)"
    )
    assert [kind.name for kind in found.classes] == ["0,0,0", "0,0,255", "255,0,0"]
    assert found.test.images[0].shape == (7, 5, 3)
    words = ("255,0,0=road", "0,0,255=water", "0,0,0=ground")
    np.testing.assert_array_equal(
        np.array([2, 1, 0])[found.train.masks[0]],
        load_pairs(config(tmp_path, classes=words), say=lambda line: None).train.masks[0],
    )


def test_the_membranes_are_25_images_and_the_last_five(shared_data, monkeypatch):
    monkeypatch.setenv("EQXGEN_DATA", str(shared_data))
    found = load_pairs(PairConfig())
    assert (len(found.train), found.test.names) == (25, tuple(map(str, LEFT_OUT)))
    assert [kind.name for kind in found.classes] == ["membrane", "inside"]
    assert found.test.masks[0].shape == (512, 512)
    assert np.mean([mask == 0 for mask in found.test.masks]) == pytest.approx(0.199, abs=1e-3)


def test_an_image_and_its_mask_go_through_one_transform():
    stripes = np.kron(RNG.permutation(np.resize([0, 1], (1, 9))), np.ones((72, 8))).astype(np.uint8)
    for step, mask in enumerate((stripes, stripes.T) * 2):
        image = (200 * mask)[..., None]
        places = drawn_places(mask.shape, 32, WarpConfig(elastic=3.0), draws(step=step))
        seen, labels = linear(image, places)[..., 0], nearest(mask, places)
        np.testing.assert_array_equal((seen > 100)[seen != 100], (labels == 1)[seen != 100])
        assert 0 < np.mean((seen > 0) & (seen < 200)) < 0.6
        assert set(np.unique(labels)) <= {0, 1}


def test_a_transform_without_rotation_moves_pixels_unchanged():
    image = RNG.integers(0, 256, (30, 22, 3), np.uint8)
    windows = {
        image[top : top + 8, left : left + 8][::down, ::along].tobytes()
        for top in range(23)
        for left in range(15)
        for down in (1, -1)
        for along in (1, -1)
    }
    found = {
        linear(image, drawn_places((30, 22), 8, WarpConfig(True, 0.0, 0.0), draws(step=n))).tobytes() for n in range(40)
    }
    assert found <= windows
    assert len(found) > 30


def test_a_crop_beyond_the_image_is_mirrored():
    row = np.arange(5, dtype=np.uint8)
    image = np.broadcast_to(row, (1, 5))[..., None]
    places = drawn_places((1, 5), 12, WarpConfig(False, 0.0, 0.0), draws())
    np.testing.assert_array_equal(linear(image, places)[3, :, 0], np.pad(row, (0, 7), mode="reflect"))
    np.testing.assert_array_equal(nearest(image[..., 0], places), linear(image, places)[..., 0])


def test_elastic_displacements_are_smooth_and_of_the_deviation_of_their_points():
    at = [drawn_places((64, 64), 64, WarpConfig(False, 0.0, 10.0), draws(step=step)) for step in range(60)]
    still = drawn_places((64, 64), 64, WarpConfig(False, 0.0, 0.0), draws())
    moved = np.stack([places - still for places in at])
    assert np.abs(np.mean(moved)) < 1
    # The squares of a B-spline's weights sum to 0.25 on a point and less between points, along both sides.
    assert 3 < np.std(moved) < 5.2
    assert np.abs(np.diff(moved, axis=-1)).max() < 2.5


def test_flags_that_cannot_be_are_refused():
    for values, says in (
        ({"classes": ("0",)}, "data.classes must be 2 to 255 classes: got 1"),
        ({"classes": ("0", "0=cell")}, "data.classes must have each value and name once: got 0 0=cell"),
        ({"classes": ("0", "1,2,3")}, "data.classes must be all grey or all colours"),
        ({"classes": ("0", "256")}, "data.classes must be grey levels or colours of masks, .*: got '256'"),
        ({"classes": ("0", "1,2")}, ".*: got '1,2'"),
        ({"crop": 0}, "data.crop must be between 1 and 8192: got 0"),
        ({"held_out": 1.0}, "data.held_out must be between 0 and 1: got 1.0"),
        ({"name": "isbi"}, "data.name must be one of isbi_membrane, or a path: got 'isbi'; a path is written ./isbi"),
    ):
        with pytest.raises(ValueError, match=says):
            dataclasses.replace(PairConfig(), **values)
    with pytest.raises(ValueError, match=r"data.augment.rotate must be between 0 and 180: got -1.0"):
        WarpConfig(rotate=-1.0)


def test_broken_pictures_are_left_out_where_that_is_asked(tmp_path):
    (pairs(tmp_path) / "masks" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2.png: expected a whole picture"):
        load_pairs(config(tmp_path), say=lambda line: None)
    found = load_pairs(config(tmp_path, skip_broken=True), say=lambda line: None)
    assert len(found.train) + len(found.test) == 4
