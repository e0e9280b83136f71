"""Models of the hub, without a network: the files of a revision are chosen, checked by their digests, found offline."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest

from eqxgen.pretrained import from_pretrained
from eqxgen.pretrained.formats import safetensors
from eqxgen.pretrained.formats.hub import chosen, fetched
from eqxgen.pretrained.formats.stored import held
from tests import oracles
from tests.oracles.gpt2 import SIZES

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed; pip install huggingface_hub")
SHA = "0123456789abcdef0123456789abcdef01234567"
NAME = "owner/gpt2-tiny"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub of one model, whose cache keeps files by their digests; `offline` makes it unreachable."""
    cache, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    cache.mkdir()
    snapshot.mkdir()
    safetensors.write(tmp_path / "weights", {n: held(a) for n, a in oracles.load("gpt2")["weights"].items()}, {})
    contents = {
        "config.json": json.dumps({"model_type": "gpt2", **SIZES}).encode(),
        "model.safetensors": (tmp_path / "weights").read_bytes(),
        "pytorch_model.bin": b"a pickle",
        "modeling.py": b"raise SystemExit",
    }
    state = SimpleNamespace(offline=False, contents=contents, asked=[], snapshot=snapshot)

    def listed(name):
        data = contents[name]
        large = name.endswith((".safetensors", ".bin"))
        sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return SimpleNamespace(
            rfilename=name,
            blob_id=sha1,
            lfs=SimpleNamespace(sha256=hashlib.sha256(data).hexdigest()) if large else None,
        )

    state.siblings = [listed(name) for name in contents]

    def model_info(self, name, *, revision, files_metadata):
        if state.offline:
            raise ConnectionError("no route to the hub\nsecond line")
        assert files_metadata
        return SimpleNamespace(sha=SHA, siblings=state.siblings)

    def snapshot_download(name, *, revision, allow_patterns=None, local_files_only=False):
        assert revision == SHA
        if local_files_only and not list(snapshot.iterdir()):
            raise FileNotFoundError("not cached")
        for entry in state.siblings:
            if allow_patterns and entry.rfilename in allow_patterns:
                state.asked.append(entry.rfilename)
                blob = cache / (entry.lfs.sha256 if entry.lfs else entry.blob_id)
                blob.write_bytes(contents[entry.rfilename])
                (snapshot / entry.rfilename).unlink(missing_ok=True)
                (snapshot / entry.rfilename).symlink_to(blob)
        return str(snapshot)

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "https://hub.invalid")
    return state


def test_a_model_is_fetched_by_its_revision_and_found_offline_by_its_commit(server):
    model = from_pretrained(NAME, revision="main")
    assert sorted(server.asked) == ["config.json", "model.safetensors"]
    np.testing.assert_array_equal(model.positions, oracles.load("gpt2")["weights"]["transformer.wpe.weight"])
    server.offline = True
    assert fetched(NAME, SHA) == server.snapshot
    with pytest.raises(
        ValueError, match="owner/gpt2-tiny@main: cannot be fetched: no route to the hub: check the name"
    ):
        fetched(NAME, "main")
    for path in server.snapshot.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="cannot be fetched, and is not in the cache: no route"):
        fetched(NAME, SHA)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_the_one_that_is_listed_is_refused(name, server):
    server.contents[name] += b"<html>"
    with pytest.raises(ValueError, match=f"{name}: expected the digest .* delete the file and fetch it again"):
        from_pretrained(NAME, revision=SHA)
    server.offline = True  # and of the cache
    with pytest.raises(ValueError, match=f"{name}: expected the digest"):
        from_pretrained(NAME, revision=SHA)


def test_one_kind_of_weights_is_chosen_and_nothing_of_other_folders():
    index, parts = (
        "model.safetensors.index.json",
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
    )
    assert chosen("x", ["config.json", index, *parts, "pytorch_model.bin"]) == ["config.json", index, *parts]
    assert chosen("x", ["pytorch_model.bin", "tf_model.h5"]) == ["pytorch_model.bin"]
    with pytest.raises(ValueError, match=r"one of model\.safetensors, .*got 1 others"):
        chosen("x", ["README.md", "../model.safetensors", "onnx/model.safetensors"])


def test_what_is_no_model_of_a_hub_is_an_error(server, monkeypatch):
    for name in ("gpt2", "../etc", "a/b/c", "a b/c", "https://a/b"):
        with pytest.raises(ValueError, match="owner/name and a revision"):
            fetched(name, "main")
    with pytest.raises(ValueError, match="no such file or folder of a published model; give revision=, best a commit"):
        from_pretrained(NAME)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://hub.invalid")
    with pytest.raises(ValueError, match="a hub over HTTPS, got http: unset HF_ENDPOINT"):
        fetched(NAME, "main")
