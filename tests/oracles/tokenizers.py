"""Ids of published tokenizers: transformers' CLIP, GPT-2, BERT and T5, and the library sentencepiece for LLaMA's kind,
on published vocabularies and on small ones learnt from a text.
"""

import gzip
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from tests.oracles import DATA

TEXTS = (
    "Hello world",
    "Two households, both alike in dignity — naïve café 日本 123",
    "",
    " leading  two  spaces  and trailing ",
    "tabs\tand\nnewlines\n\n",
    "ÀÉÎ ﬁ ﬂ ½ Ⅷ",
    "emoji 😀👩‍👩‍👧 ✨",
    "it's they're I'LL we've DON'T",
    "1,234,567.89 3e-10",
    "nbsp\u00a0ideographic\u3000",
    "Ελληνικά русский العربية हिन्दी 中文字符",
    "a" * 50,
    "combining e\u0301 \u2581 mark",
    "x",
)
# Normalization of the small Unigram: code points of a text, and of what it becomes.
RULES = "FF21\t41\nBD\t31 2F 32\n9\t20\nA0\t20\n3000\t20\nA\t20\n"


def flat(rows) -> dict[str, np.ndarray]:
    """Rows of ids as one array and their lengths."""
    rows = [np.asarray(row, np.int64) for row in rows]
    return {"ids": np.concatenate(rows), "lengths": np.asarray([len(row) for row in rows])}


def cases():
    import sentencepiece
    import transformers

    vocabularies = DATA / "vocabularies"
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encode = lambda tokenizer: flat(tokenizer(text).input_ids for text in TEXTS)
        files = _clip(vocabularies / "clip_bpe_simple_vocab_16e6.txt.gz", folder)
        found["clip"] = encode(transformers.CLIPTokenizer(*files))
        shutil.copy(vocabularies / "gpt2_encoder.json", folder / "vocab.json")
        shutil.copy(vocabularies / "gpt2_vocab.bpe", folder / "merges.txt")
        found["gpt2"] = encode(transformers.GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")))
        llama = sentencepiece.SentencePieceProcessor(model_file=str(vocabularies / "mistral_v1.model"))
        found["mistral"] = flat(map(llama.encode, TEXTS))
        corpus = DATA / "tiny_shakespeare" / "input.txt"
        for kind in ("unigram", "bpe"):
            model = _learnt(sentencepiece, corpus, folder, kind)
            found[kind] = {"file": np.frombuffer((folder / "spiece.model").read_bytes(), np.uint8)}
            found[kind] |= flat(map(model.encode, TEXTS))
        _learnt(sentencepiece, corpus, folder, "unigram")
        found["t5"] = encode(transformers.T5Tokenizer.from_pretrained(str(folder)))
        vocab = _wordpiece(corpus, folder)
        found["bert"] = {"vocab": np.asarray(vocab)} | encode(transformers.BertTokenizer(str(folder / "vocab.txt")))
        cased = transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False)
        found["bert, cased"] = encode(cased)
    return found


def _clip(path: Path, folder: Path) -> tuple[str, str]:
    """CLIP's file in the form that transformers reads."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1:48895]
    texts = list(bytes_to_unicode().values())
    texts += [text + "</w>" for text in texts] + ["".join(line.split()) for line in lines]
    texts += ["<|startoftext|>", "<|endoftext|>"]
    vocab, merges = folder / "clip.json", folder / "clip.txt"
    vocab.write_text(json.dumps({text: id for id, text in enumerate(texts)}))
    merges.write_text("\n".join(["#version: 0.2", *lines]) + "\n")
    return str(vocab), str(merges)


def _learnt(sentencepiece, corpus: Path, folder: Path, kind: str):
    (folder / "rules.tsv").write_text(RULES)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus.read_text().splitlines()[:2000]),
        model_prefix=str(folder / "spiece"),
        vocab_size=300,
        model_type=kind,
        byte_fallback=False,
        normalization_rule_tsv=str(folder / "rules.tsv"),
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))


def _wordpiece(corpus: Path, folder: Path) -> str:
    from tokenizers import BertWordPieceTokenizer

    learner = BertWordPieceTokenizer()
    learner.train_from_iterator(corpus.read_text().splitlines()[:2000], vocab_size=400, show_progress=False)
    learner.save_model(str(folder))
    return (folder / "vocab.txt").read_text()
