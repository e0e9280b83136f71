"""Captioned images: the grammar of scenes, its canvases, emoji, and folders of pictures with texts."""

import json

import numpy as np
import pytest
from PIL import Image

from train.data import DataConfig, DataError, load
from train.data.captioned.canvases import CELL, RGB, captioned_digits, draw
from train.data.captioned.scenes import KINDS, SIDE, Scene, drawn, parse, scenes


@pytest.fixture(scope="module")
def captioned():
    return captioned_digits(load(DataConfig("digits")))


def test_every_caption_is_read_as_the_scene_that_it_was_written_of():
    for scene in scenes()[::29]:
        for bits in range(8):
            assert parse(scene.caption(bits)).cells == scene.cells


@pytest.mark.parametrize(
    ("caption", "cells"),
    [
        ("three red sevens in a row", {(1, i): (7, "red") for i in range(3)}),
        ("2 sixes in a column", {(0, 1): (6, "white"), (1, 1): (6, "white")}),
        ("a red 4 above a blue 9", {(0, 1): (4, "red"), (2, 1): (9, "blue")}),
        ("a blue 9 below a red four", {(2, 1): (9, "blue"), (0, 1): (4, "red")}),
        ("an 8 left of an eight", None),
        ("a large green zero", {(1, 1): (0, "green")}),
        ("a purple 4", None),
        ("one seven in a row", None),
        ("", None),
    ],
)
def test_a_caption_has_one_grid_of_digits_and_another_text_is_one_line(caption, cells):
    if cells is None and caption != "an 8 left of an eight":
        with pytest.raises(ValueError, match="caption must be such as") as caught:
            parse(caption)
        assert "\n" not in str(caught.value)
        return
    assert parse(caption).cells == (cells or {(1, 0): (8, "white"), (1, 2): (8, "white")})


def test_held_out_scenes_are_a_tenth_and_never_in_training(captioned):
    held = [scene for scene in scenes() if scene.held_out]
    assert 0.08 < len(held) / len(scenes()) < 0.12
    assert {scene.kind for scene in held} == set(KINDS)
    found = lambda captions: [parse(caption).held_out for caption in captions]
    assert not any(found(captioned.captions.train[:500]))
    assert found(captioned.captions.test) == [False] * 1000 + [True] * 1000
    for scene in held[::50]:
        if scene.kind == "relation":
            opposite = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}[scene.how]
            assert Scene("relation", scene.digits[::-1], scene.colours[::-1], opposite).held_out


def test_canvases_are_the_same_for_a_seed_and_others_for_another(captioned):
    digits = load(DataConfig("digits"))
    assert drawn(5, 0, held_out=False) == drawn(5, 0, held_out=False) != drawn(5, 1, held_out=False)
    grey = np.asarray(digits.train_images)[..., 0] / 16
    found = [parse(caption) for caption in captioned.captions.train[:50]]
    np.testing.assert_array_equal(
        draw(found, grey.astype(np.float32), digits.train_labels, 1), captioned.train_images[:50]
    )


def test_each_cell_of_a_canvas_has_its_digit_in_its_colour(captioned):
    digits = load(DataConfig("digits"))
    known = {image.tobytes(): label for image, label in zip(digits.train_images, digits.train_labels)}
    for canvas, caption in zip(captioned.train_images[:60], captioned.captions.train):
        scene = parse(caption)
        parts = canvas.reshape(SIDE, CELL, SIDE, CELL, 3)
        for row in range(SIDE):
            for column in range(SIDE):
                cell = canvas[::SIDE, ::SIDE] if scene.large else parts[row, :, column]
                expected = scene.cells.get((1, 1) if scene.large else (row, column))
                if expected is None:
                    assert not cell.any()
                    continue
                digit, colour = expected
                channel = int(np.argmax(RGB[colour]))
                grey = np.rint(cell[..., channel, None] * (16 / RGB[colour][channel])).astype(np.uint8)
                assert known[grey.tobytes()] == digit
                assert np.abs(cell - grey / 16 * np.asarray(RGB[colour])).max() <= 0.5


def test_emoji_of_two_styles_have_names_and_keywords(shared_data):
    data = load(DataConfig("emoji64", root=str(shared_data)), captions=True)
    assert data.train_images.shape == data.test_images.shape == (1636, 64, 64, 3)
    assert data.captions.train == data.captions.test
    assert data.captions.train[0].startswith("grinning face: grinning face face smile")
    assert np.mean(data.train_images[:, 0, 0] == 255) > 0.9
    assert not np.array_equal(data.train_images, data.test_images)


def folder_of(path, count=6):
    path.mkdir()
    for i in range(count):
        Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)).save(path / f"{i}.png")
    return path


def captions_by_pixel(data):
    images = np.concatenate([data.train_images, data.test_images])
    return dict(zip((images[:, 0, 0, 0] // 10).tolist(), (*data.captions.train, *data.captions.test)))


def test_captions_are_read_from_a_table_or_a_text_beside_each_picture(tmp_path):
    texts, table = folder_of(tmp_path / "texts"), folder_of(tmp_path / "table")
    for i in range(6):
        (texts / f"{i}.txt").write_text(f"picture\n {i} ")
    rows = [json.dumps({"file_name": f"{i}.png", "text": f"picture {i}"}) for i in range(6)]
    (table / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    for folder in (texts, table):
        lines = []
        data = load(DataConfig(str(folder)), say=lines.append, captions=True)
        assert captions_by_pixel(data) == {i: f"picture {i}" for i in range(6)}
        assert "captions of" in lines[0]
        assert "nothing left out" in lines[0]
        if folder == table:
            (table / "3.txt").write_text("another")
            assert captions_by_pixel(load(DataConfig(str(folder)), say=lines.append, captions=True))[3] == "picture 3"
            assert "1 texts of pictures, whose captions are those of the table (3.txt)" in lines.pop()
        plain = load(DataConfig(str(folder)), say=lines.append)
        assert plain.captions is None
        assert "left out" in lines[1]
        assert plain.fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "expected images with captions, got no captions"),
        ({"0.txt": "one"}, r"a caption for each picture, as some have one, got 5 without: 1\.png"),
        ({f"{i}.txt": " \n" if i == 3 else "x" for i in range(6)}, r"3\.txt: expected a caption, got an empty text"),
        ({"metadata.jsonl": '{"file_name": "9.png", "text": "x"}'}, "line 1: expected the path of a picture that is"),
        ({"captions.jsonl": "[1]"}, 'line 1: expected an object with "file_name" and "text"'),
        ({"captions.jsonl": '{"file_name": "0.png", "text": 3}'}, "line 1: expected a caption, got no text"),
        ({"captions.jsonl": '{"file_name": "0.png", "text": "x"}\n' * 2}, "line 2: expected one caption for each"),
        ({"captions.jsonl": "x", "metadata.jsonl": "x"}, "expected one table of captions"),
        ({"0.txt": b"\xff\xfe"}, "expected UTF-8, got byte 0 is none"),
    ],
)
def test_captions_that_do_not_match_the_pictures_are_one_line(tmp_path, files, says):
    folder = folder_of(tmp_path / "set")
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=says) as caught:
        load(DataConfig(str(folder)), say=lambda line: None, captions=True)
    assert "\n" not in str(caught.value)


def test_as_many_captions_as_images_are_one_line(captioned):
    import dataclasses

    with pytest.raises(DataError, match="expected 60,000 captions, one for each image, got 3 captions"):
        dataclasses.replace(captioned, captions=captioned.captions._replace(train=("a", "b", "c")))
