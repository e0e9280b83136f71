"""From a name to a text's ids, those to train on and those held out."""

import dataclasses
from pathlib import Path

from ...config.data import TextConfig
from ..errors import DataError
from ..files.prepared import INDEX, is_prepared, read_index
from ..files.store import Store
from .reading import read_text
from .tokens import Tokens
from .vocabulary import NAME, Bytes, Vocabulary, load_vocabulary, open_vocabulary

_IDS = (".npy", ".bin")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text as ids.

    Attributes:
        name: as it was asked for.
        train, held_out: the ids of its beginning and of its end.
        vocabulary: from ids back to text; None where only the ids are known.
        vocab: ids are below it.
    """

    name: str
    train: Tokens
    held_out: Tokens
    vocabulary: Vocabulary | None
    vocab: int


def load_text(config: TextConfig, context: int, store: Store | None = None) -> Corpus:
    """The text that a config names. Files of a folder are joined by an empty line.

    A text is cut by its characters, in order: what is held out is its end. A learnt vocabulary is learnt from the part
        to train on, but
    the characters are those of the whole text.

    Args:
        config: which text, and what its tokens are.
        context: a window is one token longer.
        store: where known files are looked for; by default what `config.root`, `$EQXGEN_DATA` and the cache folder say.

    Raises:
        DataError: the text is missing, empty, not UTF-8 or too short; or it cannot be written in the vocabulary's
            tokens.
    """
    if config.is_path:
        path = Path(config.name).expanduser()
        if path.suffix.lower() in _IDS:
            return _ids(config, path, context)
        if is_prepared(path):
            return _prepared(config, path, context)
        text = "\n\n".join(read_text(path).values())
    else:
        path, data = (store or Store.of(config)).read("tiny_shakespeare/input.txt")
        text = data.decode("utf-8")
    cut = int(len(text) * (1 - config.held_out))
    if not 0 < cut < len(text):
        raise DataError(
            path, "a text long enough to hold some of it out", f"{len(text)} characters", "take a longer one"
        )
    vocabulary = open_vocabulary(
        config.tokenizer, text if config.tokenizer == "chars" else text[:cut], "--data.tokenizer"
    )
    parts = []
    for part in (text[:cut], text[cut:]):
        try:
            ids = vocabulary.encode(part)
        except ValueError as error:
            raise DataError(path, "text of the vocabulary", str(error), "take another --data.tokenizer") from error
        parts.append(Tokens(ids, vocab=vocabulary.size, context=context, where=path))
    return Corpus(config.name, parts[0], parts[1], vocabulary, vocabulary.size)


def _ids(config: TextConfig, path: Path, context: int) -> Corpus:
    """A file of ids of a tokenizer of one's own: the end of it is held out."""
    known = config.tokenizer in ("chars", "bytes") or config.tokenizer.startswith("bpe-")
    vocabulary = (
        Bytes()
        if config.tokenizer == "bytes"
        else None
        if known
        else open_vocabulary(config.tokenizer, " ", "--data.tokenizer")
    )
    vocab = config.vocab or (vocabulary.size if vocabulary else 0)
    if not vocab:
        raise DataError(path, "the size of its vocabulary", "none", "give --data.vocab, or --data.tokenizer a path")
    whole = Tokens(path, vocab=vocab, context=context)
    train, held_out = whole.cut(config.held_out)
    return Corpus(config.name, train, held_out, vocabulary, vocab)


def _prepared(config: TextConfig, path: Path, context: int) -> Corpus:
    """What `python -m train.data prepare` wrote."""
    index = read_index(path, "tokens")
    try:
        names, vocab = index["parts"], int(index["vocab"])
        vocabulary = load_vocabulary(path / NAME, str(index["vocabulary"]))
        train, held_out = (Tokens(path / names[part], vocab=vocab, context=context) for part in ("train", "val"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            path / INDEX, "an index that prepare wrote", f"{type(error).__name__}: {error}", "prepare it again"
        ) from error
    return Corpus(config.name, train, held_out, vocabulary, vocab)
