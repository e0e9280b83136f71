"""Pairs, or a text with hidden spans, as rows of ids to train on and to judge by."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..._errors import UsageError, UserError
from ...config.text_pairs import TextPairConfig
from ...data import Part
from ...data.feed.draws import uniforms
from ...data.files.lazy import fingerprint_of
from ...data.text.corpus import cut, text_of
from ...data.text.pair_vocabulary import OwnPairs, PairVocabulary, PublishedPairs
from ...data.text.pairs import Asked, Pairs, load_pairs, rows_of
from ...data.text.spans import Spans, corrupted, hidden_tokens
from ...data.text.tokens import Tokens
from ...data.text.vocabulary import NAME
from ...data.text.vocabulary_file import load_vocabulary, open_vocabulary
from ..facts import TextPairFacts

if TYPE_CHECKING:
    from ...evaluators.examples import Examples

Rows = dict[str, np.ndarray]
OWN = ("chars", "words", "bytes")


class Read(NamedTuple):
    """Data of a run.

    Attributes:
        facts: of them.
        vocabulary: of both texts.
        source: one for each training example.
        batch: `source` and `target` of places of a batch.
        held_out: `source` and `target` of the held-out examples.
        asked: the held-out sources with their right answers; none of a text with hidden spans.
        fingerprint: SHA-256 of the texts.
    """

    facts: TextPairFacts
    vocabulary: PairVocabulary
    source: Any
    batch: Callable[[Part], Rows]
    held_out: "Examples"
    asked: tuple[Asked, ...]
    fingerprint: str


def read(config: Any, say: Callable[[str], None] = print) -> Read:
    """The data of a config.

    Raises:
        UserError: a file is not what it should be, a text is longer than its rows, or the vocabulary lacks a part.
    """
    return _spans(config, say) if config.data.spans else _pairs(config, say)


def vocab_on_paper(config: Any) -> int:
    """Rows of the table: those that --data.vocab gives, otherwise of the texts."""
    data = config.data
    if data.vocab is not None:
        return data.vocab
    if data.tokenizer == "bytes" and data.target_tokenizer is None:
        return OwnPairs(open_vocabulary("bytes", " "), None, data.sentinels if data.spans else 0).size
    return _rows_of_table(data, _vocabulary_on_paper(data))


def _vocabulary_on_paper(data: TextPairConfig) -> PairVocabulary:
    if data.spans:
        path, text = text_of(data)
        first, _ = cut(path, text, data.held_out)
        return _vocabulary(data, [text if data.tokenizer == "chars" else first], [])
    return _of_pairs(data, load_pairs(data))


def span_lengths(data: TextPairConfig) -> Spans:
    """Lengths of an example with hidden spans."""
    try:
        return Spans.filling(data.source_length, data.noise, data.span)
    except ValueError as error:
        raise UsageError(f"--data.source-length: {error}") from None


def _pairs(config: Any, say: Callable[[str], None]) -> Read:
    from ...evaluators.examples import Examples

    data, pairs = config.data, load_pairs(config.data)
    vocabulary = _of_pairs(data, pairs)
    ids = [_encoded(pairs.where, side, texts) for side, texts in _sides(vocabulary, pairs.train)]
    kept = [
        rows_of(found, length, data.long, pairs.where, side)
        for found, length, side in zip(ids, (data.source_length, data.target_length), ("source", "target"))
    ]
    chosen = kept[0][1] & kept[1][1]
    rows = {"source": kept[0][0][chosen], "target": kept[1][0][chosen]}
    if not len(rows["source"]):
        raise UserError(f"--data.long drop: must leave pairs to train on: got none of {pairs.where}; give longer rows")
    if len(rows["source"]) < len(chosen):
        say(f"{pairs.where}: {np.sum(~chosen):,} of {len(chosen):,} training pairs are longer than a row, and left out")
    asked, held_out = _judged(config, vocabulary, pairs, say)
    facts = TextPairFacts(_rows_of_table(data, vocabulary), data.source_length, data.target_length, vocabulary.sha256)
    batch = lambda part: {name: array[part.example] for name, array in rows.items()}
    examples = Examples.of(250, **held_out)
    return Read(facts, vocabulary, rows["source"], batch, examples, asked, pairs.fingerprint)


def _judged(config: Any, vocabulary: PairVocabulary, pairs: Pairs, say: Callable[[str], None]) -> Any:
    """Held-out sources and first targets as rows of the model's context."""
    context, long = config.model.context, config.data.long
    first = [(asked.source, asked.references[0]) for asked in pairs.held_out]
    ids = [_encoded(pairs.where, side, texts) for side, texts in _sides(vocabulary, first)]
    sides = ("source", "target")
    for side, found in zip(sides, ids):
        longest = max(map(len, found))
        if long == "refuse" and longest > context:
            raise UsageError(
                f"--model.context must be at least {longest}, as many tokens as the longest held-out {side} of "
                f"{pairs.where} has with its end: got {context}; or give --data.long cut, or drop"
            )
    kept = [rows_of(found, context, long, pairs.where, side) for found, side in zip(ids, sides)]
    chosen = kept[0][1] & kept[1][1]
    if not chosen.all():
        say(f"{pairs.where}: {np.sum(~chosen):,} of {len(chosen):,} held-out sources are longer than the context")
    asked = tuple(one for one, keep in zip(pairs.held_out, chosen) if keep)
    return asked, {side: rows[chosen] for side, (rows, _) in zip(sides, kept)}


def _spans(config: Any, say: Callable[[str], None]) -> Read:
    from ...evaluators.examples import Examples

    data, spans = config.data, span_lengths(config.data)
    path, text = text_of(data, say=say)
    parts = cut(path, text, data.held_out)
    vocabulary = _vocabulary(data, [text if data.tokenizer == "chars" else parts[0]], [])
    if spans.number > vocabulary.sentinels:
        raise UsageError(
            f"--data.sentinels must be at least the {spans.number} spans of a source: got {vocabulary.sentinels}; or "
            "give a shorter --data.source-length"
        )
    for name, length in (("source", spans.source), ("target", spans.target)):
        if length > config.model.context:
            raise UsageError(
                f"--model.context must be at least the {length} tokens of a {name}: got {config.model.context}"
            )
    ids = [_one(path, "text", vocabulary.encode, part).astype(np.uint32) for part in parts]
    size = _rows_of_table(data, vocabulary)
    train, held = (Tokens(each, vocab=size, context=spans.tokens - 1, where=path) for each in ids)
    marks = np.asarray([vocabulary.sentinel(number) for number in range(spans.number)])

    def rows(windows: np.ndarray, drawn: np.ndarray) -> Rows:
        made = [corrupted(ids, hidden_tokens(spans, each), marks) for ids, each in zip(windows, drawn)]
        source, target = (np.stack(side).astype(np.int32) for side in zip(*made))
        return {"source": source, "target": target}

    def batch(part: Part) -> Rows:
        windows = train.windows(train.drawn(config.seed, part))
        return rows(windows, uniforms(config.seed, part.step, part.index, spans.tokens, 1))

    def judged(numbers: np.ndarray) -> Rows:
        drawn = np.stack([uniforms(0, int(number), np.zeros(1, int), spans.tokens, 1)[0] for number in numbers])
        return rows(held.windows(numbers * held.context), drawn)

    facts = TextPairFacts(size, spans.source, spans.target, vocabulary.sha256)
    count = min((held.tokens - spans.tokens) // held.context + 1, 1000)
    return Read(facts, vocabulary, train, batch, Examples(count, judged, 50), (), fingerprint_of(train.ids, held.ids))


def _of_pairs(data: TextPairConfig, pairs: Pairs) -> PairVocabulary:
    """A vocabulary of the training pairs; its characters and words are those of all pairs."""
    held = [(asked.source, target) for asked in pairs.held_out for target in asked.references]
    closed = lambda name: name in ("chars", "words")
    both = lambda name: (*pairs.train, *held) if closed(name) else pairs.train
    sources = [source for source, _ in both(data.tokenizer)]
    targets = [target for _, target in both(data.target_tokenizer or data.tokenizer)]
    return _vocabulary(data, sources, targets)


def _vocabulary(data: TextPairConfig, sources: Sequence[str], targets: Sequence[str]) -> PairVocabulary:
    name, other = data.tokenizer, data.target_tokenizer
    sentinels = data.sentinels if data.spans else 0
    if published := _of_path(name):
        if other is not None:
            raise UsageError(f"--data.target-tokenizer goes without the path --data.tokenizer {name}: got {other!r}")
        return published
    if other is None or data.spans:
        return OwnPairs(_opened(name, [*sources, *targets], "--data.tokenizer"), None, sentinels)
    first = _opened(name, sources, "--data.tokenizer")
    return OwnPairs(first, _opened(other, targets, "--data.target-tokenizer"), sentinels)


def _opened(name: str, texts: Sequence[str], flag: str) -> Any:
    return open_vocabulary(name, ("" if name == "chars" else "\n").join(texts), flag)


def _of_path(name: str) -> PairVocabulary | None:
    """The vocabulary of both texts that a path leads to; None for a name, or a vocabulary of one text.

    Raises:
        UserError: the folder's tokenizer is no T5's.
    """
    path = Path(name).expanduser()
    if name in OWN or name.startswith("bpe-") or not path.exists():
        return None
    if (kept := path / NAME if path.is_dir() else path).name == NAME and kept.exists():
        found = load_vocabulary(kept)
        return found if isinstance(found, PairVocabulary) else None
    from eqxgen.pretrained.tokenizer.published import open_tokenizer

    try:
        return PublishedPairs(json.loads(open_tokenizer(path).to_json()))
    except ValueError as error:
        raise UserError(f"--data.tokenizer {name}: {error}") from None


def _rows_of_table(data: TextPairConfig, vocabulary: PairVocabulary) -> int:
    if data.vocab is not None and data.vocab < vocabulary.size:
        raise UsageError(f"--data.vocab must be at least the vocabulary's {vocabulary.size}: got {data.vocab}")
    return data.vocab or vocabulary.size


def _sides(vocabulary: PairVocabulary, pairs: Sequence[tuple[str, str]]) -> Any:
    sources, targets = zip(*pairs)
    return (("source", (vocabulary.source, sources)), ("target", (vocabulary.target, targets)))


def _encoded(where: Path, side: str, given: Any) -> list[np.ndarray]:
    encode, texts = given
    return [_one(where, f"{side} {text!r:.40}", encode, text) for text in texts]


def _one(where: Path, what: str, encode: Callable[[str], np.ndarray], text: str) -> np.ndarray:
    try:
        return encode(text)
    except ValueError as error:
        raise UserError(f"{where}: {what}: {error}; give another --data.tokenizer") from None
