"""Files that a source reads and skips, gaps in classes, and errors that name all broken files."""

# A case is a row, however long.

import io
import os

import numpy as np
import pytest
from PIL import Image

from train.config.data import TextConfig
from train.data import DataConfig, DataError, load
from train.data.files.lazy import Lazy
from train.data.images.dataset import UNLABELLED
from train.data.images.picture import SUFFIXES, read_picture
from train.data.preparation import prepare_images
from train.data.text.corpus import load_text
from train.data.text.text_files import read_text

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 3), np.uint8)
EXTENSIONS = {
    "png": "PNG",
    "jpg": "JPEG",
    "bmp": "BMP",
    "webp": "WEBP",
    "gif": "GIF",
    "tif": "TIFF",
    "ppm": "PPM",
    "TIFF": "TIFF",
    "tga": "TGA",
}


def write(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, EXTENSIONS[path.suffix[1:]], **options)


def pictures(folder, names, images=IMAGES):
    for name, image in zip(names, images):
        write(folder / name, image)
    return folder


def read(path, **options):
    """The data set of a path, and the lines about it."""
    lines = []
    return load(DataConfig(str(path), **options), say=lines.append), lines


def test_every_kind_of_picture_at_any_depth_is_read_and_one_line_names_what_is_left_out(tmp_path):
    names = [
        f"{label}/{deep}{i}.{end}"
        for label in "ab"
        for deep in ("", "more/", "more/deep/")
        for i, end in enumerate(EXTENSIONS)
    ]
    pictures(tmp_path, names, np.tile(IMAGES, (2, 1, 1, 1)))
    for name in ("a/notes.txt", "a/more/x.svg", "b/.DS_Store", "top.png", "a/y.csv", "a/z.csv"):
        (tmp_path / name).write_text("x")
    os.symlink(tmp_path / "b", tmp_path / "a" / "linked")
    dataset, (line,) = read(tmp_path)
    assert len(dataset.train_images) + len(dataset.test_images) == len(names) == 54
    assert dataset.class_names == ("a", "b")
    assert line == (
        f"{tmp_path}: 54 pictures, 2 classes; 7 left out: 1 linked folders (a/linked), "
        "4 of another kind (a/notes.txt, a/y.csv, a/more/x.svg and 1 more), 1 hidden (b/.DS_Store), 1 outside the class folders (top.png)"
    )
    assert read(pictures(tmp_path / "plain", ["c/0.png", "c/1.png"]))[1] == [
        f"{tmp_path / 'plain'}: 2 pictures, 1 class; nothing left out"
    ]


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("train", "val"), "16 pictures, 2 classes, val/ held out; nothing left out"),
        (("Training", "Validation"), "16 pictures, 2 classes, Validation/ held out; nothing left out"),
        (("train", "dev"), "16 pictures, 2 classes, dev/ held out; nothing left out"),
        (("train", "test", "val"), "2 classes, test/ held out; 1 left out: 1 outside train/ and test/ (val/)"),
        (("train", "bus"), "16 pictures, 2 classes; nothing left out"),
        (("train",), "together with test/ or testing/ or val/ or valid/ or validation/ or dev/, got train/ alone: add"),
        (("test", "val"), "together with .*, got test/ and val/ alone: add the other one, or name the folder in it"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_parts_of_a_folder_are_never_classes(folders, says, tmp_path):
    pictures(tmp_path, [f"{part}/{label}/{row}.png" for part in folders for label in "ab" for row in range(4)])
    if "alone" in says:
        with pytest.raises(DataError, match=f"{tmp_path}: expected train/ {says}"):
            read(tmp_path)
        return
    dataset, (line,) = read(tmp_path)
    assert line.endswith(says)
    assert dataset.class_names == (("bus", "train") if "bus" in folders else ("a", "b"))


def test_what_each_suffix_holds_is_decoded_to_the_pixels_that_were_written(tmp_path):
    grey = np.tile(np.arange(8, dtype=np.uint8) * 30, (8, 1))
    for end in ("png", "bmp", "tif", "ppm", "tga", "gif"):
        write(tmp_path / f"x.{end}", grey)
        np.testing.assert_array_equal(read_picture(tmp_path / f"x.{end}", None)[..., 0], grey, end)
    assert set(SUFFIXES) > {".png", ".jpeg", ".tif", ".tiff", ".gif", ".ppm", ".webp", ".bmp", ".pgm"}


def test_sixteen_bits_become_eight_by_rounding(tmp_path):
    deep = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    for name, kind in (("x.png", "PNG"), ("x.tif", "TIFF"), ("x.pgm", "PPM")):
        Image.fromarray(deep).save(tmp_path / name, kind)
        assert read_picture(tmp_path / name, None)[..., 0].tolist() == [[0, 0, 1, 1, 128, 254, 255, 255]], name


def test_the_first_picture_of_a_cameras_file_is_taken(tmp_path):
    first, second = (Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 10))
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    assert abs(int(read_picture(tmp_path / "x.jpg", None).mean()) - 200) < 3


CLASSLESS = [
    (
        "a flat folder",
        lambda p: pictures(p / "set", [f"{i}.png" for i in range(10)]),
        "10 pictures, no classes; nothing left out",
    ),
    (
        "parts without classes",
        lambda p: pictures(p / "set", [f"train/{i}.png" for i in range(8)] + ["test/8.png", "test/9.png"]),
        "10 pictures, no classes, test/ held out; nothing left out",
    ),
    (
        "an .npz without labels",
        lambda p: np.savez(p / "x.npz", images=IMAGES[:10]) or p / "x.npz",
        "10 images, no array labels, so no classes; nothing left out",
    ),
]
ONE_CLASS = [
    (
        "a folder",
        lambda p: pictures(p / "set", [f"cat/{i}.png" for i in range(10)]),
        "10 pictures, 1 class; nothing left out",
    ),
    (
        "an .npz",
        lambda p: np.savez(p / "x.npz", images=IMAGES[:10], labels=np.zeros(10, int), more=np.zeros(3)) or p / "x.npz",
        "10 images, 1 class; arrays left out: more",
    ),
]


@pytest.mark.parametrize(
    ("make", "line"),
    [case[1:] for case in CLASSLESS + ONE_CLASS],
    ids=[f"no classes: {c[0]}" for c in CLASSLESS] + [f"one class: {c[0]}" for c in ONE_CLASS],
)
@pytest.mark.parametrize("prepared", [False, True])
def test_one_class_and_no_classes_are_taken_by_every_source(make, line, prepared, tmp_path):
    path, lines = make(tmp_path), []
    if prepared:
        prepare_images(DataConfig(str(path)), tmp_path / "out", 2**20, lines.append)
        path = tmp_path / "out"
    dataset, said = read(path)
    assert (lines or said)[0].endswith(line)
    assert (dataset.num_classes, len(dataset.train_images), len(dataset.test_images)) == (1, 8, 2)
    assert (dataset.class_names == UNLABELLED) == ("no classes" in line)
    with pytest.raises(DataError, match=r"at least 2 classes, got (images without classes|1): add classes"):
        dataset.labelled()


GAPS = [
    ("folder", lambda p: (pictures(p, ["a/0.png", "a/1.png", "b/x.png"]), (p / "b/x.png").unlink(), (p / "c").mkdir()) and p, "in every class folder, got none in b, c: "),
    ("parts", lambda p: (pictures(p, ["train/a/0.png", "test/a/1.png", "test/b/1.png"]), (p / "train/b").mkdir()) and p, "in every class folder, got none in b: "),
    ("npz", lambda p: np.savez(p / "x.npz", images=IMAGES[:8], labels=np.arange(8) % 2 * 2) or p / "x.npz", "images of all 3 classes, got none of class 1 .'1'.: number"),
    ("prepared", lambda p: prepared_without(p, 0), "images of all 2 classes, got none of class 0 .'0'.: number"),
]  # fmt: skip


def prepared_without(folder, label):
    """A prepared set, the training labels of which were written anew."""
    import hashlib
    import json

    np.savez(folder / "x.npz", images=IMAGES[:8], labels=np.arange(8) % 2)
    index = prepare_images(DataConfig(str(folder / "x.npz")), folder / "set", 2**20, lambda line: None)
    about, path = json.loads(index.read_text()), folder / "set" / "train-labels.npy"
    np.save(path, np.full_like(np.load(path), 1 - label))
    about["files"][path.name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    index.write_text(json.dumps(about))
    return folder / "set"


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in GAPS], ids=[case[0] for case in GAPS])
def test_a_class_without_training_images_is_named_by_every_source(make, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read(make(tmp_path))


BROKEN = [b"<html>404</html>", b"\x89PNG\r\n\x1a\nxx", b""]


def with_broken(folder, count):
    pictures(folder, [f"{label}/{i}.png" for label in "ab" for i in range(6)])
    for number in range(count):
        (folder / "ab"[number % 2] / f"bad{number}.jpg").write_bytes(BROKEN[number % 3])
    return folder


@pytest.mark.parametrize("memory", [4.0, 0.0], ids=["in memory", "in files"])
def test_all_broken_pictures_are_named_at_once_or_left_out_with_a_line(memory, tmp_path):
    folder = with_broken(tmp_path, 5)
    if memory:
        with pytest.raises(DataError) as caught:
            read(folder)
        assert str(caught.value) == (
            f"{folder}: expected files that can be read, got 5 of 17 files that cannot: a/bad0.jpg (a file that begins with b'<html>404</h'), "
            "a/bad2.jpg (an empty file), a/bad4.jpg (a file that begins with b'\\x89PNG\\r\\n\\x1a\\nxx') and 2 more: "
            "replace them, take them out, or pass --data.skip-broken"
        )
        assert "object at" not in str(caught.value)
    dataset, lines = read(folder, skip_broken=True, memory=memory)
    assert isinstance(dataset.train_images, Lazy) == (memory == 0)
    assert len(dataset.train_images) + len(dataset.test_images) == 12
    assert sum("cannot be read and are left out" in line for line in lines) >= 1
    assert set(np.unique(dataset.train_labels)) == {0, 1}
    dataset.train_images[:]


def test_pictures_of_other_sizes_are_no_broken_ones_and_named_at_once(tmp_path):
    pictures(tmp_path, [f"a/{i}.png" for i in range(4)])
    for name in ("a/x.png", "a/y.png"):
        write(tmp_path / name, IMAGES[0, :5])
    for skip in (False, True):
        with pytest.raises(
            DataError,
            match=r"pictures of \(8, 8\), as the first is, got 2 of 6 of another: a/x.png \(5, 8\), a/y.png \(5, 8\): pass --data.image-size",
        ):
            read(tmp_path, skip_broken=skip)


def test_a_set_of_nothing_but_broken_pictures_is_refused_whatever_the_flag(tmp_path):
    for name in ("a/0.png", "a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"a/[01].png: expected a whole picture, got a file that begins with b'x'"):
        read(tmp_path, skip_broken=True)


def test_texts_that_are_left_out_or_broken_are_named(tmp_path):
    for name, data in (
        ("a.txt", b"one"),
        ("b/c.md", b"two"),
        ("d.rst", b"no"),
        ("e.txt", b"caf\xe9"),
        ("f.txt", b"\xff"),
        (".g.txt", b"h"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(
        DataError,
        match=r"got 2 of 4 files that cannot: e.txt \(byte 0xe9 .*\), f.txt \(byte 0xff .*pass --data.skip-broken",
    ):
        read_text(tmp_path)
    lines = []
    assert list(read_text(tmp_path, skip_broken=True, say=lines.append)) == ["a.txt", "b/c.md"]
    assert "2 of 4 files cannot be read and are left out: e.txt (byte 0xe9" in lines[0]
    assert lines[1] == f"{tmp_path}: 2 texts; 2 left out: 1 hidden (.g.txt), 1 of another kind (d.rst)"


LINES = "one\ntwo\n\nthree\n" * 40


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_line_end_is_one_and_a_byte_order_mark_none_unless_line_ends_are_kept(end, mark, tmp_path):
    (tmp_path / "x.txt").write_bytes(mark + LINES.replace("\n", end).encode())
    name = str(tmp_path / "x.txt")
    corpus = load_text(TextConfig(name), 8, say=lambda line: None)
    assert corpus.vocabulary.characters == "".join(sorted(set(LINES)))
    assert corpus.vocabulary.decode(corpus.train.ids) + corpus.vocabulary.decode(corpus.held_out.ids) == LINES
    assert corpus.vocabulary.start == "\n"
    kept = load_text(TextConfig(name, keep_newlines=True), 8, say=lambda line: None)
    assert kept.vocabulary.decode(kept.train.ids) == LINES.replace("\n", end)[: len(kept.train.ids)]
    assert ("\r" in kept.vocabulary.characters) == ("\r" in end)


def test_the_beginning_of_samples_is_always_in_the_vocabulary(tmp_path):
    for text, start in (("a\nb", "\n"), ("a b", " "), ("ab", "a")):
        (tmp_path / "x.txt").write_text(text * 50, encoding="utf-8")
        vocabulary = load_text(TextConfig(str(tmp_path / "x.txt")), 4).vocabulary
        assert vocabulary.start == start
        assert vocabulary.encode(vocabulary.start).size == 1


def test_a_message_never_shows_an_object_of_another_library(tmp_path):
    buffer = io.BytesIO(b"x")
    message = str(DataError("x", "a picture", f"cannot identify image file {buffer!r}", "replace it"))
    assert message == "x: expected a picture, got cannot identify image file: replace it"
