"""Tables of texts: parts that share no text, rows of tokens, masks, vocabularies of words and of their pieces."""

# A case is a row, however long.

import dataclasses
import json

import numpy as np
import pytest

from train.config.tasks import TASKS, MaskedTextConfig, TaskConfig
from train.data import DataError
from train.data.feed.draws import uniforms
from train.data.tables.parts import Row, apart, divided, fold_of, key_of, keys_of
from train.data.tables.rows import Masking, dropped_words, packed_rows, rows_of
from train.data.tables.tasks import load_task, load_texts
from train.data.text.vocabulary_file import load_vocabulary
from train.data.text.word_pieces import SPECIAL, WordPieces, learn_pieces, learn_words
from train.data.text.word_pieces_file import read_word_pieces

PIECES = WordPieces((*SPECIAL, "the", "cat", "sat", "##ting", "##s", "un", "##happy", "."))
PAD, UNK, CLS, SEP, MASK = PIECES.special
SILENT = {"say": lambda line: None}


def ids(*pieces):
    return [PIECES.pieces.index(piece) for piece in pieces]


def row(text, label="0", group=None):
    return Row((text,), label, group or key_of((text,)))


def test_texts_are_equal_by_their_letters_and_digits_and_texts_without_any_are_none():
    assert key_of(("It 's GOOD -- 10 !",)) == key_of(("it's good 10",)) == "itsgood10"
    assert key_of(("a", "b")) != key_of(("ab",)) != key_of(("b", "a"))
    assert keys_of([("...",), ("a",)]) == {"a"}


def test_folds_are_tenths_that_do_not_overlap_and_keep_groups_together():
    rows = [row(f"text {number}", group=f"group {number // 2}") for number in range(1000)]
    tested = set()
    for fold in range(10):
        parts = divided({"train": rows}, fold)
        assert sum(map(len, parts.values())) == 1000
        assert 60 <= len(parts["test"]) <= 140
        assert {fold_of(each.group) for each in parts["test"]} == {fold}
        assert {fold_of(each.group) for each in parts["dev"]} == {(fold + 1) % 10}
        tested |= {each.text for each in parts["test"]}
    assert len(tested) == 1000
    published = divided({"train": rows, "test": rows[:5]}, 3)
    assert published["test"] == rows[:5]
    assert {fold_of(each.group) for each in published["dev"]} == {4}


def test_a_row_whose_grade_is_flawed_is_trained_on_alone():
    rows = [row(f"text {number}")._replace(tested=number % 2 == 0) for number in range(400)]
    parts = divided({"train": rows}, 0)
    assert all(each.tested for each in (*parts["dev"], *parts["test"]))
    assert len(parts["train"]) > 300


def test_no_text_is_in_two_parts():
    parts = {"train": [row("a"), row("b"), row("c"), row("...")], "dev": [row("B ."), row("d"), row("...")], "test": [row("A"), row("d")]}  # fmt: skip
    kept, lost = apart(parts)
    assert [[each.text for each in part] for part in kept.values()] == [
        [("c",), ("...",)],
        [("B .",), ("...",)],
        [("A",), ("d",)],
    ]
    assert lost == {"train": 2, "dev": 1}


def test_the_known_tasks_are_the_published_ones_without_shared_texts(shared_data):
    config = TaskConfig(name="trec", root=str(shared_data))
    said = []
    trec = load_task(config, say=said.append)
    assert said == ["trec: 11 rows of the part train are left out, whose texts are in a tested part too"]
    assert (len(trec.train), len(trec.dev), len(trec.test)) == (4917, 524, 500)
    assert np.bincount(trec.test.labels).tolist() == [138, 94, 9, 65, 81, 113]
    assert trec.classes[5] == "number"
    pairs = load_task(dataclasses.replace(config, name="mrpc"), **SILENT)
    assert (len(pairs.test), pairs.test.labels.sum(), len(pairs.test.texts[0])) == (1725, 1147, 2)
    assert len(load_task(dataclasses.replace(config, name="cola"), **SILENT).test) == 1043
    tweets = load_task(dataclasses.replace(config, name="vader_tweets"), **SILENT)
    assert tweets.classes == ()
    assert tweets.train.labels.dtype == np.float32
    assert len(TASKS["vader_tweets"].flawed) == 199
    own = load_texts(MaskedTextConfig(name="trec", root=str(shared_data)), **SILENT)
    assert own[0] == trec.train.texts


def table(folder, text, **options):
    (folder / "x.tsv").write_text(text, encoding="utf-8")
    return load_task(TaskConfig(**{"name": str(folder / "x.tsv"), "columns": ("label", "text"), **options}), **SILENT)


ROWS = [f"{'good' if number % 2 else 'bad'}\tword {number}\tother {number}" for number in range(60)]
LINES = "\n".join(["label\ttext\tmore", *ROWS, ""])


def test_a_table_is_read_by_the_names_of_its_columns_or_by_their_numbers(tmp_path):
    found = table(tmp_path, LINES)
    assert found.classes == ("bad", "good")
    assert len(found.train) + len(found.dev) + len(found.test) == 60
    assert all(label == int(text[0].split()[1]) % 2 for text, label in zip(*found.train))
    assert table(tmp_path, "\n".join(ROWS), columns=("1", "2")).train.texts == found.train.texts
    assert len(table(tmp_path, LINES, columns=("label", "more", "text")).test.texts[0]) == 2
    graded = [f"{number % 7 - 1.5}\tword {number}" for number in range(200)]
    grades = table(tmp_path, "\n".join(["label\ttext", *graded]), grades=True)
    assert set(grades.train.labels.tolist()) == {number - 1.5 for number in range(7)}
    assert table(tmp_path, LINES.replace("good", "1").replace("bad", "0")).classes == ("0", "1")


def test_labels_that_are_numbers_and_words_are_the_same_classes_in_every_part(tmp_path):
    rows = [f"{('5', '10', 'unsure')[number % 3]}\tword {number}" for number in range(120)]
    found = table(tmp_path, "\n".join(["label\ttext", *rows, ""]))
    assert found.classes == ("10", "5", "unsure")
    for part in (found.train, found.dev, found.test):
        for (text,), label in zip(*part):
            assert found.classes[label] == ("5", "10", "unsure")[int(text.split()[1]) % 3]
    few = [f"{1 + number % 2}\tword {number}" for number in range(80)] + [f"unsure\tother {n}" for n in range(4)]
    mixed = table(tmp_path, "\n".join(["label\ttext", *few, ""]))
    for part in (mixed.train, mixed.dev, mixed.test):
        for (text,), label in zip(*part):
            word, number = text.split()
            assert mixed.classes[label] == ("unsure" if word == "other" else str(1 + int(number) % 2))


WRONG = [
    ("two columns of one name", LINES.replace("more", "text"), {}, "expected one column 'text', got 2 of that name: rename"),
    ("a grade beyond float32", LINES.replace("good", "1e39").replace("bad", "1"), {"grades": True}, "expected a finite number as the grade, got '1e39'"),
    ("no column of that name", LINES, {"columns": ("label", "txt")}, "expected a column 'txt', got columns label, text, more: correct --data.columns"),
    ("no column of that number", LINES, {"columns": ("1", "4")}, "expected a column 4, got 3 columns"),
    ("an odd line", f"{LINES}good\tx", {}, "expected 3 values in each line, as in the first, got 2 in line 62"),
    ("an empty text", LINES.replace("word 7\t", "\t"), {}, "line 9: expected a label and a text, got an empty one: .*--data.skip-broken"),
    ("a gap in the labels", LINES.replace("good", "3").replace("bad", "0"), {}, "expected labels from 0 to 3, by the column label, got no row of class 1, 2: number the labels"),
    ("one class", LINES.replace("good", "bad"), {}, "expected at least 2 classes, by the column label, got 1, 'bad': correct --data.columns"),
    ("one grade", LINES.replace("good", "3").replace("bad", "3"), {"grades": True}, "expected two or more grades in the part train, by the column label, got 3 alone"),
    ("a tested part of one grade", "\n".join(["label\ttext", *(f"{int(number == 9)}\tword {number}" for number in range(60))]), {"grades": True}, "expected two or more grades in the part (dev|test|train), by the column label, got"),
    ("a grade that is a word", LINES, {"grades": True}, "line [23]: expected a finite number as the grade, got '(good|bad)'|expected a finite number"),
    ("no rows", "label\ttext\n", {}, "expected rows of values between tabs, got none"),
    ("too few rows", "\n".join(LINES.split("\n")[:4]), {}, "expected (rows of the part|training rows of every class)"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "text", "options", "message"), WRONG, ids=[row[0] for row in WRONG])
def test_a_table_that_cannot_be_is_one_line(what, text, options, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        table(tmp_path, text, **options)
    assert "\n" not in str(caught.value)


def test_rows_without_a_text_are_left_out_where_that_is_asked_for(tmp_path):
    found = table(tmp_path, LINES.replace("word 7\t", "\t"), skip_broken=True)
    assert len(found.train) + len(found.dev) + len(found.test) == 59


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "trecc"}, "did you mean trec"),
        ({"name": "./x.tsv"}, "data.columns must name the label's and the text's column of ./x.tsv, .*: got none"),
        ({"name": "./x.tsv", "columns": ("a", "a")}, "got a a"),
        ({"columns": ("a", "b")}, "data.columns goes with a .tsv: got data.name='trec'"),
        ({"grades": True}, "data.grades goes with a .tsv"),
        ({"fold": 10}, "data.fold must be from 0 to 9: got 10"),
        ({"tokenizer": "words-3"}, "data.tokenizer must have a size of at least 16"),
        ({"tokenizer": " "}, "data.tokenizer must be words-SIZE, wordpiece-SIZE or a path"),
    ],
)
def test_options_of_a_task_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TaskConfig(**options)


def test_words_are_the_longest_pieces_from_their_start_or_unknown(tmp_path):
    assert PIECES.encode("The  cats, sitting unhappy!").tolist() == [*ids("the", "cat", "##s"), UNK, UNK, *ids("un", "##happy"), UNK]  # fmt: skip
    assert PIECES.encode("Catting the [MASK].").tolist() == [*ids("cat", "##ting", "the"), MASK, *ids(".")]
    assert PIECES.decode(PIECES.encode("the unhappy cats")) == " the unhappy cats"
    PIECES.save(tmp_path / "vocabulary.json")
    again = load_vocabulary(tmp_path / "vocabulary.json", PIECES.sha256)
    assert again.encode("catting").tolist() == PIECES.encode("catting").tolist()
    with pytest.raises(ValueError, match=r"pieces must have the tokens .*: got none of \[PAD\]"):
        WordPieces(SPECIAL[1:])
    with pytest.raises(ValueError, match="pieces must each come once"):
        WordPieces((*SPECIAL, "a", "a"))


def test_published_vocabularies_are_read_and_encode_as_the_librarys(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    text = "The cafés' un-happy CATS\t sat.\u200b 你好 unhappysitting don't!"
    for lower in (True, False):
        pieces = learn_pieces([text, "the cat the cat sat un un happy"] * 3, 90, lower=lower).pieces
        (tmp_path / "vocab.txt").write_text("\n".join([*pieces, ""]), encoding="utf-8")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
        library = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=lower)
        found = read_word_pieces(tmp_path)
        assert found.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids
        (tmp_path / "other").mkdir(exist_ok=True)
        library.save(str(tmp_path / "other" / "tokenizer.json"))
        again = read_word_pieces(tmp_path / "other")
        assert (list(again.pieces), again.lower) == (list(found.pieces), lower)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "strip_accents": False}))
    with pytest.raises(DataError, match=r"strip_accents and tokenize_chinese_chars at their defaults"):
        read_word_pieces(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"expected vocabulary.json, vocab.txt, tokenizer.json, got none of them"):
        read_word_pieces(tmp_path / "none")


def test_learnt_vocabularies_are_the_most_frequent_and_always_alike():
    texts = ["b b b a a a c", "rare C"] * 2
    words = learn_words(texts, 8)
    assert words.pieces == (*SPECIAL, "a", "b", "c")
    assert learn_words(texts, 7).pieces == (*SPECIAL, "a", "b")
    assert learn_words(texts, 20, lower=False).pieces == (*SPECIAL, "a", "b", "C", "c", "rare")
    pieces = learn_pieces(["low lower lowest newer newest"] * 9, 60)
    assert {"l", "lo", "low"} <= set(pieces.pieces)
    assert any(len(piece) > 3 and piece.startswith("##") for piece in pieces.pieces)
    assert learn_pieces(["low lower lowest newer newest"] * 9, 60).sha256 == pieces.sha256
    assert UNK not in pieces.encode("newer lowest lower")


def test_a_row_is_its_texts_between_special_tokens_and_of_a_pair_the_longer_one_is_cut():
    rows = rows_of(PIECES, [("the cat", "sat"), ("the cat sat the cat", "the sat"), ("", "the")], 8)
    a, b, c = ids("the", "cat", "sat")
    assert rows.ids.tolist() == [
        [CLS, a, b, SEP, c, SEP, PAD, PAD],
        [CLS, a, b, c, SEP, a, c, SEP],
        [CLS, SEP, a, SEP, PAD, PAD, PAD, PAD],
    ]
    assert rows.types.tolist() == [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 0]]
    assert rows.length.tolist() == [6, 8, 4]
    assert rows.cut == 1
    both = rows_of(PIECES, [("the the the the the", "cat cat cat cat cat")], 8)
    assert both.ids.tolist() == [[CLS, a, a, SEP, b, b, b, SEP]]


def test_packed_rows_are_full_and_hold_every_token_once():
    a, b, c = ids("the", "cat", "sat")
    rows = packed_rows(PIECES, [("the cat",), ("sat sat",), ("the",)], 5)
    assert rows.ids.tolist() == [[CLS, a, b, SEP, SEP], [CLS, c, c, SEP, SEP], [CLS, a, SEP, PAD, PAD]]
    assert rows.length.tolist() == [5, 5, 3]


WIDE = WordPieces((*SPECIAL, *(f"w{number}" for number in range(200)), *(f"##c{number}" for number in range(100))))


def drawn(count=400, context=42, whole=False, rate=0.15):
    rng = np.random.default_rng(0)
    rows = np.full((count, context), PAD, np.int32)
    length = rng.integers(2, context + 1, count).astype(np.int32)
    for one, size in zip(rows, length):
        one[:size] = rng.integers(5, WIDE.size, size)
        one[0], one[1], one[size - 1] = CLS, 5, SEP
    batch = {"ids": rows, "types": np.zeros_like(rows), "length": length}
    rule = Masking(WIDE, rate, whole)
    return batch, rule.masked(batch, uniforms(0, 7, np.arange(count), rule.draws(context))), rule


def test_masks_are_the_rule_of_the_paper_and_a_function_of_seed_and_step():
    batch, found, rule = drawn()
    inner = batch["length"] - 2
    assert (found["chosen"].sum(axis=1) == np.where(inner > 0, np.clip(np.rint(0.15 * inner), 1, 6), 0)).all()
    at = np.arange(len(inner))[:, None]
    chosen = found["chosen"] > 0
    assert (found["targets"] == batch["ids"][at, found["places"]]).all()
    assert ((found["places"] > 0) & (found["places"] < batch["length"][:, None] - 1))[chosen].all()
    assert not np.isin(found["targets"][chosen], WIDE.special).any()
    changed = found["ids"] != batch["ids"]
    hit = np.zeros_like(changed)
    np.put_along_axis(hit, found["places"], chosen, 1)
    assert not (changed & ~hit).any()
    seen = found["ids"][at, found["places"]][chosen]
    assert np.mean(seen == MASK) == pytest.approx(0.8, abs=0.04)
    assert np.mean(seen == found["targets"][chosen]) == pytest.approx(0.1, abs=0.03)
    again, later = (rule.masked(batch, uniforms(0, step, np.arange(400), rule.draws(42))) for step in (7, 8))
    assert np.array_equal(again["ids"], found["ids"])
    assert np.mean(later["places"] == found["places"]) < 0.2
    half = np.arange(100, 300)
    part = rule.masked({name: array[half] for name, array in batch.items()}, uniforms(0, 7, half, rule.draws(42)))
    assert np.array_equal(part["ids"], found["ids"][half])


def test_whole_words_are_masked_with_all_their_pieces():
    batch, found, _ = drawn(whole=True, rate=0.3)
    counts = found["chosen"].sum(axis=1)
    assert (counts[batch["length"] > 12] > 0).all()
    for ids, places, chosen in zip(batch["ids"], found["places"], found["chosen"]):
        taken = set(places[chosen > 0].tolist())
        words = np.cumsum(~WIDE.continues[ids])
        of = {words[place] for place in taken}
        whole = {place for place in range(len(ids)) if words[place] in of and ids[place] not in WIDE.special}
        # A word that is longer than all that may be chosen is the one exception.
        assert taken == whole or len(of) == 1


def test_dropped_words_are_masked_and_special_tokens_are_not():
    batch, _, _ = drawn()
    draws = np.random.default_rng(1).random(batch["ids"].shape)
    found = dropped_words(WIDE, batch["ids"], 0.25, draws)
    free = ~np.isin(batch["ids"], WIDE.special)
    assert (found[~free] == batch["ids"][~free]).all()
    assert set(np.unique(found[found != batch["ids"]])) == {MASK}
    assert np.mean((found == MASK)[free]) == pytest.approx(0.25, abs=0.02)
