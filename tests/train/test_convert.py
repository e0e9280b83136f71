"""`train.convert`: formats and names of published weights, and parity with the original library where it is installed."""

import dataclasses
import importlib.util
import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen.configs import GPTConfig
from eqxgen.pretrained import from_pretrained, open_pretrained
from tests import oracles
from tests.oracles._drawn import published
from tests.oracles.gpt2 import SIZES
from train import convert, gpt
from train._errors import UserError
from train.config.base import to_dict
from train.params.paths import named_arrays
from train.run.weights import save_model
from train.tasks.facts import TextFacts

WEIGHTS = oracles.load("gpt2")["weights"]


@pytest.fixture
def folder(tmp_path):
    """A published folder with the old names of a hub: no prefix, masks, a padded vocabulary, as .npz."""
    folder = tmp_path / "hub"
    folder.mkdir()
    arrays = {name.removeprefix("transformer."): array for name, array in WEIGHTS.items()}
    arrays["wte.weight"] = np.pad(arrays["wte.weight"], ((0, 3), (0, 0)))
    np.savez(folder / "model.npz", allow_pickle=False, **{"h.0.attn.bias": np.ones((1, 1, 24, 24), bool)}, **arrays)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **SIZES}))
    return folder


def converted(source, target, **options):
    assert convert.main(convert.Config(source=str(source), target=str(target), **{"parity": False} | options)) == 0
    return target


def test_old_names_and_formats_become_the_published_layout(folder, tmp_path, capsys):
    target = converted(folder, tmp_path / "out")
    found = load_file(target / "model.safetensors")
    assert found.keys() == WEIGHTS.keys()
    assert all(np.array_equal(found[name], array) for name, array in WEIGHTS.items())
    said = capsys.readouterr().out
    assert "28 arrays read; 1 (h.0.attn.bias) ignored: causal masks; 3 more rows of wte.weight than the model" in said
    assert "28 arrays of 0.01 M entries in float32, 0.0 MB" in said
    assert json.loads((target / "config.json").read_text()).items() >= SIZES.items()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_our_paths_are_what_a_recipe_starts_from(folder, tmp_path):
    target = converted(folder, tmp_path / "out", layout="eqxgen")
    arrays, model = load_file(target / "model.safetensors"), named_arrays(from_pretrained(folder))
    assert arrays.keys() == model.keys()
    assert all(np.array_equal(arrays[name], model[name]) for name in model)


def test_the_same_names_in_another_format_need_no_family(folder, tmp_path):
    (folder / "config.json").unlink()
    target = converted(folder / "model.npz", tmp_path / "out", layout="torch-names")
    assert load_file(target / "model.safetensors").keys() == np.load(folder / "model.npz").keys()


def run_of_gpt(run):
    """A run of an untrained model."""
    config = dataclasses.replace(gpt.PRESETS["nano-cpu"], model=GPTConfig(dim=8, depth=1, heads=2, context=6))
    facts = TextFacts(11, 6)
    run.mkdir()
    model = gpt.model(config, facts)(jax.random.key(0))
    record = {"recipe": "gpt", "config": to_dict(config), "facts": facts.to_record()}
    save_model(run / "model.safetensors", model, record)
    (run / "config.json").write_text(json.dumps(record))
    return model


def test_a_model_that_we_trained_is_written_as_a_published_one(tmp_path):
    run = tmp_path / "run"
    model = run_of_gpt(run)
    with pytest.raises(UserError, match="is the folder of a run: give --family"):
        converted(run, tmp_path / "out")
    leaves = open_pretrained(converted(run, tmp_path / "out", family="gpt2")).leaves
    ours = named_arrays(model)
    assert all(np.array_equal(leaves[name].read(...), ours[name]) for name in ours)


@pytest.mark.skipif(importlib.util.find_spec("jax2onnx") is None, reason="needs the extra onnx")
def test_the_forward_pass_of_a_run_is_written_as_onnx(tmp_path, capsys):
    run_of_gpt(tmp_path / "run")
    target = converted(tmp_path / "run", tmp_path / "out", layout="onnx")
    assert [path.name for path in target.iterdir()] == ["model.onnx"]
    said = capsys.readouterr().out
    assert re.search(r"takes ids int32\[6\] as \w+; gives logits of the next token\n.* differs by \d\.\de-0\d of", said)


@pytest.mark.skipif(importlib.util.find_spec("jax2onnx") is not None, reason="jax2onnx is installed")
def test_without_jax2onnx_the_extra_is_named_and_no_folder_is_left(tmp_path):
    run_of_gpt(tmp_path / "run")
    with pytest.raises(UserError, match=r'--as onnx: to_onnx needs jax2onnx: pip install "eqxgen\[onnx\]"'):
        converted(tmp_path / "run", tmp_path / "out", layout="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_only_a_run_of_a_recipe_with_a_forward_pass_is_written_as_onnx(folder, tmp_path):
    run_of_gpt(tmp_path / "run")
    record = {"recipe": "bert", "config": {}, "facts": {"vocab": 9, "context": 8, "vocabulary": None}}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps(record))
    for message, source, options in (
        (r"--from .*hub: must be the folder of a run with --as onnx: it is none", folder, {}),
        (r"--family goes with published weights: got it with --as onnx", tmp_path / "run", {"family": "gpt2"}),
        (r"--mesh goes with published weights", tmp_path / "run", {"mesh": "fsdp=2"}),
        (r"--as onnx: must have a run of train\.gpt, .*: got one of train\.bert", tmp_path / "other", {}),
    ):
        with pytest.raises(UserError, match=message) as caught:
            converted(source, tmp_path / "out", layout="onnx", **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


BAD = [
    ("no such file", lambda f: None, {"source": "nothing"}, "--from nothing: must be a folder or a file of weights: there is none"),
    ("a folder that holds files", lambda f: None, {"target": "hub"}, "--to hub: must be an empty folder, or not there: it holds files"),
    ("a target that is a file", lambda f: None, {"target": "hub/config.json"}, "must be an empty folder"),
    ("another family", lambda f: (f / "config.json").write_text('{"model_type": "mamba"}'), {}, "must be of one of .*gpt2.*: got model_type 'mamba'"),
    ("a family that is not known", lambda f: None, {"family": "gtp2"}, "family must be one of .*gpt2.*: got 'gtp2'"),
    ("no weights", lambda f: (f / "model.npz").unlink(), {}, r"model\.safetensors: no such file"),
    ("weights of two kinds", lambda f: save_file({"a": np.zeros(1)}, f / "b.safetensors"), {}, "got 2 others; give the file itself"),
    ("damaged weights", lambda f: (f / "model.npz").write_bytes(b"PK"), {}, r"model\.npz: this file is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "given", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_cannot_be_converted_is_one_line(change, given, message, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change(folder)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message):
        convert.main(convert.Config(**{"source": "hub", "target": "out"} | given))
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_write_that_fails_leaves_nothing(folder, tmp_path, monkeypatch):
    def torn(path, arrays, description):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eqxgen.pretrained.formats.safetensors.write", torn)
    with pytest.raises(UserError, match=r"out: cannot be written: No space left on device"):
        converted(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_the_original_library_reads_what_is_written_and_answers_the_same(folder, tmp_path, capsys):
    pytest.importorskip("transformers", reason="transformers is not installed; `nox -s parity` installs it")
    converted(folder, tmp_path / "out", parity=True)
    said = capsys.readouterr().out
    assert "parity: transformers.GPT2LMHeadModel reads it whole" in said
    difference, scale = said.rpartition("logits: largest difference ")[2].split(", of values up to ")
    assert float(difference) < 1e-5 * float(scale)


COMPARED = {
    "bert": ("encoder/files", "masked/files", "classifier/files"),
    "t5": ("1.1/files", "encoder/files"),
    "llama": ("3.1/files",),
    "autoencoders": ("AutoencoderKL", "VQModel"),
    "dit": ("defaults",),
    "vision": ("ViT, classifier", "CLIP, largest id", "ViT-MAE", "ResNet, basic"),
}
CASES = [(subject, case) for subject, cases in COMPARED.items() for case in cases]


@pytest.mark.parametrize(("subject", "case"), CASES)
def test_each_output_of_a_family_is_compared_with_its_librarys(subject, case, tmp_path, capsys):
    library = "diffusers" if subject in ("autoencoders", "dit") else "transformers"
    pytest.importorskip(library, reason=f"{library} is not installed; `nox -s parity` installs it")
    kept = oracles.load(subject)[case]
    hub = tmp_path / "hub"
    hub.mkdir()
    arrays = published(kept["shapes"])
    shared = re.compile(r"(transformer_blocks)\.\d+\.(norm1\.emb)")  # a DiT's blocks repeat the embeddings of the first
    arrays = {name: arrays[shared.sub(r"\1.0.\2", name)].copy() for name in arrays}
    save_file(arrays, hub / "model.safetensors")
    (hub / "config.json").write_text(str(kept["config"]))
    converted(hub, tmp_path / "out", parity=True)
    reads, *compared = [line for line in capsys.readouterr().out.splitlines() if line.startswith("parity: ")]
    assert reads.endswith(" reads it whole")
    assert compared
    for line in compared:
        difference, scale = line.rpartition("largest difference ")[2].split(", of values up to ")
        assert float(difference) < 1e-4 * float(scale), line
