"""Arrays that stay in their files: rows, stored .npz, and the folders that `python -m train.data prepare` writes."""

# A case is a row, however long.

import json
import os
import runpy
import shutil
import sys

import numpy as np
import pytest

from train.data import DataConfig, DataError, Order, load
from train.data.feed.feed import Feed
from train.data.files.lazy import Lazy
from train.data.files.rows import Joined, Rows

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 4, 4, 3), np.uint8)
LABELS = np.arange(60) % 3


def command(*words):
    """`python -m train.data` in this process: its exit status."""
    before, sys.argv = sys.argv, ["train.data", *map(str, words)]
    try:
        runpy.run_module("train.data", run_name="__main__")
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "made.npz"
    np.savez(path, images=IMAGES, labels=LABELS, class_names=np.array(["x", "y", "z"]))
    return path


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "set"
    assert command("prepare", source, out, "--shard-mib", "1") == 0
    return out


def same(first, second):
    arrays = ["train_images", "train_labels", "test_images", "test_labels"]
    return all(np.array_equal(getattr(first, name)[:], getattr(second, name)[:]) for name in arrays) and (
        (first.class_names, first.levels) == (second.class_names, second.levels)
    )


def test_an_uncompressed_npz_is_read_from_its_file_where_memory_is_short(source, tmp_path):
    whole = load(DataConfig(str(source)))
    lazy = load(DataConfig(str(source), memory=0.0))
    assert isinstance(lazy.train_images, Lazy)
    assert same(lazy, whole)
    np.savez_compressed(tmp_path / "packed.npz", images=IMAGES, labels=LABELS, class_names=np.array(["x", "y", "z"]))
    packed = load(DataConfig(str(tmp_path / "packed.npz"), memory=0.0))
    assert isinstance(packed.train_images, np.ndarray)
    assert same(packed, whole)


def test_a_prepared_set_is_its_source_in_memory_and_in_its_files(source, prepared, monkeypatch):
    whole = load(DataConfig(str(source)))
    assert same(load(DataConfig(str(prepared))), whole)
    lazy = load(DataConfig(str(prepared), memory=0.0))
    assert isinstance(lazy.train_images, Lazy)
    assert same(lazy, whole)
    assert lazy.fingerprint != whole.fingerprint
    order = Order(0, 8, len(whole.train_images))
    with Feed(
        lambda part: {"x": lazy.train_images[part.example]},
        lazy.train_images,
        order,
        first=0,
        last=3,
        config=DataConfig(),
    ) as feed:
        for step in range(3):
            np.testing.assert_array_equal(feed.take()["x"], whole.train_images[order.part(step).example])


def test_an_interrupted_preparation_goes_on_where_it_was(source, prepared, tmp_path, monkeypatch, capsys):
    from train.data import preparation
    from train.data.files import draft

    atomically, made = draft.write_atomically, []

    def killed(path, write):
        if path.name.endswith(".npy"):
            made.append(path.name)
            if len(made) == 3:
                raise KeyboardInterrupt
        atomically(path, write)

    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(draft, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            preparation.prepare_images(DataConfig(str(source)), out, 500)
    assert not (out / "index.json").exists()
    with pytest.raises(
        DataError,
        match="expected a finished set, got one whose preparation was interrupted: give the same prepare command",
    ):
        load(DataConfig(str(out)))
    with pytest.raises(DataError, match="an interrupted preparation of this source, got one of another"):
        preparation.prepare_images(DataConfig(), out, 500)
    damaged = out / made[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    before = (out / made[1]).stat().st_mtime_ns
    lines = []
    preparation.prepare_images(DataConfig(str(source)), out, 500, lines.append)
    assert lines[0].endswith("made.npz: 60 images, 3 classes; nothing left out")
    assert [made[0] in lines[1], made[2] in lines[2]] == [True, True]
    assert (out / made[1]).stat().st_mtime_ns == before
    assert same(load(DataConfig(str(out))), load(DataConfig(str(prepared))))
    assert not list(out.glob("*.part")) + list(out.glob("unfinished*"))
    assert command("prepare", source, out) == 1
    assert "expected a new or an empty folder to write to, got a finished set" in capsys.readouterr().err


def spoilt(change):
    """A copy of the prepared set after a change of its index."""

    def make(prepared, folder):
        shutil.copytree(prepared, folder / "set")
        index = json.loads((folder / "set" / "index.json").read_text())
        text = change(index)
        (folder / "set" / "index.json").write_text(json.dumps(index) if text is None else text)
        return folder / "set"

    return make


def altered(name, change):
    def make(prepared, folder):
        shutil.copytree(prepared, folder / "set")
        (folder / "set" / name).write_bytes(change((folder / "set" / name).read_bytes()))
        return folder / "set"

    return make


TRAIN = "train-images-00000.npy"
BAD_SETS = [
    ("a bit altered", altered(TRAIN, lambda data: data[:-1] + bytes([data[-1] ^ 1])), rf"{TRAIN}: expected SHA-256 [0-9a-f]{{64}}, got [0-9a-f]{{64}}"),
    ("labels altered", altered("train-labels.npy", lambda data: data[:-1] + b"?"), "train-labels.npy: expected SHA-256"),
    ("cut short", altered(TRAIN, lambda data: data[:-100]), rf"{TRAIN}: expected [\d,]+ bytes, got"),
    ("empty", altered(TRAIN, lambda data: b""), rf"{TRAIN}: expected [\d,]+ bytes, got 0"),
    ("no JSON", spoilt(lambda index: "{"), "index.json: expected an index that prepare wrote"),
    ("a list", spoilt(lambda index: "[]"), "index.json: expected an index that prepare wrote"),
    ("an index of NaN", spoilt(lambda index: "NaN"), "index.json: expected an index that prepare wrote"),
    ("another version", spoilt(lambda index: index.update(format="eqxgen-data 9")), "expected eqxgen-data 1 of images, got eqxgen-data 9 of images"),
    ("another kind", spoilt(lambda index: index.update(kind="tokens")), "expected eqxgen-data 1 of images, got eqxgen-data 1 of tokens"),
    ("no classes", spoilt(lambda index: index.pop("classes") and None), "index.json: expected an index that prepare wrote, got KeyError"),
    ("a file outside", spoilt(lambda index: index["files"][TRAIN].update(name="../made.npz")), "expected files in its own folder, got '../made.npz'"),
    ("a part without files", spoilt(lambda index: index["parts"]["train"].update(images=["none"])), "index.json: expected an index"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD_SETS], ids=[case[0] for case in BAD_SETS])
def test_a_damaged_prepared_set_is_refused(make, message, prepared, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        load(DataConfig(str(make(prepared, tmp_path))))
    assert "\n" not in str(caught.value)


def test_check_reads_every_file_of_a_set_too_large_for_memory(prepared, tmp_path, capsys):
    assert command("check", prepared) == 0
    assert "bytes as they were written" in capsys.readouterr().out
    folder = altered(TRAIN, lambda data: data[:-1] + bytes([data[-1] ^ 1]))(prepared, tmp_path)
    load(DataConfig(str(folder), memory=0.0))
    assert command("check", folder) == 1
    assert f"{TRAIN}: expected SHA-256" in capsys.readouterr().err


def test_rows_are_those_of_the_array_and_a_file_cut_short_meanwhile_is_named(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.save(tmp_path / "b.npy", IMAGES[:7])
    rows = Joined([Rows.of_npy(tmp_path / "a.npy"), Rows.of_npy(tmp_path / "b.npy")])
    both = np.concatenate([IMAGES, IMAGES[:7]])
    for key in (slice(None), slice(58, 63), slice(5, 50, 7), np.array([66, 0, 59, 60])):
        np.testing.assert_array_equal(rows[key], both[key])
    np.testing.assert_array_equal(rows.choose(np.array([60, 3]))[:], both[[60, 3]])
    os.truncate(tmp_path / "b.npy", 200)
    with pytest.raises(
        DataError, match=r"b.npy: expected 48 bytes, got 24 from row 1 on: the file was cut short while it was in use"
    ):
        rows[60:]


BAD_ROWS = [
    ("truncated", lambda data: data[:-1], "expected 3,008 bytes, in C order, got 3,007|expected 3,008 bytes for uint8"),
    ("longer", lambda data: data + b"x", "in C order, got 3,009"),
    ("no .npy", lambda data: b"hello", "expected a .npy file"),
    ("empty", lambda data: b"", "expected a .npy file"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS])
def test_a_file_that_is_no_array_is_refused(change, message, tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    (tmp_path / "x.npy").write_bytes(change((tmp_path / "x.npy").read_bytes()))
    with pytest.raises(DataError, match=message):
        Rows.of_npy(tmp_path / "x.npy")
    np.save(tmp_path / "o.npy", np.asfortranarray(IMAGES))
    with pytest.raises(DataError, match="got Fortran order"):
        Rows.of_npy(tmp_path / "o.npy")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prepare", "SOURCE and OUT must be given"),
        ("prepare digits out --shard-mib 0", "shard-mib must be at least 1: got 0"),
        ("prepare x.txt out --tokenizer chars --image-size 8", "--image-size is for images"),
        ("prepare x.txt out --tokenizer chars --held-out 1", "--held-out must be between 0 and 1: got 1"),
    ],
)
def test_a_wrong_command_ends_with_status_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(*words.split()) == 2
    output = capsys.readouterr()
    assert message in output.out + output.err
    assert not list(tmp_path.iterdir())
