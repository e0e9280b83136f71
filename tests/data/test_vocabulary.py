"""Vocabularies of every kind: round trips, streams, files, and what is refused."""

# A case is a row, however long.

import hashlib
import json
import random
import runpy
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train._errors import UsageError, UserError
from train.data import DataError
from train.data.files.prepared_index import read_array, read_index
from train.data.text.vocabulary import Bytes, Characters
from train.data.text.vocabulary_file import load_vocabulary, open_vocabulary

TEXT = "the cat, the hat. Über 你好 👩‍🚀 'tis the cat's hat\n\n  the end " * 20
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def byte_pairs():
    pytest.importorskip("tokenizers")
    return open_vocabulary("bpe-290", TEXT)


@pytest.fixture(params=["bytes", "chars", "bpe"])
def vocabulary(request):
    return request.getfixturevalue("byte_pairs") if request.param == "bpe" else open_vocabulary(request.param, TEXT)


def test_a_text_comes_back_from_its_ids_and_from_their_stream(vocabulary):
    ids = vocabulary.encode(TEXT)
    assert ids.max() < vocabulary.size
    assert vocabulary.decode(ids) == TEXT
    assert "".join(vocabulary.stream(ids.tolist())) == TEXT
    assert vocabulary.encode("").size == 0
    assert vocabulary.decode(vocabulary.encode("")) == "".join(vocabulary.stream([])) == ""


@given(TEXTS)
@settings(max_examples=50, deadline=None)
def test_byte_pairs_give_back_any_text(byte_pairs, text):
    assert byte_pairs.decode(byte_pairs.encode(text)) == text


@given(st.lists(st.integers(0, 255), max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_stream_is_the_text_that_all_ids_give_whatever_bytes_they_are(ids):
    parts = list(Bytes().stream(ids))
    assert "".join(parts) == Bytes().decode(np.asarray(ids, np.int32))
    assert all(parts)


def test_a_stream_holds_a_character_back_until_it_is_whole(byte_pairs):
    for vocabulary in (Bytes(), byte_pairs):
        ids = vocabulary.encode("a鼠b").tolist()
        assert len(ids) == 5
        assert list(vocabulary.stream(ids)) == ["a", "鼠", "b"]
        assert list(vocabulary.stream(ids[:3])) == ["a", "\ufffd"]


def test_byte_pairs_learn_what_comes_often_and_are_always_alike(byte_pairs):
    assert byte_pairs.size == 290
    assert len(byte_pairs.encode(" the cat")) == 2
    assert open_vocabulary("bpe-290", TEXT) == byte_pairs
    assert open_vocabulary("bpe-290", TEXT).sha256 == byte_pairs.sha256
    assert byte_pairs.decode(byte_pairs.encode("<|endoftext|>")) == "<|endoftext|>"
    assert len(byte_pairs.encode("<|endoftext|>")) == 1


def test_gpt2s_files_and_a_tokenizer_json_give_the_ids_of_the_library(byte_pairs, tmp_path):
    import tokenizers

    model = tokenizers.Tokenizer.from_str(json.dumps(byte_pairs.tokenizer)).model
    model.save(str(tmp_path))
    merges = (tmp_path / "merges.txt").read_text(encoding="utf-8")
    assert merges.startswith("#version")
    gpt2 = open_vocabulary(str(tmp_path), "any")
    published = tokenizers.ByteLevelBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    draw = random.Random(0)
    for _ in range(20):
        text = "".join(draw.choices(TEXT + "xyz é\t\r", k=40))
        assert gpt2.encode(text).tolist() == published.encode(text).ids
        assert gpt2.decode(gpt2.encode(text)) == published.decode(published.encode(text).ids) == text
    published.save(str(tmp_path / "tokenizer.json"))
    whole = open_vocabulary(str(tmp_path / "tokenizer.json"), "any")
    assert whole.encode(TEXT).tolist() == gpt2.encode(TEXT).tolist()


def test_a_vocabulary_is_read_back_as_it_was_and_known_by_its_hash(vocabulary, tmp_path):
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    assert load_vocabulary(path, vocabulary.sha256) == vocabulary
    assert open_vocabulary(str(path), "any") == open_vocabulary(str(tmp_path), "any") == vocabulary
    assert hashlib.sha256(path.read_bytes()).hexdigest() == vocabulary.sha256
    with pytest.raises(
        DataError,
        match=r"vocabulary.json: expected the vocabulary of the checkpoint, SHA-256 .*, got another, .*: put back the file",
    ):
        load_vocabulary(path, Characters("ab").sha256)


def written(name, content):
    def make(path):
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path / name

    return make


KEPT = {"format": "eqxgen-vocabulary 1"}
BAD_FILES = [
    ("missing", lambda p: p / "none.json", "none.json: expected a readable file"),
    ("empty", written("v.json", ""), "got an empty file"),
    ("no JSON", written("v.json", "{"), "expected a vocabulary that a run saved, got JSONDecodeError"),
    ("a list", written("v.json", []), "expected a vocabulary that a run saved, got TypeError"),
    ("another format", written("v.json", {"format": "x"}), "not of the format eqxgen-vocabulary 1"),
    ("another kind", written("v.json", KEPT | {"kind": "letters"}), "got KeyError: 'letters'"),
    ("out of order", written("v.json", KEPT | {"kind": "chars", "characters": "ba"}), "each once, by code point: got 'ba'"),
    ("no BPE", written("v.json", KEPT | {"kind": "bpe", "tokenizer": {}}), "tokenizer must be a byte-level BPE"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD_FILES], ids=[case[0] for case in BAD_FILES])
def test_a_bad_vocabulary_file_is_refused(make, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load_vocabulary(make(tmp_path))


def byte_level(vocab, **model):
    return {"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocab, "merges": []} | model}


BAD_TOKENIZERS = [
    ("an empty folder", lambda p: p, "expected tokenizer.json, or vocab.json and merges.txt, got neither"),
    ("no merges", lambda p: written("vocab.json", {"a": 0})(p).parent, "merges.txt: expected a readable file"),
    ("merges of another vocabulary", lambda p: (written("vocab.json", {"a": 0, "b": 1})(p), written("merges.txt", "#version: 0.2\na b\n")(p))[1].parent, "merges.txt joins 'a' and 'b', of which vocab.json lacks"),
    ("a merge of three", lambda p: (written("vocab.json", {"a": 0})(p), written("merges.txt", "a b c\n")(p))[1].parent, "expected a byte-level BPE, got ValueError"),
    ("word pieces", written("tokenizer.json", byte_level({}, type="WordPiece")), "tokenizer must be a byte-level BPE"),
    ("too few bytes", written("tokenizer.json", byte_level({"a": 0, "b": 1})), "tokenizer must have all 256 bytes: got 2"),
    ("no JSON", written("tokenizer.json", "\x00"), "expected a byte-level BPE, got JSONDecodeError"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in BAD_TOKENIZERS], ids=[case[0] for case in BAD_TOKENIZERS]
)
def test_a_tokenizer_of_another_kind_is_refused(make, message, tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=message):
        open_vocabulary(str(make(tmp_path)), "any")


BAD_CALLS = [
    (lambda: open_vocabulary("chars", ""), "text must not be empty"),
    (lambda: open_vocabulary("bpe-4096", ""), "text must not be empty"),
    (
        lambda: open_vocabulary("bpe-256", "any"),
        "size must be at least 257, for 256 bytes and 1 special tokens: got 256",
    ),
    (
        lambda: open_vocabulary("letters", "any"),
        "tokenizer must be bytes, chars, bpe-SIZE such as bpe-4096, or a path: got 'letters'",
    ),
    (lambda: Characters("ab").encode("aüb"), "the vocabulary's 2 alone: got 'ü' at character 1$"),
    (lambda: Characters("ab").encode("aüb你ü"), "got 'ü' at character 1, and in all 2 that it lacks: 'ü' '你'"),
    (lambda: Characters("ab").decode(np.asarray([0, 2])), r"ids must be in \[0, size=2\): got values from 0 to 2"),
    (lambda: Characters("ab").decode(np.asarray([-1])), "got values from -1 to -1"),
    (lambda: list(Bytes().stream([65, 256])), r"ids must be in \[0, size=256\): got values from 256 to 256"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD_CALLS, ids=range(len(BAD_CALLS)))
def test_a_wrong_use_of_a_vocabulary_says_what_is_wrong(wrong, message):
    with pytest.raises((ValueError, UsageError), match=message):
        wrong()


def test_without_its_library_byte_pairs_say_what_to_install(byte_pairs, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"pip install 'eqxgen\[train\]'"):
        open_vocabulary("bpe-300", "any")
    assert byte_pairs.decode(np.asarray([1])) == "!"


def prepare(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train.data", "prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("train.data", run_name="__main__")
    return stop.value.code


def test_a_text_is_prepared_with_byte_pairs_and_its_vocabulary_beside_it(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    (tmp_path / "x.txt").write_text(TEXT, encoding="utf-8")
    assert prepare(monkeypatch, tmp_path / "x.txt", tmp_path / "ids", "--tokenizer", "bpe-280") == 0
    index = read_index(tmp_path / "ids", "tokens")
    vocabulary = load_vocabulary(tmp_path / "ids" / "vocabulary.json", index["vocabulary"])
    assert (index["tokenizer"], index["vocab"], vocabulary.size) == ("bpe", 280, 280)
    ids = [read_array(tmp_path / "ids", index["files"][index["parts"][part]]) for part in ("train", "val")]
    assert vocabulary.decode(np.concatenate(ids)) == TEXT


def test_an_unknown_tokenizer_is_a_mistake_that_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.txt").write_text(TEXT, encoding="utf-8")
    assert prepare(monkeypatch, tmp_path / "x.txt", tmp_path / "ids", "--tokenizer", "letters") == 2
    assert (
        "tokenizer must be bytes, chars, bpe-SIZE such as bpe-4096, or a path: got 'letters'" in capsys.readouterr().err
    )
