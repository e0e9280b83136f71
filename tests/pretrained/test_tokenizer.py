"""Tokenizers of published models: ids of the published libraries, text back, rows, files that cannot be read."""

import gzip
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from eqxgen.pretrained.tokenizer import open_tokenizer
from tests import oracles
from tests.oracles import DATA
from tests.oracles.tokenizers import TEXTS

VOCABULARIES = DATA / "vocabularies"


@pytest.fixture(scope="module")
def published():
    return oracles.load("tokenizers")


def real(name):
    if not (VOCABULARIES / name).exists():
        pytest.skip(f"there is no {VOCABULARIES / name}: set EQXGEN_DATA to the folder of the data sets")
    return VOCABULARIES / name


@pytest.fixture
def folder(published, tmp_path):
    def write(kind, **options):
        if kind.startswith("bert"):
            (tmp_path / "vocab.txt").write_text(str(published["bert"]["vocab"]), encoding="utf-8")
        else:
            data = published[{"t5": "unigram"}.get(kind, kind)]["file"].tobytes()
            (tmp_path / "spiece.model").write_bytes(data)
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
        return tmp_path

    return write


def gpt2(tmp_path):
    shutil.copy(real("gpt2_encoder.json"), tmp_path / "vocab.json")
    shutil.copy(real("gpt2_vocab.bpe"), tmp_path / "merges.txt")
    return tmp_path


def assert_same_ids(kept, encode, without=None):
    wanted = np.split(kept["ids"], np.cumsum(kept["lengths"])[:-1])
    for text, ids in zip(TEXTS, wanted):
        if without is None or without not in text:
            np.testing.assert_array_equal(encode(text), ids, err_msg=repr(text))


def test_ids_of_clips_own_file_equal_the_published_tokenizers(published):
    tokenizer = open_tokenizer(real("clip_bpe_simple_vocab_16e6.txt.gz"), SimpleNamespace(vocab=49_408))
    assert tokenizer.size == 49_408
    assert_same_ids(published["clip"], tokenizer.encode)
    assert tokenizer.decode(tokenizer.encode("A photo of a  cat!")) == "a photo of a cat !"
    rows = tokenizer.rows(["a photo of a cat", "dogs and cats " * 50], 77, cut=True)
    assert rows.ids.shape == (2, 77)
    np.testing.assert_array_equal(rows.ids[:, 0], [49_406] * 2)
    assert (rows.ids[0, 6], rows.ids[1, 76]) == (49_407, 49_407)
    np.testing.assert_array_equal(rows.mask.sum(1), [7, 77])


def test_ids_of_gpt2_equal_the_published_tokenizers_and_tokenizer_json_gives_the_same(published, tmp_path):
    tokenizer = open_tokenizer(gpt2(tmp_path))
    assert_same_ids(published["gpt2"], tokenizer.encode)
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    (tmp_path / "whole").mkdir()
    tokenizer._library.save(str(tmp_path / "whole" / "tokenizer.json"))
    assert_same_ids(published["gpt2"], open_tokenizer(tmp_path / "whole").encode)


def test_ids_of_llamas_kind_equal_sentencepieces_on_a_published_vocabulary(published):
    tokenizer = open_tokenizer(real("mistral_v1.model"))
    assert tokenizer.size == 32_000
    assert_same_ids(published["mistral"], lambda text: tokenizer.encode(text, special=False))
    assert tokenizer.encode("x")[0] == 1, "the begin token is before a text"
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_ids_of_small_models_equal_sentencepieces(kind, published, folder):
    tokenizer = open_tokenizer(folder(kind))
    assert_same_ids(published[kind], lambda text: tokenizer.encode(text, special=False))


def test_ids_of_t5_equal_the_published_tokenizers(published, folder):
    tokenizer = open_tokenizer(folder("t5"))
    # Of a text with the mark of spaces itself, transformers gives other ids than SentencePiece.
    assert_same_ids(published["t5"], tokenizer.encode, without="\u2581")
    assert tokenizer.size == 400
    assert (tokenizer.id_of("<extra_id_0>"), tokenizer.id_of("<extra_id_99>")) == (399, 300)
    assert tokenizer.encode("thou <extra_id_0> art").tolist().count(399) == 1
    assert open_tokenizer(folder("t5", extra_ids=0, add_eos_token=False)).size == 300


def test_ids_of_bert_equal_the_published_tokenizers(published, folder):
    tokenizer = open_tokenizer(folder("bert"))
    assert_same_ids(published["bert"], tokenizer.encode)
    rows = tokenizer.rows([("to be", "or not"), ("be", "be")])
    ends = (rows.ids == tokenizer.id_of("[SEP]")).cumsum(1)
    np.testing.assert_array_equal(rows.types[0, 1:], (ends[0, :-1] >= 1))
    assert rows.mask[0].all()
    np.testing.assert_array_equal(rows.ids[1][~rows.mask[1]], tokenizer.id_of("[PAD]"))
    assert tokenizer.decode(tokenizer.encode("To be, or not!")) == "to be, or not!"
    assert_same_ids(published["bert, cased"], open_tokenizer(folder("bert", do_lower_case=False)).encode)


def test_a_tokenizer_that_does_not_match_the_model_is_one_clear_error(folder):
    open_tokenizer(folder("t5"), SimpleNamespace(vocab=400))
    with pytest.raises(
        ValueError, match="at most as many ids as the model, vocab=399: got 400; it is of another model"
    ):
        open_tokenizer(folder("t5"), SimpleNamespace(vocab=399))


def test_wrong_arguments_are_errors(folder):
    tokenizer = open_tokenizer(folder("bert"))
    for call, message in (
        (lambda: tokenizer.rows([]), "texts must be one or more: got none"),
        (lambda: tokenizer.rows(["to be or not to be"], 4), "at most length=4 tokens: got 8; or give cut=True"),
        (lambda: tokenizer.rows(["to be"], 1, cut=True), "length must have room for 2 special tokens: got 1"),
        (lambda: tokenizer.decode([400]), r"ids must be in \[0, size=400\): got values from 400 to 400"),
        (lambda: tokenizer.id_of("[MUSK]"), r"token must be of the vocabulary: got '\[MUSK\]'"),
        (lambda: open_tokenizer(folder("unigram") / "other.model"), r"other\.model: no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


BAD = [
    ("empty", {}, "must have a tokenizer, one of tokenizer.json, spiece.model, .*: got none of them"),
    ("json", {"tokenizer.json": b"{}"}, "must be a tokenizer.json with a model of BPE, WordPiece"),
    ("no json", {"tokenizer.json": b"{"}, "cannot be read as JSON"),
    ("words twice", {"vocab.txt": b"[UNK]\n[CLS]\n[SEP]\na\na\n"}, "must have each token once: got 1 again"),
    ("no cls", {"vocab.txt": b"[UNK]\na\n"}, r"must be BERT's vocabulary, with \[CLS\], \[SEP\]: got none"),
    ("no text", {"vocab.txt": b"\xff\xfe"}, "must be UTF-8"),
    ("no merges", {"vocab.json": b'{"a": 0}'}, "merges.txt: no such file"),
    ("other merges", {"vocab.json": b'{"a": 0}', "merges.txt": b"a b\n"}, "must join tokens of the vocabulary: got 'a b'"),
    ("no ids", {"vocab.json": b'{"a": "b"}', "merges.txt": b""}, "must have an id for each token"),
    ("no pieces", {"spiece.model": b""}, "is no SentencePiece model, or damaged: no pieces"),
    ("no message", {"spiece.model": b"not a model"}, "is no SentencePiece model, or damaged"),
    ("cut", {"spiece.model": b"\x0a\x7fabc"}, "is no SentencePiece model, or damaged: the end is missing"),
    ("words", {"spiece.model": b"\x0a\x03\x0a\x01a\x12\x02\x18\x03"}, "must be a Unigram or BPE model, .*: got kind 3"),
    ("no gzip", {"bpe_simple_vocab_16e6.txt.gz": b"text"}, "this file is damaged: .*; fetch it again"),
    ("a bomb", {"bpe_simple_vocab_16e6.txt.gz": gzip.compress(bytes(17 * 2**20), 1)}, "more than 16,777,216 bytes"),
    ("no clip", {"bpe_simple_vocab_16e6.txt.gz": gzip.compress(b"1\nq 7z\n")}, "must join tokens of the vocabulary"),
]  # fmt: skip


@pytest.mark.parametrize(("contents", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_folder_that_cannot_be_read_is_one_clear_error(contents, message, tmp_path):
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        open_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
