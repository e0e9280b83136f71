"""Folders of tiny published encoders of texts, with weights that are drawn and tokenizers of a few letters."""

import dataclasses
import json
from pathlib import Path

import pytest

from eqxgen.configs import CLIPConfig, T5Config, TextTowerConfig, ViTConfig
from eqxgen.models import CLIP, T5
from eqxgen.pretrained import to_pretrained
from tests.arrays import filled
from tests.train.test_sample import BOTH, CHARACTERS, MODELS
from train.config.base import to_dict
from train.engine.recipes import named
from train.run.weights import save_model

LETTERS = "bdelortu"
SIZES = T5Config(dim=12, depth=1, decoder_depth=1, heads=1, head_dim=8, hidden_dim=8, gated=True, tied=False)
VIT = ViTConfig(patch=2, dim=8, depth=1, heads=1, hidden_dim=8, patch_bias=False, embedding_norm=True)
TOWER = TextTowerConfig(dim=8, depth=1, heads=1, hidden_dim=8, context=12)


def t5_folder(folder: Path, vocab: int = 16) -> Path:
    """A T5 with its decoder, which is not read, and a tokenizer.json: an id for a space and one for each letter."""
    tokenizers = pytest.importorskip("tokenizers")
    pieces = ["<pad>", "</s>", "<unk>", "▁", *LETTERS]
    library = tokenizers.Tokenizer(tokenizers.models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    library.add_special_tokens(pieces[:2])
    to_pretrained(filled(lambda key: T5(vocab, SIZES, key=key)), folder, "t5")
    library.save(str(folder / "tokenizer.json"))
    return folder


def clip_folder(folder: Path) -> Path:
    """A CLIP, and the files of its tokenizer: two ids for each letter, the begin and the end."""
    pytest.importorskip("tokenizers")
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    config = CLIPConfig(VIT, TOWER, 8)
    to_pretrained(filled(lambda key: CLIP(4, 4, 3, len(tokens), config, key=key)), folder, "clip")
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def run_folder(recipe: str, folder: Path) -> Path:
    """A run of train.t5 or train.clip, of the letters a to h."""
    found, (sizes, facts) = named(recipe), MODELS[recipe]
    sizes = sizes if isinstance(sizes, dict) else {"model": sizes}
    config = dataclasses.replace(next(iter(found.presets.values())), **sizes)
    record = {"recipe": recipe, "config": to_dict(config), "facts": facts.to_record()}
    folder.mkdir()
    save_model(folder / "model.safetensors", filled(found.model(config, facts)), record)
    (folder / "config.json").write_text(json.dumps(record), encoding="utf-8")
    (BOTH if recipe == "t5" else CHARACTERS).save(folder / "vocabulary.json")
    return folder
