"""From a name to a text's ids, those to train on and those held out."""

import dataclasses
from pathlib import Path

from ..._errors import DataError
from ...config.data import TextConfig
from ...config.known import KNOWN
from ...config.text_pairs import TextPairConfig
from ..files.broken import Say
from ..files.known_files import KnownFiles
from ..files.lazy import fingerprint_of
from ..files.prepared_index import index_errors, is_prepared, read_index
from .text_files import decode, read_text
from .tokens import Tokens
from .vocabulary import NAME, Bytes, Vocabulary
from .vocabulary_file import load_vocabulary, open_vocabulary

IDS = (".npy", ".bin")


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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the ids; of those in a file, of its size and a sample."""
        return fingerprint_of(self.train.ids, self.held_out.ids)


def load_text(config: TextConfig, context: int, files: KnownFiles | None = None, say: Say = print) -> Corpus:
    """The text that a config names. Files of a folder are joined by an empty line.

    A text is cut by its characters, in order: its end is held out. A learnt vocabulary is learnt from the part to train
    on, but the characters are those of the whole text.

    Args:
        config: which text, and what its tokens are.
        context: a window is one token longer.
        files: where known files are searched; by default in `config.root`, `$EQXGEN_DATA` and the cache folder.
        say: takes a line about what was read and left out.

    Raises:
        DataError: the text is missing, empty, not UTF-8 or too short; or it cannot be written in the vocabulary's
            tokens.
    """
    if config.is_path:
        path = Path(config.name).expanduser()
        if path.suffix.lower() in IDS:
            return _ids(config, path, context)
        if is_prepared(path):
            return _prepared(config, path, context)
    path, text = text_of(config, files, say)
    first, last = cut(path, text, config.held_out)
    vocabulary = open_vocabulary(config.tokenizer, text if config.tokenizer == "chars" else first, "--data.tokenizer")
    parts = []
    for part in (first, last):
        try:
            ids = vocabulary.encode(part)
        except ValueError as error:
            raise DataError(path, "text of the vocabulary", str(error), "take another --data.tokenizer") from error
        parts.append(Tokens(ids, vocab=vocabulary.size, context=context, where=path))
    return Corpus(config.name, parts[0], parts[1], vocabulary, vocabulary.size)


def text_of(config: TextConfig | TextPairConfig, files: KnownFiles | None = None, say: Say = print) -> tuple[Path, str]:
    """The text that a config names, and its file or folder."""
    if not config.is_path:
        path, data = (files or KnownFiles.of(config)).read(f"{config.name}/{KNOWN[config.name].files[0].name}")
        return path, decode(path, data, keep_newlines=config.keep_newlines)
    path, keep, skip = Path(config.name).expanduser(), config.keep_newlines, config.skip_broken
    return path, "\n\n".join(read_text(path, keep_newlines=keep, skip_broken=skip, say=say).values())


def cut(path: Path, text: str, held_out: float) -> tuple[str, str]:
    """The beginning of a text, and the last `held_out` of it.

    Raises:
        DataError: one of them would be empty.
    """
    at = int(len(text) * (1 - held_out))
    if not 0 < at < len(text):
        expected = "a text long enough to hold some of it out"
        raise DataError(path, expected, f"{len(text)} characters", "take a longer one")
    return text[:at], text[at:]


def _ids(config: TextConfig, path: Path, context: int) -> Corpus:
    """A file of ids of a tokenizer of one's own: the end of it is held out."""
    if config.tokenizer == "bytes":
        vocabulary = Bytes()
    elif config.tokenizer == "chars" or config.tokenizer.startswith("bpe-"):
        vocabulary = None
    else:
        vocabulary = open_vocabulary(config.tokenizer, " ", "--data.tokenizer")
    vocab = config.vocab or (vocabulary.size if vocabulary else 0)
    if not vocab:
        raise DataError(path, "the size of its vocabulary", "none", "give --data.vocab, or --data.tokenizer a path")
    train, held_out = Tokens(path, vocab=vocab, context=context).cut(config.held_out)
    return Corpus(config.name, train, held_out, vocabulary, vocab)


def _prepared(config: TextConfig, path: Path, context: int) -> Corpus:
    """A prepared set of ids."""
    index = read_index(path, "tokens")
    with index_errors(path):
        names, vocab = index["parts"], int(index["vocab"])
        vocabulary = load_vocabulary(path / NAME, str(index["vocabulary"]))
        train, held_out = (Tokens(path / names[part], vocab=vocab, context=context) for part in ("train", "val"))
    return Corpus(config.name, train, held_out, vocabulary, vocab)
