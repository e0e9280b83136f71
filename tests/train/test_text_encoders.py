"""Frozen encoders of texts of `train.muse` and `train.parti`: folders, runs, sizes on paper, and wrong ones."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from eqxgen.configs import ImageSampling, MaskedDecoding, MuseConfig, PartiConfig
from tests.devices import printed
from tests.full import FULL, full
from tests.train.captioned_pictures import captioned_pictures
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from tests.train.text_encoder_folders import clip_folder, run_folder, t5_folder
from train import evaluate, muse, parti, sample
from train._errors import UsageError, UserError
from train.config.base import parse
from train.config.data import DataConfig
from train.run.weights import digest
from train.tasks.text_encoders import open_text_encoder, open_texts

HALVES = {"dim": 8, "depth": 1, "decoder_depth": 1, "heads": 1, "head_dim": 8, "hidden_dim": 8, "context": 10}
MUSE, PARTI = MuseConfig(**HALVES, dropout=0.1), PartiConfig(**HALVES, dropout=0.1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Published folders, and runs of untrained weights."""
    root = tmp_path_factory.mktemp("encoders")
    return {
        "t5": t5_folder(root / "t5"),
        "clip": clip_folder(root / "clip"),
        "t5 run": run_folder("t5", root / "runs-t5"),
        "clip run": run_folder("clip", root / "runs-clip"),
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return captioned_pictures(tmp_path_factory.mktemp("pictures"))


def config_of(recipe, pictures, folder, encoder, **changes):
    decode = MaskedDecoding(steps=2, guidance=2.0) if recipe is muse else ImageSampling(guidance=2.0)
    values = {
        "steps": 2,
        "batch_size": 4,
        "log_every": 1,
        "sample_every": 0,
        "checkpoint_every": 1,
        "evals": ("held_out",) if FULL else ("none",),
        "tokenizer": "pixels",
        "text_encoder": str(encoder),
        "data": DataConfig(name=str(pictures), image_size=4),
        "model": MUSE if recipe is muse else PARTI,
        "decode": decode,
    }
    return recipe.Config(run_dir=str(folder), **values | changes)


@full
def test_a_run_reads_a_frozen_t5_that_its_files_are_without(pictures, folders, tmp_path, monkeypatch):
    encoder, run = shutil.copytree(folders["t5"], tmp_path / "t5"), tmp_path / "run"
    assert muse.main(config_of(muse, pictures, run, encoder)) == 0
    record, before = json.loads((run / "config.json").read_text()), digest(open_text_encoder(str(encoder), 10))
    assert record["frozen"] == record["facts"]["text_encoder"] == before
    assert {k: record["facts"][k] for k in ("vocab", "text", "text_dim", "text_end")} == {
        "vocab": 16, "text": 10, "text_dim": 12, "text_end": 1
    }  # fmt: skip
    names = weights(run).keys()
    assert not [name for name in names if name.startswith(("text.", "frozen."))]
    assert weights(run)["projection.weight"].shape == (8, 12)
    assert not (run / "vocabulary.json").exists()
    if FULL:
        again = config_of(muse, pictures, tmp_path / "again", encoder)
        crashed_and_resumed(muse, again, 2, monkeypatch)
        assert same(weights(run), weights(tmp_path / "again"))
        assert evaluate.main(words(run=run, evals="held_out")) == 0
        evaluation = json.loads((run / "evaluation.json").read_text())
        assert evaluation["eval_loss"] == json.loads((run / "summary.json").read_text())["eval_loss"]
    asked = {"run": run, "text": "red let", "n": 2, "out": tmp_path / "x.npz"}
    if FULL:  # the pictures of the run itself are drawn by the same functions
        assert sample.main(words(**asked)) == 0
        with np.load(tmp_path / "x.npz") as arrays:
            assert arrays["images"].shape == (2, 4, 4, 3)
    # Other weights, and then another tokenizer, in the place of those that the run was begun with.
    shutil.copy(_changed(encoder), encoder / "model.safetensors")
    with pytest.raises(UserError, match=r"--text-encoder .*: its encoder is another than the run was begun with"):
        sample.main(words(**asked))
    with pytest.raises(UserError, match=r"--text-encoder .*: its encoder is another than the run was begun with"):
        muse.RECIPE.task(config_of(muse, pictures, run, encoder), run)
    text = (encoder / "tokenizer.json").read_text()
    (encoder / "tokenizer.json").write_text(text.replace('"b"', '"q"'))
    with pytest.raises(UserError, match=r"--text-encoder .*: its tokenizer is another than the run was begun with"):
        sample.main(words(**asked))


def _changed(folder):
    """A file of the same model with other weights."""
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "model.safetensors")
    name = "encoder.final_layer_norm.weight"
    save_file(arrays | {name: arrays[name] + 1}, folder / "changed.safetensors", metadata={"format": "pt"})
    return (folder / "changed.safetensors").rename(folder.parent / "changed.safetensors")


@full
@pytest.mark.parametrize("kind", ["clip", "t5 run", "clip run"])
def test_parti_is_trained_and_sampled_by_every_kind_of_encoder(kind, pictures, folders, tmp_path):
    text = "bed" if kind == "clip" else "abc"
    pictures = shutil.copytree(pictures, tmp_path / "pictures")
    for path in pictures.glob("*.txt"):
        path.write_text(text)
    context = {"clip": 10, "t5 run": 10, "clip run": 8}[kind]
    model = dataclasses.replace(PARTI, context=context)
    assert parti.main(config_of(parti, pictures, tmp_path / "run", folders[kind], model=model)) == 0
    assert 0 < metrics(tmp_path / "run")[-1]["loss"] < 10
    assert sample.main(words(run=tmp_path / "run", text=text, n=2, out=tmp_path / "x.npz")) == 0


def test_the_tokenizer_of_each_kind_makes_rows_without_begin_and_end(folders):
    for kind, (text, ids, begin, end) in {
        "t5": ("red dot", [3, 9, 6, 5, 3, 5, 8, 10], None, 1),
        "clip": ("red", [5, 2, 9], 16, 17),
        "t5 run": ("abc", [4, 5, 6], None, 1),
        "clip run": ("abc", [2, 3, 4], None, 10),
    }.items():
        texts = open_texts(str(folders[kind]))
        assert texts.encode(text).tolist() == ids, kind
        assert (texts.begin, texts.end) == (begin, end), kind
        encoder = open_text_encoder(str(folders[kind]), 7)
        assert encoder.dim == {"t5": 12, "clip": 8}.get(kind, 8), kind
        assert encoder.context == {"clip": 11, "clip run": 8}.get(kind), kind


def test_an_encoder_on_paper_has_the_size_of_its_folder_or_of_its_name(folders):
    preset = muse.PRESETS["muse-3b"]
    facts = lambda where, recipe=muse, **changes: recipe.RECIPE.on_paper(
        dataclasses.replace(preset, text_encoder=str(where), **changes)
    )
    short = dataclasses.replace(preset.model, context=11)
    for where, (vocab, dim, end) in {
        "./t5-v1_1-xxl": (32128, 4096, 1),
        "models/t5-small": (32128, 512, 1),
        "clip-vit-large-patch14": (49408, 768, 49407),
        folders["t5"]: (16, 12, 1),
        folders["clip"]: (18, 8, 17),
        "runs/clip-mnist": (321, 64, 320),
    }.items():
        context = dataclasses.replace(short, context=8) if where == "runs/clip-mnist" else short
        found = facts(where, model=context)
        assert (found.vocab, found.text_dim, found.text_end) == (vocab, dim, end), where
    assert facts("./t5-v1_1-xxl").own_vocab is None
    for where, message in {
        "./t5-v1_1-11b": r"--text-encoder \./t5-v1_1-11b: must be on paper a folder that is there, or be named t5-small",
        "clip-vit-base-patch32": "--model.context must be at most the 76 tokens of --text-encoder clip-vit-base-patch32, "
        "its begin excluded: got 128",
    }.items():
        with pytest.raises((UserError, UsageError), match=message) as caught:
            facts(where)
        assert "\n" not in str(caught.value)


def test_each_wrong_folder_and_text_is_one_line_before_any_token_is_made(pictures, folders, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(folders["clip"], alone)
    (alone / "vocab.json").unlink()
    for name, said in {"vit": '{"model_type": "vit"}', "vqgan": '{"recipe": "vqgan"}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(said)
    other = shutil.copytree(folders["t5"], tmp_path / "other")
    values = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(values | {"d_model": 16}))
    for message, (encoder, changes) in {
        "--text-encoder .*none: has no config.json: give the folder of a published T5 or CLIP": (tmp_path / "none", {}),
        "--text-encoder .*vit: must be an encoder of texts: got model_type 'vit'": (tmp_path / "vit", {}),
        "--text-encoder .*: is a run of train.vqgan, which has no encoder of texts": (tmp_path / "vqgan", {}),
        "--text-encoder .*alone: .* must have a tokenizer, one of": (alone, {}),
        "--text-encoder .*other: .* must be": (other, {}),
        r"--model\.context must be more than the tokens of every caption of .*: got 8, and 8 of 'red dot'": (
            folders["t5"],
            {"model": dataclasses.replace(MUSE, context=8)},
        ),
        r"--model\.context must be at most the 11 tokens of --text-encoder .*, its begin excluded: got 12": (
            folders["clip"],
            {"model": dataclasses.replace(MUSE, context=12)},
        ),
        "--text-encoder: caption 'blue' of .*: text must have characters of the vocabulary's": (
            folders["t5 run"],
            {},
        ),
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            muse.RECIPE.task(config_of(muse, pictures, tmp_path / "run", encoder, **changes), tmp_path / "run")
        assert "\n" not in str(caught.value)
    with pytest.raises(
        ValueError, match="text must be of the vocabulary, without the token of the end, id 17: got 'x'"
    ):
        open_texts(str(folders["clip"])).encode("x")
    with pytest.raises(ValueError, match="text_encoder must be the folder of an encoder of texts: got ' '"):
        parti.Config(text_encoder=" ")
    for recipe in (muse, parti):
        with pytest.raises(UsageError, match="--text-tokenizer bytes: must be left out with --text-encoder x, whose"):
            parse(recipe.RECIPE.name, recipe.Config, recipe.PRESETS, "", ["--text-encoder=x", "--text-tokenizer=bytes"])


@full
def test_an_encoder_in_parts_over_a_mesh_gives_the_same_losses(pictures, tmp_path):
    encoder = t5_folder(tmp_path / "t5", vocab=128)  # its table is large enough to be shared out
    found = printed("tests.train.text_encoder_devices", str(pictures), str(encoder), str(tmp_path))
    np.testing.assert_allclose(found["fsdp=8"], found["data=8"], rtol=1e-5)
    assert "fsdp" in found["parts"]
