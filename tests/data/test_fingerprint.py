"""The fingerprint of the data of a run: other data of the same shape are refused, from sources of every kind."""

# A case is a row, however long.

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from train import gpt, maskgit, vqgan
from train._errors import UserError
from train.config.data import TextConfig
from train.data import DataConfig, load
from train.data.preparation import prepare_images, prepare_text
from train.data.text.corpus import load_text
from train.run.folder import RunFolder

QUIET = lambda line: None


def images(seed, count=24):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


def folder(path, seed):
    for index, image in enumerate(images(seed)):
        (path / "set" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(
            path / "set" / "ab"[index % 2] / f"{index:02}.bmp"
        )  # of one size, whatever its pixels
    return path / "set"


def archive(path, seed):
    np.savez(path / "x.npz", images=images(seed), labels=np.arange(24) % 2)
    return path / "x.npz"


def prepared(path, seed):
    import shutil

    shutil.rmtree(path / "set", ignore_errors=True)
    prepare_images(DataConfig(str(archive(path, seed))), path / "set", 1500, QUIET)
    return path / "set"


def text(path, seed):
    letters = np.random.default_rng(seed).permutation(list("abcdefgh" * 200))
    (path / "x.txt").write_text("".join(letters), encoding="utf-8")
    return path / "x.txt"


def texts(path, seed):
    (path / "books").mkdir(exist_ok=True)
    text(path, seed).replace(path / "books" / "x.txt")
    return path / "books"


def ids(path, seed):
    (np.random.default_rng(seed).permutation(5000) % 50).astype("<u2").tofile(path / "x.bin")
    return path / "x.bin"


def prepared_text(path, seed):
    import shutil

    shutil.rmtree(path / "ids", ignore_errors=True)
    prepare_text(text(path, seed), path / "ids", "bytes", 0.1, QUIET)
    return path / "ids"


def of_images(memory):
    return lambda path: load(DataConfig(str(path), memory=memory), say=QUIET)


def of_text(path):
    return load_text(TextConfig(str(path), tokenizer="bytes", vocab=256), 8, say=QUIET)


SOURCES = [
    *[
        (f"{make.__name__}, {where}", make, of_images(memory))
        for make in (folder, archive, prepared)
        for where, memory in (("in memory", 4.0), ("in files", 0.0))
    ],
    *[(make.__name__, make, of_text) for make in (text, texts, ids, prepared_text)],
]


@pytest.mark.parametrize(("make", "read"), [case[1:] for case in SOURCES], ids=[case[0] for case in SOURCES])
def test_a_fingerprint_is_that_of_the_contents_and_not_of_names_and_sizes(make, read, tmp_path):
    found = []
    for seed in (0, 0, 1):
        found.append(read(make(tmp_path, seed)).fingerprint)
    (tmp_path / "moved").mkdir()
    found.append(read(make(tmp_path / "moved", 0)).fingerprint)
    assert found[0] == found[1] == found[3] != found[2]


def test_known_sets_have_the_fingerprint_of_their_arrays():
    digits = load(DataConfig())
    assert digits.fingerprint == load(DataConfig()).fingerprint
    assert dataclasses.replace(digits, train_labels=digits.train_labels[::-1].copy()).fingerprint != digits.fingerprint


FACTS = {"vocab": 4}
OLD, NEW = {"sha256": "a" * 64, "examples": 1000}, {"sha256": "b" * 64, "examples": 1001}


def described(folder, config, data):
    """The record of a run of these data, as a command that opens its folder has it."""
    with RunFolder.open(dataclasses.replace(config, run_dir=str(folder)), "gpt") as run:
        run.describe(FACTS, data, changed=config.data.changed)
        return run.record


def test_a_run_is_refused_other_data_unless_the_flag_allows_them(tmp_path, capsys):
    config = gpt.PRESETS["nano-cpu"]
    described(tmp_path, config, OLD)
    before = (tmp_path / "config.json").read_bytes()
    assert described(tmp_path, config, OLD)["data"] == OLD
    with pytest.raises(
        UserError,
        match=r"holds a run on other data \(1,000 examples with fingerprint aaaaaaaaaaaa, and now 1,001 examples with fingerprint bbbbbbbbbbbb\): .*--data.changed",
    ):
        described(tmp_path, config, NEW)
    assert (tmp_path / "config.json").read_bytes() == before
    allowed = dataclasses.replace(config, data=dataclasses.replace(config.data, changed=True))
    assert described(tmp_path, allowed, NEW)["data"] == NEW
    assert "goes on with other data: 1,001 examples" in capsys.readouterr().out
    described(tmp_path, config, NEW)
    assert capsys.readouterr().out == ""


def test_a_run_without_a_fingerprint_resumes_and_says_that_its_data_could_not_be_compared(tmp_path, capsys):
    config = gpt.PRESETS["nano-cpu"]
    described(tmp_path, config, None)
    old = json.loads((tmp_path / "config.json").read_text())
    assert "data" not in old
    assert described(tmp_path, config, OLD) == old | {"data": OLD}
    assert capsys.readouterr().out.count("kept no fingerprint of the data, so they could not be compared") == 1
    with pytest.raises(UserError, match=r"--data\.changed"):
        described(tmp_path, config, NEW)


@pytest.mark.parametrize(
    ("recipe", "preset"), [(maskgit, "digits"), (vqgan, "digits"), (gpt, "nano-cpu")], ids=["maskgit", "vqgan", "gpt"]
)
def test_every_recipe_gives_the_loop_the_fingerprint_of_its_data(recipe, preset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = dataclasses.replace(recipe.PRESETS[preset], run_dir=str(tmp_path / "run"))
    if recipe is gpt:
        config = dataclasses.replace(config, data=TextConfig(str(text(tmp_path, 0)), tokenizer="bytes"))
    assert len(recipe.RECIPE.task(config, tmp_path / "run").fingerprint) == 64
