"""`train.t5`: pairs of texts and their files, vocabularies, spans, decoding, a run with its samples, published weights."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import T5Config
from eqxgen.decoding.beam import beam_search, searched
from eqxgen.models import T5
from eqxgen.pretrained import t5 as published
from tests.full import full
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from train import evaluate, sample, t5
from train._errors import UserError
from train.config.base import parse
from train.config.text_pairs import TextPairConfig
from train.data.text.pair_vocabulary import OwnPairs, PublishedPairs, Words
from train.data.text.pairs import load_pairs, rows_of, stem
from train.data.text.spans import Spans, corrupted, hidden_tokens
from train.data.text.vocabulary import Bytes, Characters
from train.data.text.vocabulary_file import load_vocabulary
from train.engine.start import matched, opened

TINY = T5Config(dim=16, depth=1, decoder_depth=2, heads=2, head_dim=8, hidden_dim=24, context=12, dropout=0.1)
SPELLED = [
    (word, " ".join(letter.upper() for letter in word)) for word in map("".join, zip("abcdefgh" * 8, "aabbccde" * 8))
]
PAIRS = sorted({(a + b[0] * n, " ".join((a + b[0] * n).upper())) for a, b in SPELLED for n in (0, 1, 2)})


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS))
    return path


def config_of(table, folder, **changes):
    data = {"target_tokenizer": "words", "source_length": 6, "target_length": 6} | changes.pop("data", {})
    values = {"steps": 4, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "sample_every": 0, "eval_samples": 4}
    name = data.pop("name", str(table))
    return t5.Config(run_dir=str(folder), data=TextPairConfig(name=name, **data), model=TINY, **values | changes)


@full
def test_a_run_resumes_bit_for_bit(table, tmp_path, monkeypatch):
    assert t5.main(config_of(table, tmp_path / "whole", evals=("held_out",))) == 0
    crashed_and_resumed(t5, config_of(table, tmp_path / "cut", evals=("held_out",)), 3, monkeypatch)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert metrics(tmp_path / "whole")[0]["loss"] == pytest.approx(np.log(18), rel=0.5)


def test_a_run_is_evaluated_and_writes_targets(table, tmp_path, capsys):
    assert t5.main(config_of(table, tmp_path, steps=1)) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["word_error"] > 0
    assert 0 <= summary["exact_match"] <= 1
    shown = (tmp_path / "samples").glob("*.tsv")
    assert all(len(line.split("\t")) == 2 for path in shown for line in path.read_text().splitlines())
    capsys.readouterr()
    for options in ({"beams": 2, "length_penalty": 0.6}, {"n": 2, "temperature": 1.0}):
        assert sample.main([*words(run=tmp_path, **options), "--text", "ab", "cd"]) == 0
        found = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [source for source, _ in found] == [text for text in ("ab", "cd") for _ in range(options.get("n", 1))]
    assert sample.main(words(run=tmp_path, text="abc", out=tmp_path / "x.jsonl")) == 0
    assert json.loads((tmp_path / "x.jsonl").read_text())["source"] == "abc"
    for flags, kept in (({}, summary), ({"beams": 3, "length_penalty": 0.6}, None)):
        assert evaluate.main(words(run=tmp_path, **flags)) == 0
        found = json.loads((tmp_path / "evaluation.json").read_text())
        assert kept is None or found["word_error"] == kept["word_error"]
        assert found.get("sampling", {}) == flags
    with pytest.raises(UserError, match=r"beams must be between 1 and 1024: got 0"):
        evaluate.main(words(run=tmp_path, beams=0))


@pytest.fixture(scope="module")
def model():
    """Its weights are made larger, so that tokens differ."""
    made = T5(20, dataclasses.replace(TINY, dropout=0.0, tied=False), key=jr.key(0))
    return jax.tree.map(lambda x: 3 * x if eqx.is_inexact_array(x) and x.ndim > 1 else x, made)


def test_cached_decoding_of_a_padded_source_equals_the_full_forward(model):
    source, target = jnp.asarray([5, 9, 3, 1, 0, 0, 0]), jnp.asarray([0, 4, 7, 2, 13, 19])
    seen = source != 0
    whole = model(source, target, mask=seen, inference=True)
    written, found = model.conditioned(source, mask=seen), []
    extend = eqx.filter_jit(lambda model, token, cache: model.extend(token[None], cache))
    cache = written.cache()
    for token in target:
        logits, cache = extend(written, token, cache)
        found.append(logits)
    np.testing.assert_allclose(jnp.stack(found), whole, atol=1e-5, rtol=1e-5)
    short = model(source[:4], target, inference=True)
    np.testing.assert_allclose(whole, short, atol=1e-5, rtol=1e-5)


@full
def test_texts_searched_together_are_those_of_a_search_each(model):
    sources = jnp.asarray([[5, 9, 3, 1, 0], [2, 1, 0, 0, 0], [7, 7, 7, 7, 1]])

    @jax.jit
    def together(sources):
        one = lambda source: searched(model.conditioned(source, mask=source != 0), 0, 8, 3, end=1, length_penalty=0.6)
        return jax.vmap(one)(sources)

    ids, scores = together(sources)
    for source, row, score in zip(sources, ids, scores):
        written = model.conditioned(source, mask=source != 0)
        alone, best = beam_search(written, [0], 8, 3, stop=[1], length_penalty=0.6)
        assert row.tolist() == alone.tolist()
        assert float(score) == pytest.approx(best, rel=1e-4)


def test_lengths_of_spans_are_the_published_ones():
    spans = Spans.filling(512, 0.15, 3.0)
    assert (spans.tokens, spans.source, spans.target) == (568, 512, 114)
    assert spans.number == 28
    assert Spans.filling(3, 0.15, 3.0) == (2, 1, 1)
    with pytest.raises(ValueError, match="source must have at least 3 tokens"):
        Spans.filling(2, 0.15, 3.0)


@pytest.mark.parametrize(("tokens", "noise", "span"), [(2, 0.15, 3.0), (37, 0.15, 3.0), (50, 0.5, 1.0), (64, 0.9, 8.0)])
def test_the_target_fills_the_spans_of_the_source(tokens, noise, span):
    spans, rng = Spans.of(tokens, noise, span), np.random.default_rng(tokens)
    marks = 999 - np.arange(spans.number)
    places = np.zeros(tokens)
    for _ in range(50):
        ids = rng.integers(2, 900, tokens)
        hidden = hidden_tokens(spans, rng.random(tokens))
        places += hidden
        assert hidden.sum() == spans.hidden
        assert not hidden[0]
        source, target = corrupted(ids, hidden, marks)
        assert (len(source), len(target)) == (spans.source, spans.target)
        assert source[-1] == target[-1] == 1
        parts = {
            int(part[0]): part[1:] for part in np.split(target[:-1], np.flatnonzero(target[:-1] > 900)) if len(part)
        }
        assert list(parts) == marks.tolist()
        filled = np.concatenate([parts.get(int(id), np.asarray([id])) for id in source[:-1]])
        np.testing.assert_array_equal(filled, ids)
    assert (places[1:] > 0).mean() > 0.5


def test_a_vocabulary_of_pairs_has_both_texts_in_one_table(tmp_path):
    both = OwnPairs(Characters.of("abc"), Words.of("T K AH0"), 2)
    assert both.size == 2 + 3 + 3 + 2
    assert both.source("cab").tolist() == [4, 2, 3, 1]
    assert both.target("K AH0 K").tolist() == [6, 5, 6, 1]
    assert both.decode(np.asarray([6, 5, 6, 1, 0])) == "K AH0 K"
    assert both.decode(np.asarray([4, 2, 9, 7, 8])) == "ca<extra_id_0>T<extra_id_1>"
    assert [both.sentinel(n) for n in (0, 1)] == [9, 8]
    shared = OwnPairs(Bytes(), None, 0)
    assert shared.decode(shared.target("né")) == "né"
    for vocabulary in (both, shared):
        vocabulary.save(tmp_path / "vocabulary.json")
        assert load_vocabulary(tmp_path / "vocabulary.json", vocabulary.sha256) == vocabulary
    with pytest.raises(ValueError, match="text must have words of the vocabulary's 3 alone: got 'X'"):
        both.target("T X")


def test_words_of_cmudict_are_split_as_its_notes_say(shared_data, monkeypatch):
    monkeypatch.setenv("EQXGEN_DATA", str(shared_data))
    pairs = load_pairs(TextPairConfig("cmudict"))
    assert len(pairs.train) == 121_539
    assert len(pairs.held_out) == 6_327
    assert sum(len(asked.references) for asked in pairs.held_out) == 6_783
    near = [asked.source for asked in pairs.held_out if asked.near]
    assert 1_649 <= len(near) < 2_600
    assert not {source for source, _ in pairs.train} & {asked.source for asked in pairs.held_out}
    assert stem("dog's") == stem("dogs") == stem("dogs'") == stem("dog") == "dog"


WRONG = {
    "files of unequal lines": ("a\nb\n", "x\n", {}, r"t\.txt: expected 2 lines, as s\.txt has, got 1"),
    "an empty file": ("a\nb\n", "", {}, r"t\.txt: expected .*, got .*0 bytes|t\.txt: expected .*"),
    "an empty line": ("a\n\nb\n", "x\ny\nz\n", {}, r"s\.txt: expected text on every line, got none on line 2"),
    "not UTF-8": (b"a\xff\n", "x\n", {}, r"s\.txt: expected UTF-8 text, got byte 0xff"),
    "a long source": (
        "".join(f"a{n}\nbcdefgh\nc\n" for n in range(60)), "x\ny\nz\n" * 60, {"source_length": 5},
        r"s\.txt: expected sources of at most 5 tokens .*, got 8 of training pair \d+: .*--data\.long cut",
    ),
    "all long": (
        "".join(f"bcdefgh{n}\n" for n in range(30)), "x\n" * 30, {"source_length": 4, "long": "drop"},
        r"--data\.long drop: must leave pairs to train on: got none of",
    ),
    "one pair": ("a\n", "x\n", {}, "expected pairs to train on and to hold out, got"),
    "too few rows": ("a\nb\nc\nd\n" * 9, "x\n" * 36, {"vocab": 4}, r"--data\.vocab must be at least the vocabulary's"),
    "an unknown tokenizer": ("a\nb\nc\nd\n" * 9, "x\n" * 36, {"tokenizer": "nowhere"}, "--data.tokenizer must be bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_pair_of_files_is_one_line(case, tmp_path):
    source, target, changes, message = WRONG[case]
    for name, text in (("s.txt", source), ("t.txt", target)):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    files = {"source": str(tmp_path / "s.txt"), "target": str(tmp_path / "t.txt"), "name": "cmudict"}
    config = config_of(None, tmp_path / "run", data={**files, "target_tokenizer": None, **changes})
    with pytest.raises(UserError, match=message) as caught:
        t5.RECIPE.task(config, tmp_path / "run")
    assert "\n" not in str(caught.value)


FLAGS = {
    "--beams 0": "beams must be between 1 and 1024: got 0",
    "--length-penalty -1": "length.penalty must be at least 0 and finite: got -1",
    "--length-penalty nan": "length.penalty must be at least 0 and finite: got nan",
    "--z-loss -1": "z.loss must be at least 0 and finite",
    "--data.source x": "data.source and data.target go together: got one of them",
    "--data.source x --data.target y --data.name ./z": "data.name goes without data.source",
    "--data.long shorten": "data.long must be",
    "--data.source-length 1": "data.source_length must be at least 2",
    "--data.noise 1": "data.noise must be between 0 and 1: got 1",
    "--data.span 0.5": "data.span must be at least 1 and finite: got 0.5",
    "--data.name cmudic": "did you mean cmudict",
    "--data.vocab 2": "data.vocab must be from 4",
    "--data.tokenizer=": "data.tokenizer must be chars, words, bytes, bpe-SIZE, or a path",
}


@pytest.mark.parametrize("given", FLAGS)
def test_a_wrong_flag_is_one_line(given):
    with pytest.raises(UserError, match=FLAGS[given]) as caught:
        parse("t5", t5.Config, t5.PRESETS, "", given.split())
    assert "\n" not in str(caught.value)


def test_rows_are_cut_or_left_out_by_a_flag_alone(tmp_path):
    texts = [np.asarray([3, 1]), np.asarray([4, 5, 6, 1])]
    rows, kept = rows_of(texts, 3, "cut", tmp_path, "source")
    assert rows.tolist() == [[3, 1, 0], [4, 5, 1]]
    assert kept.tolist() == [True, True]
    assert rows_of(texts, 3, "drop", tmp_path, "source")[1].tolist() == [True, False]


def test_a_published_model_is_continued_with_its_tokenizer(table, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghABCDEFGH", "<extra_id_1>", "<extra_id_0>"]
    library = tokenizers.Tokenizer(tokenizers.models.Unigram([(p, -1.0) for p in pieces], unk_id=2))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    library.decoder = tokenizers.decoders.Metaspace()
    library.add_special_tokens([pieces[0], pieces[1], *pieces[-2:]])
    folder = tmp_path / "published"
    model = T5(24, TINY, key=jr.key(1))
    published.to_pretrained(model, folder)
    library.save(str(folder / "tokenizer.json"))
    data = {"tokenizer": str(folder), "target_tokenizer": None, "vocab": 24, "source_length": 9, "target_length": 12}
    config = config_of(table, tmp_path / "run", start_from=str(folder), data=data)
    task = t5.RECIPE.task(config, tmp_path / "run")
    start = matched(opened(config, "t5"), config, "t5", task)
    assert start.left == ()
    assert task.facts.vocab == 24
    task.prepare(tmp_path)
    kept = load_vocabulary(tmp_path / "vocabulary.json", task.facts.vocabulary)
    assert isinstance(kept, PublishedPairs)
    assert kept.source("ab").tolist() == [3, 4, 5, 1]
    assert kept.decode(kept.target("AB C")) == "AB C"
    assert kept.sentinels == 2
    assert kept.sentinel(0) == kept.size - 1
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, vocab=25))
    wider = t5.RECIPE.task(other, tmp_path / "run")
    with pytest.raises(
        UserError, match=r"array model\.embedding\.weight must be float32\[25, 16\]: got float32\[24, 16\]"
    ):
        matched(opened(other, "t5"), other, "t5", wider)
    (folder / "tokenizer.json").write_text(library.to_str().replace("<pad>", "<p>"))
    with pytest.raises(UserError, match=r"--data\.tokenizer .*: tokenizer must be a T5's, with <pad> 0 and </s> 1"):
        t5.RECIPE.task(config, tmp_path / "run")


def test_spans_of_a_text_are_examples(tmp_path):
    (tmp_path / "x.txt").write_text("to be or not to be, that is the question. " * 40)
    data = {"name": str(tmp_path / "x.txt"), "target_tokenizer": None, "source_length": 12, "sentinels": 4}
    config = config_of(None, tmp_path / "run", data=data)
    task = t5.RECIPE.task(config, tmp_path / "run")
    spans = Spans.filling(12, 0.15, 3.0)
    assert (task.facts.source, task.facts.target) == (spans.source, spans.target)
    with pytest.raises(UserError, match=r"--data\.sentinels must be at least the 1 spans of a source: got 0"):
        t5.RECIPE.task(config_of(None, tmp_path, data={**data, "sentinels": 0}), tmp_path / "run")
    with pytest.raises(UserError, match=r"--model\.context must be at least the 40 tokens of a source: got 12"):
        t5.RECIPE.task(config_of(None, tmp_path, data={**data, "source_length": 40}), tmp_path / "run")
