"""Text, its ids, windows of them, and documents packed into rows."""

# A case is a row, however long.

import runpy
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import DataError, Order
from train.data.files.prepared_index import read_array, read_index
from train.data.preparation import prepare_text
from train.data.text.packing import fill, pack
from train.data.text.text_files import read_text
from train.data.text.tokens import Tokens
from train.data.text.vocabulary import Bytes, Characters
from train.data.text.vocabulary_file import load_vocabulary


def test_texts_of_a_folder_are_read_in_the_order_of_their_names(tmp_path):
    for name, text in (
        ("b.txt", "two"),
        ("a/z.md", "one"),
        ("c.bin", "no"),
        (".d.txt", "hidden"),
        ("e.txt", "\ufeffé"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_text(tmp_path) == {"a/z.md": "one", "b.txt": "two", "e.txt": "é"}
    assert read_text(tmp_path / "b.txt") == {"b.txt": "two"}


BAD_TEXTS = [
    ("missing", lambda p: p / "none.txt", "none.txt: expected a readable file, got No such file"),
    ("empty", lambda p: (p / "x.txt").write_bytes(b"") or p, "x.txt: expected data, got an empty file"),
    ("a folder without text", lambda p: p, r"expected text files \(\.txt \.text \.md\), got none"),
    (
        "Latin-1",
        lambda p: (p / "x.txt").write_bytes(b"caf\xe9 ol\xe9") and p,
        "x.txt: expected UTF-8 text, got byte 0xe9 at offset 3",
    ),
    (
        "cut in a character",
        lambda p: (p / "x.txt").write_bytes("é".encode()[:1]) and p,
        "byte 0xc3 at offset 0 .unexpected end of data",
    ),
    ("UTF-16", lambda p: (p / "x.txt").write_bytes("hi".encode("utf-16")) and p, "byte 0xff at offset 0"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD_TEXTS], ids=[case[0] for case in BAD_TEXTS])
def test_bad_text_is_refused_with_its_place(make, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_text(make(tmp_path))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@settings(max_examples=50, deadline=None)
def test_every_vocabulary_gives_back_the_text(text):
    for vocabulary in (Bytes(), Characters.of(text)):
        ids = vocabulary.encode(text)
        assert ids.max() < vocabulary.size
        assert vocabulary.decode(ids.astype(np.int32)) == text


def test_a_character_that_the_vocabulary_lacks_is_named():
    with pytest.raises(ValueError, match="the vocabulary's 2 alone: got 'ü' at character 1"):
        Characters("ab").encode("aüb")
    for wrong in ("", "ba", "aab"):
        with pytest.raises(ValueError, match="each once, by code point"):
            Characters(wrong)


def test_windows_are_drawn_from_all_places_by_seed_step_and_place_alone(tmp_path):
    ids = np.arange(1000, dtype="<u2") % 300
    ids.tofile(tmp_path / "x.bin")
    np.save(tmp_path / "x.npy", ids)
    tokens = Tokens(tmp_path / "x.bin", vocab=300, context=8)
    assert (tokens.tokens, len(tokens)) == (1000, 124)
    order = Order(0, 512, len(tokens))
    starts = tokens.drawn(5, order.part(3))
    assert starts.min() >= 0
    assert 980 < starts.max() < 1000 - 8
    np.testing.assert_array_equal(tokens.drawn(5, order.part(3, slice(500, 512))), starts[500:])
    windows = tokens.windows(starts)
    assert windows.dtype == np.int32
    np.testing.assert_array_equal(windows, (starts[:, None] + np.arange(9)) % 300)
    np.testing.assert_array_equal(Tokens(tmp_path / "x.npy", vocab=300, context=8).windows(starts), windows)
    np.arange(1000, dtype="<u4").tofile(tmp_path / "wide.bin")
    assert Tokens(tmp_path / "wide.bin", vocab=70_000, context=8).windows(np.array([991])).tolist() == [
        list(range(991, 1000))
    ]


def tokens_of(ids, **changes):
    def make(path):
        (path / "x.bin").write_bytes(ids)
        return Tokens(path / "x.bin", **{"vocab": 100, "context": 4} | changes)

    return make


def saved(array):
    def make(path):
        np.save(path / "x.npy", array)
        return Tokens(path / "x.npy", vocab=100, context=4)

    return make


BAD_TOKENS = [
    ("missing", lambda p: Tokens(p / "none.bin", vocab=9, context=4), "none.bin: expected a readable file"),
    ("an odd length", tokens_of(bytes(21)), "a multiple of 2 bytes for uint16 ids, got 21 bytes"),
    ("a wide vocabulary", tokens_of(bytes(22), vocab=70_000), "a multiple of 4 bytes for uint32 ids, got 22 bytes"),
    ("an id above the vocabulary", tokens_of(np.array([1, 2, 100, 3, 5, 7], "<u2").tobytes()), "below the vocabulary's 100, got id 100 at token 2"),
    ("32-bit ids read as 16", tokens_of(np.array([1, 70_000, 3, 5], "<u4").tobytes()), "got id 4464 at token 2"),
    ("shorter than a window", tokens_of(bytes(8)), r"at least context \+ 1 = 5 tokens, got 4"),
    ("empty", tokens_of(b""), r"at least context \+ 1 = 5 tokens, got 0"),
    ("signed ids", saved(np.zeros(9, np.int32)), r"uint8, uint16 or uint32, got int32 \(9,\)"),
    ("64-bit ids", saved(np.zeros(9, np.uint64)), "got uint64"),
    ("two axes", saved(np.zeros((3, 9), np.uint16)), r"got uint16 \(3, 9\)"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD_TOKENS], ids=[case[0] for case in BAD_TOKENS])
def test_a_bad_token_file_is_refused(make, message, tmp_path):
    with pytest.raises(DataError, match=message):
        make(tmp_path)


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 16), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_packing_keeps_every_token_once_and_never_two_documents_under_one_segment(sizes, length, open_rows):
    sizes = np.array(sizes, np.int64)
    packing = pack(sizes, length, open_rows)
    tokens, segments, positions = fill(
        packing, np.arange(len(packing)), lambda document, start, size: document * 100 + start + np.arange(size)
    )
    held = segments > 0
    expected = [document * 100 + at for document, size in enumerate(sizes) for at in range(size)]
    assert sorted(tokens[held].tolist()) == expected
    np.testing.assert_array_equal(positions[held], tokens[held] % 100)
    assert not tokens[~held].any()
    for row in range(len(packing)):
        for segment in range(1, segments[row].max() + 1):
            assert len(set(tokens[row][segments[row] == segment] // 100)) == 1
    assert packing.filled == pytest.approx(held.mean() if held.size else 0)


def test_packing_is_first_fit_within_the_open_rows():
    assert pack(np.array([6, 5, 4, 3, 10]), 10).first.tolist() == [0, 2, 4, 5]
    packing = pack(np.array([6, 5, 4, 3, 10]), 10)
    assert packing.document.tolist() == [0, 2, 1, 3, 4]
    assert pack(np.array([6, 5, 4]), 10, open_rows=1).document.tolist() == [0, 1, 2]
    assert pack(np.array([23]), 10).size.tolist() == [10, 10, 3]
    sizes = np.random.default_rng(0).integers(1, 200, 3000)
    assert pack(sizes, 256).filled > 0.96
    rows = np.arange(40, 60)
    whole = fill(pack(sizes, 256), np.arange(60), lambda document, start, size: np.full(size, document))
    for part, all_rows in zip(
        fill(pack(sizes, 256), rows, lambda document, start, size: np.full(size, document)), whole
    ):
        np.testing.assert_array_equal(part, all_rows[rows])
    for wrong in ((np.array([-1]), 10), (np.array([1]), 0), (np.array([1]), 5, 0)):
        with pytest.raises(ValueError, match="length and open_rows must be 1 or more"):
            pack(*wrong)


@pytest.mark.parametrize("tokenizer", ["bytes", "chars"])
def test_a_prepared_text_comes_back_and_its_windows_can_be_drawn(tokenizer, tmp_path, shared_data):
    source = shared_data / "tiny_shakespeare" / "input.txt"
    prepare_text(source, tmp_path / "ids", tokenizer, 0.1, lambda line: None)
    index = read_index(tmp_path / "ids", "tokens")
    text = source.read_text(encoding="utf-8")
    vocabulary = load_vocabulary(tmp_path / "ids" / "vocabulary.json", index["vocabulary"])
    assert (index["vocab"], vocabulary.size) == ((256, 256) if tokenizer == "bytes" else (65, 65))
    ids = [read_array(tmp_path / "ids", index["files"][index["parts"][part]]) for part in ("train", "val")]
    assert [len(part) for part in ids] == [1003854, 111540]
    assert vocabulary.decode(np.concatenate(ids).astype(np.int32)) == text
    tokens = Tokens(tmp_path / "ids" / "train.npy", vocab=index["vocab"], context=64)
    assert vocabulary.decode(tokens.windows(np.array([100]))[0]) == text[100:165]


def test_preparing_text_from_the_command_line_names_what_is_wrong(tmp_path, capsys, monkeypatch):
    (tmp_path / "x.txt").write_bytes(b"ab\xffcd")
    monkeypatch.setattr(
        sys, "argv", ["train.data", "prepare", str(tmp_path / "x.txt"), str(tmp_path / "out"), "--tokenizer", "chars"]
    )
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("train.data", run_name="__main__")
    assert stop.value.code == 1
    assert "x.txt: expected UTF-8 text, got byte 0xff at offset 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
