"""Tokenizers of published models from local files, by the `tokenizers` library: `open_tokenizer(folder)`.

    tokenizer.json                   any
    spiece.model, tokenizer.model    SentencePiece: T5's Unigram, LLaMA's BPE
    vocab.txt                        WordPiece: BERT's
    vocab.json and merges.txt        BPE over bytes: CLIP's, where it has <|startoftext|>, or GPT-2's
    bpe_simple_vocab_16e6.txt.gz     CLIP's, as OpenAI publishes it

A text is encoded with the special tokens that the model expects, which are also found in texts. Texts of a run's own
vocabulary are encoded by `train.data.text` instead.
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Integer

from eqxgen.pretrained import files
from eqxgen.pretrained.tokenizer import sentencepiece
from eqxgen.pretrained.tokenizer.sentencepiece import SPACE, Pieces

CLIP_FILE, CLIP_MERGES, CLIP_BYTES = "bpe_simple_vocab_16e6.txt.gz", 48_894, 16 * 2**20
SPIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
FILES = ("tokenizer.json", *SPIECE, "vocab.txt", "vocab.json", CLIP_FILE)
"""Names of files, of which the first that is in a folder is read."""
SENTINELS = 100
"""Number of T5's tokens <extra_id_0>, <extra_id_1>, ..., the last of its vocabulary."""
PADS = ("<pad>", "[PAD]", "<|endoftext|>")
_TEXT_BYTES = 64 * 2**20
_KINDS = ("BPE", "WordPiece", "Unigram", "WordLevel")
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Encoded(NamedTuple):
    """Texts as rows of equal length.

    Attributes:
        ids: tokens, padded at the end.
        types: 0 for the first text, 1 for the second of a pair.
        mask: true for the real tokens.
    """

    ids: Int32[np.ndarray, "n length"]
    types: Int32[np.ndarray, "n length"]
    mask: Bool[np.ndarray, "n length"]


class Tokenizer:
    """A tokenizer of a published model.

    Args:
        library: a `tokenizers.Tokenizer`.
        pad: text of the token that rows are padded with; by default the first of `PADS` that it has.
    """

    def __init__(self, library: Any, pad: str | None = None):
        library.no_padding()
        library.no_truncation()
        known = library.get_vocab(with_added_tokens=True)
        self._library = library
        self.size: int = max(known.values()) + 1
        """Number of ids: they are below it."""
        self.pad: int | None = next((known[text] for text in (pad, *PADS) if text in known), None)
        """Id of the padding."""

    def encode(self, text: str, second: str | None = None, *, special: bool = True) -> Int32[np.ndarray, " n"]:
        """Ids of a text or a pair, by default with the special tokens around it."""
        return np.asarray(self._library.encode(text, second, add_special_tokens=special).ids, np.int32)

    def rows(self, texts: Sequence[str | tuple[str, str]], length: int | None = None, *, cut: bool = False) -> Encoded:
        """Texts or pairs as rows of one length, with their special tokens.

        Args:
            texts: one or more.
            length: of a row; by default the longest text's.
            cut: leaves out the end of texts that are too long, in place of an error; their special tokens stay. Not of
                pairs.

        Raises:
            ValueError: a text is too long, there is none, or rows differ in length and there is no padding token.
        """
        if len(texts) == 0:
            raise ValueError("texts must be one or more: got none")
        found = [self._row(text, length if cut else None) for text in texts]
        longest = max(len(row.ids) for row in found)
        length = longest if length is None else length
        if longest > length:
            raise ValueError(f"texts must have at most length={length} tokens: got {longest}; or give cut=True")
        if self.pad is None and min(len(row.ids) for row in found) < length:
            raise ValueError("tokenizer must have a padding token for rows of one length: it has none")
        ids, types = np.full((len(texts), length), self.pad or 0, np.int32), np.zeros((len(texts), length), np.int32)
        mask = np.zeros((len(texts), length), bool)
        for number, row in enumerate(found):
            count = len(row.ids)
            ids[number, :count], types[number, :count], mask[number, :count] = row.ids, row.type_ids, True
        return Encoded(ids, types, mask)

    def decode(self, ids: Integer[np.ndarray, " n"] | Sequence[int], *, special: bool = False) -> str:
        """Text of ids, by default without special tokens.

        Raises:
            ValueError: an id is out of range.
        """
        found = np.asarray(ids, np.int64)
        if found.size and not 0 <= found.min() <= found.max() < self.size:
            raise ValueError(f"ids must be in [0, size={self.size}): got values from {found.min()} to {found.max()}")
        text = self._library.decode(found.tolist(), skip_special_tokens=not special)
        return text.replace("</w>", " ").strip() if self._words_end else text

    def id_of(self, token: str) -> int:
        """Id of a token by its text, such as [MASK].

        Raises:
            ValueError: it is not of the vocabulary.
        """
        found = self._library.token_to_id(token)
        if found is None:
            raise ValueError(f"token must be of the vocabulary: got {token!r}")
        return found

    def to_json(self) -> str:
        """What its tokenizer.json says, or would."""
        return self._library.to_str()

    def check(self, model: Any) -> None:
        """Raises `ValueError` unless the model's embedding has a row for every id."""
        if self.size > model.vocab:
            raise ValueError(
                f"tokenizer must have at most as many ids as the model, vocab={model.vocab}: got {self.size}; it is of "
                "another model"
            )

    @property
    def _words_end(self) -> bool:
        return getattr(self._library.model, "end_of_word_suffix", None) == "</w>"

    def _row(self, text: str | tuple[str, str], length: int | None) -> Any:
        pair = (text,) if isinstance(text, str) else text
        if length is None or len(pair) == 2:
            return self._library.encode(*pair)
        found, room = self._library.encode(*pair, add_special_tokens=False), length - self._specials
        if room < 0:
            raise ValueError(f"length must have room for {self._specials} special tokens: got {length}")
        found.truncate(room)
        return self._library.post_process(found)

    @property
    def _specials(self) -> int:
        return self._library.num_special_tokens_to_add(False)


def open_tokenizer(source: str | Path, model: Any = None) -> Tokenizer:
    """The tokenizer of a folder or a file, see above.

    Args:
        source: the folder of a published model, or one of its files.
        model: whose embedding must have a row for every id; see `Tokenizer.check`.

    Raises:
        ValueError: there is no file of a known name, it is damaged, or the tokenizer does not match the model.
        ModuleNotFoundError: the library is not installed.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        name = next((name for name in FILES if (path / name).is_file()), None)
        if name is None:
            raise ValueError(f"{path}: must have a tokenizer, one of {', '.join(FILES)}: got none of them")
        path = path / name
    elif not path.is_file():
        raise ValueError(f"{path}: no such file: expected a tokenizer, or the folder of a published model")
    options = folder / "tokenizer_config.json"
    values = files.read_json(options) if options.is_file() else {}
    tokenizer = _opened(path, values)
    if model is not None:
        tokenizer.check(model)
    return tokenizer


def _opened(path: Path, values: dict[str, Any]) -> Tokenizer:
    pad = _text_of(values.get("pad_token"))
    if path.suffix == ".model":
        return Tokenizer(_sentencepiece(sentencepiece.read_pieces(path), values), pad)
    if path.name == "vocab.txt":
        return Tokenizer(_wordpiece(path, values), pad)
    if path.name.endswith(".txt.gz"):
        return Tokenizer(_clip(*_openai(path)), pad)
    if path.name == "vocab.json":
        vocab, merges = _byte_pairs(path)
        return Tokenizer((_clip if "<|startoftext|>" in vocab else _gpt2)(vocab, merges), pad)
    return Tokenizer(_whole(path), pad)


def _whole(path: Path) -> Any:
    about = files.read_json(path)
    model = about.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") not in _KINDS or not model.get("vocab"):
        raise ValueError(f"{path}: must be a tokenizer.json with a model of {', '.join(_KINDS)} and its vocab")
    return _library().Tokenizer.from_str(json.dumps(about))


def _sentencepiece(found: Pieces, values: dict[str, Any]) -> Any:
    """Unigram as T5's: the end token after each text, and its sentinels. BPE as LLaMA's: the begin token before."""
    library = _library()
    unigram = found.model == sentencepiece.UNIGRAM
    texts = [piece.text for piece in found.pieces]
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(int(values.get("extra_ids", SENTINELS if unigram else 0))))]
    sentinels = [] if sentinels and sentinels[-1] in texts else sentinels
    if unigram:
        scored = [(piece.text, piece.score) for piece in found.pieces] + [(text, 0.0) for text in sentinels]
        model = library.models.Unigram(scored, unk_id=found.unknown, byte_fallback=found.byte_fallback)
    else:
        vocab = {text: id for id, text in enumerate([*texts, *sentinels])}
        model = library.models.BPE(
            vocab,
            _merges(found),
            unk_token=texts[found.unknown],
            fuse_unk=True,
            byte_fallback=found.byte_fallback,
        )
    tokenizer = library.Tokenizer(model)
    _spaces(tokenizer, found, library)
    kinds = [(piece.text, piece.kind) for piece in found.pieces]
    named = [(text, True) for text, kind in kinds if kind in (sentencepiece.CONTROL, sentencepiece.UNKNOWN)]
    named += [(text, False) for text, kind in kinds if kind == sentencepiece.DEFINED]
    named += [(text, True) for text in sentinels]
    for text, special in named:
        token = library.AddedToken(text, normalized=False, special=special)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([token])
    begin = values.get("add_bos_token", not unigram) and found.begin >= 0
    end = values.get("add_eos_token", unigram) and found.end >= 0
    around = (texts[found.begin] if begin else None, texts[found.end] if end else None)
    _surround(tokenizer, library, *around)
    return tokenizer


def _spaces(tokenizer: Any, found: Pieces, library: Any) -> None:
    """Normalization and spaces of SentencePiece, and the way back."""
    normalizers, decoders = library.normalizers, library.decoders
    steps = [normalizers.Precompiled(found.charsmap)] if found.charsmap else []
    if found.squeezed:
        steps += [normalizers.Strip(), normalizers.Replace(library.Regex(" {2,}"), " ")]
    steps += [normalizers.Prepend(SPACE)] if found.prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    if all(SPACE not in piece.text[1:] for piece in found.pieces):  # no piece goes over the start of a word
        tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=True)
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(back + ([decoders.Strip(" ", 1, 0)] if found.prefix else []))


def _merges(found: Pieces) -> list[tuple[str, str]]:
    """Pairs of pieces that make another, the likeliest result first."""
    parts = (sentencepiece.NORMAL, sentencepiece.DEFINED)
    known = {piece.text: id for id, piece in enumerate(found.pieces) if piece.kind in parts}
    order = sorted(known.values(), key=lambda id: (-found.pieces[id].score, id))
    pairs: list[tuple[str, str]] = []
    for text in (found.pieces[id].text for id in order):
        splits = ((text[:at], text[at:]) for at in range(1, len(text)))
        made = [pair for pair in splits if known.keys() >= {*pair}]
        pairs += sorted(made, key=lambda pair: (known[pair[0]], known[pair[1]]))
    return pairs


def _wordpiece(path: Path, values: dict[str, Any]) -> Any:
    library = _library()
    lines = _lines(path)
    vocab = {line: id for id, line in enumerate(lines)}
    if len(vocab) != len(lines):
        raise ValueError(f"{path}: must have each token once: got {len(lines) - len(vocab)} again")
    parts = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    parts = {part: _text_of(values.get(f"{part}_token")) or text for part, text in parts.items()}
    if missing := [parts[part] for part in ("unk", "cls", "sep") if parts[part] not in vocab]:
        raise ValueError(f"{path}: must be BERT's vocabulary, with {', '.join(missing)}: got none")
    tokenizer = library.Tokenizer(library.models.WordPiece(vocab, unk_token=parts["unk"]))
    tokenizer.normalizer = library.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(values.get("tokenize_chinese_chars", True)),
        strip_accents=values.get("strip_accents"),
        lowercase=bool(values.get("do_lower_case", True)),
    )
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = library.decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([text for text in parts.values() if text in vocab])
    first, last = parts["cls"], parts["sep"]
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(first, vocab[first]), (last, vocab[last])],
    )
    return tokenizer


def _clip(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    library = _library()
    normalizers, splits = library.normalizers, library.pre_tokenizers
    begin, end = "<|startoftext|>", "<|endoftext|>"
    model = library.models.BPE(
        vocab, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False, unk_token=end
    )
    tokenizer = library.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(library.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = splits.Split(library.Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = splits.Sequence([words, splits.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = library.decoders.ByteLevel()
    tokenizer.add_special_tokens([begin, end])
    _surround(tokenizer, library, begin, end)
    return tokenizer


def _gpt2(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    if "<|endoftext|>" in vocab:
        tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def _surround(tokenizer: Any, library: Any, begin: str | None, end: str | None) -> None:
    """Special tokens around each text, and around both of a pair."""
    if begin is None and end is None:
        return
    around = lambda text, kind: [f"{t}:{kind}" for t in (begin, text, end) if t is not None]
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single=around("$A", 0),
        pair=[*around("$A", 0), *around("$B", 1)],
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in (begin, end) if text is not None],
    )


def _byte_pairs(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab = files.read_json(path)
    if not all(isinstance(id, int) for id in vocab.values()):
        raise ValueError(f"{path}: must have an id for each token: got another value")
    merges = path.with_name("merges.txt")
    lines = [line for line in _lines(merges) if line and not line.startswith("#version")]
    return vocab, _pairs(merges, lines, vocab)


def _openai(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Bytes, bytes at the end of a word, results of the merges, two special tokens."""
    try:
        with gzip.open(path) as file:
            data = file.read(CLIP_BYTES + 1)
        if len(data) > CLIP_BYTES:
            raise ValueError(f"more than {CLIP_BYTES:,} bytes")
        lines = data.decode("utf-8").split("\n")[1 : CLIP_MERGES + 1]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: this file is damaged: {error}; fetch it again") from None
    characters = _characters()
    texts = [*characters, *(character + "</w>" for character in characters)]
    texts += ["".join(line.split()) for line in lines]
    vocab = {text: id for id, text in enumerate([*texts, "<|startoftext|>", "<|endoftext|>"])}
    return vocab, _pairs(path, lines, vocab)


def _characters() -> list[str]:
    """The characters for bytes in GPT-2's and CLIP's files, in their order: printing ones as they are, then the others
    from 256 on.
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, printing), *(chr(256 + number) for number in range(256 - len(printing)))]


def _pairs(path: Path, lines: list[str], vocab: dict[str, int]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for line in lines:
        left, _, right = line.partition(" ")
        if not {left, right, left + right} <= vocab.keys():
            raise ValueError(f"{path}: must join tokens of the vocabulary: got {line!r}, of which a part is not")
        pairs.append((left, right))
    return pairs


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file: expected a part of a tokenizer")
    if path.stat().st_size > _TEXT_BYTES:
        raise ValueError(f"{path}: must be at most {_TEXT_BYTES:,} bytes: got {path.stat().st_size:,}")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8: {error}") from None
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def _text_of(token: Any) -> str | None:
    """A special token of tokenizer_config.json: its text, or an object with it."""
    return token.get("content") if isinstance(token, dict) else token


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'no module {error.name}: pip install "eqxgen[text]"', name=error.name) from None
    return tokenizers


__all__ = ["Encoded", "Tokenizer", "open_tokenizer"]
