"""`python -m train.data check` on sources of every kind, and the commands' own mistakes."""

# A case is a row, however long.

import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from train.data import DataConfig
from train.data.preparation import prepare_images, prepare_text

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
TEXT = "the quick brown fox\n" * 50


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["train.data", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("train.data", run_name="__main__")
    return stop.value.code


def pictures(path):
    for index, image in enumerate(IMAGES):
        (path / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[: 4 + index % 3]).save(path / "ab"[index % 2] / f"{index}.png")
    return path


def captioned(path, lack=0):
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(path / f"{index}.png")
        if index >= lack:
            (path / f"{index}.txt").write_text(f"picture {index}")
    return path


def archive(path, name="x.npz", **arrays):
    np.savez(path / name, **{"images": IMAGES, "labels": np.arange(12) % 2} | arrays)
    return path / name


def text(path):
    (path / "x.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    return path / "x.txt"


def ids(path, name="x.bin"):
    array = np.arange(1000, dtype=np.uint16) % 300
    if name.endswith(".npy"):
        np.save(path / name, array)
    else:
        array.tofile(path / name)
    return path / name


def prepared(path):
    return prepare_images(DataConfig(str(archive(path))), path / "set", 2**20, lambda line: None).parent


def prepared_text(path):
    return prepare_text(text(path), path / "ids", "chars", 0.1, lambda line: None).parent


KINDS = [
    ("pictures of several sizes", pictures, "a folder of pictures: 10 images to train on and 2 held out, classes a, b, every one decoded"),
    ("captions", captioned, "10 images to train on and 2 held out, no classes, each with a caption, every one decoded"),
    ("an .npz", archive, "an .npz of images: 10 images to train on and 2 held out, classes 0, 1, of 8 x 8 x 3"),
    ("an .npz without labels", lambda p: np.savez(p / "x.npz", images=IMAGES) or p / "x.npz", "10 images to train on and 2 held out, no classes, of 8 x 8 x 3"),
    ("a text", text, "text: 1 file, 1,000 characters, 17 of them different, in UTF-8"),
    ("texts", lambda p: text(p).parent, "text: 1 file, 1,000 characters"),
    ("ids", ids, "token ids as uint16, without a header: 1,000 ids, the largest 299, all below 65,536"),
    ("ids as .npy", lambda p: ids(p, "x.npy"), "token ids as uint16: 1,000 ids, the largest 299, all below 65,536"),
    ("a prepared set", prepared, "a prepared set of images: 4 files, "),
    ("a prepared text", prepared_text, "a prepared set of tokens: 2 files, "),
    ("a known set", lambda p: "digits", "digits: 1,442 images to train on and 355 held out, classes 0, 1, 2, 3, 4 ..., of 8 x 8 x 1"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "says"), [case[1:] for case in KINDS], ids=[case[0] for case in KINDS])
def test_check_reads_a_source_of_every_kind_and_says_what_it_is(make, says, tmp_path, monkeypatch, capsys):
    path = make(tmp_path)
    assert command(monkeypatch, "check", path) == 0
    assert f"{path}: " in (out := capsys.readouterr().out)
    assert says in out.splitlines()[-1]


def spoilt(make, name, data):
    def made(path):
        found = make(path)
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
        return found

    return made


BAD = [
    ("nothing", lambda p: p / "none", "none: expected a folder or a file, got nothing there"),
    ("an empty folder", lambda p: p, "expected pictures, texts or a prepared set, got none"),
    ("a misnamed .npz", lambda p: archive(p).rename(p / "x.zip"), "x.zip: expected a folder, or a file .npz, .*, got a zip archive: if numpy.savez wrote it"),
    ("a misnamed .npy", lambda p: ids(p, "x.npy").rename(p / "x.ids"), "x.ids: expected a folder, or a file .npz, .*, got a NumPy array: let its name end in .npy"),
    ("another file", lambda p: (p / "x.mp3").write_bytes(b"ID3 music") and p / "x.mp3", "x.mp3: expected a folder, .*, got a file that begins with b'ID3 music'"),
    ("one picture", lambda p: pictures(p) / "a" / "0.png", "0.png: expected a source to train on, got one picture of 4 x 8 x 3: put it into a folder"),
    ("images as .npy", lambda p: np.save(p / "x.npy", IMAGES) or p / "x.npy", "expected one axis of uint8, uint16 or uint32, got uint8"),
    ("a broken picture", spoilt(pictures, "b/z.png", b"x"), "z.png: expected a whole picture"),
    ("missing captions", lambda p: captioned(p, lack=2), "expected a caption for each picture, as some have one, got 2 without"),
    ("an empty caption", spoilt(captioned, "3.txt", b" "), "3.txt: expected a caption, got an empty text"),
    ("two broken pictures", spoilt(spoilt(pictures, "b/z.png", b"x"), "b/y.gif", b""), "got 2 of 14 files that cannot: b/y.gif .an empty file., b/z.png"),
    ("an altered shard", spoilt(prepared, "set/train-labels.npy", b""), "train-labels.npy: expected [0-9,]+ bytes, got 0"),
    ("an .npz with a gap", lambda p: archive(p, labels=np.arange(12) % 2 + 1), "training images of all 3 classes, got none of class 0"),
    ("no UTF-8", spoilt(text, "x.txt", b"ab\xff"), "x.txt: expected UTF-8 text, got byte 0xff at offset 2"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "says"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_check_names_what_is_wrong_in_one_line(make, says, tmp_path, monkeypatch, capsys):
    import re

    assert command(monkeypatch, "check", make(tmp_path)) == 1
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert error.count("\n") == 1
    assert "object at" not in error


def test_prepare_takes_an_existing_path_without_a_mark_and_names_one_that_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(pictures(tmp_path / "pets").parent)
    assert command(monkeypatch, "prepare", "pets", "out", "--image-size", "8") == 0
    assert "pets: 12 pictures, 2 classes; nothing left out" in capsys.readouterr().out
    for name, hint in (("pet", "a path is written ./pet"), ("mnits", "did you mean mnist")):
        assert command(monkeypatch, "prepare", name, "more") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: SOURCE must be one of digits, mnist")
        assert hint in error
        assert error.count("\n") == 1
    assert command(monkeypatch, "prepare", "digits", "more", "--threads", "0") == 2
    assert "--threads must be between 1 and 256: got 0" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_prepare_leaves_out_broken_pictures_where_it_is_asked_to(tmp_path, monkeypatch, capsys):
    source = spoilt(spoilt(pictures, "b/z.png", b"x"), "b/y.gif", b"")(tmp_path / "in")
    assert command(monkeypatch, "prepare", source, tmp_path / "out", "--image-size", "8") == 1
    assert "pass --data.skip-broken" in capsys.readouterr().err
    assert command(monkeypatch, "prepare", source, tmp_path / "out", "--image-size", "8", "--skip-broken") == 0
    assert "2 of 14 files cannot be read and are left out: b/y.gif (an empty file), b/z.png" in capsys.readouterr().out


def test_preparing_byte_pairs_without_their_library_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert command(monkeypatch, "prepare", text(tmp_path), tmp_path / "out", "--tokenizer", "bpe-300") == 1
    error = capsys.readouterr().err
    assert "need the package tokenizers, which is not installed: pip install 'eqxgen[train]'" in error
    assert error.count("\n") == 1
