"""Train a model of images by text (Parti, arXiv:2206.10789) on tokens of captioned images.

  python -m train.vqgan --preset captioned_digits            # a tokenizer, and
  python -m train.parti                                      # a model of its tokens by the captions
  python -m train.sample --run runs/parti-captioned_digits --text "three red sevens in a row" "a large 5"
  python -m train.parti --data.name ./pictures --data.image-size 64 --tokenizer RUN --text-tokenizer bpe-2000
  python -m train.parti --preset parti-350m --dry-run        # the paper's: 1,024 tokens of 8,192 codes, batch 8,192

Captions come with --data.name: captioned_digits, emoji64, or a folder with metadata.jsonl or a .txt for each picture.
--text-tokenizer is chars, bytes, bpe-SIZE or the path of a vocabulary. --text-encoder FOLDER is a frozen T5 or CLIP,
published or of a run, in place of an encoder that is trained; config.json has its hash. Guidance is by texts that
training hides (--text-dropout), in whose place is the empty text. Writes runs/parti-PRESET: config.json,
vocabulary.json, metrics.jsonl, samples/, checkpoints/, TensorBoard events, model.safetensors, and summary.json. Of
captioned_digits it has the exact match of pictures with held-out captions, cell by cell, of scenes that are in training
(caption_cells_seen) and of others (caption_cells_held_out). The same command again resumes.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

from eqxgen.configs import ImageSampling, PartiConfig

from ._errors import require
from .config.data import DataConfig
from .config.evals import CAPTIONS, FIDELITY, HELD_OUT
from .config.optim import OptimConfig
from .config.options import option
from .tasks.captions import TEXTS, check_text_encoder, check_text_tokenizer, check_tokenizer_given
from .tasks.facts import TokenFacts
from .tasks.image_tokens import TokensConfig, tokens_recipe
from .tasks.one_by_one import draw_one_by_one, one_by_one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TokensConfig):
    """Every flag starts from the preset's value."""

    EVALS = (HELD_OUT, CAPTIONS, FIDELITY)

    text_encoder: str = option("", moves=True, first=True)
    """Folder of a frozen encoder of texts with its tokenizer: a published T5 or CLIP, or a run of train.t5 or
    train.clip; by default the model has an encoder that is trained."""
    text_tokenizer: str = option("chars", first=True)
    """chars: the characters of the captions; bytes; bpe-2000: as many byte pairs, learnt from them; or a path: a
    tokenizer.json, a folder with GPT-2's vocab.json and merges.txt, or a vocabulary.json of another run."""
    text_dropout: float = 0.1
    """Share of the examples whose text training hides, for guidance."""
    model: PartiConfig = option(factory=PartiConfig, first=("dim", "depth", "heads", "context"))
    """The transformer."""
    decode: ImageSampling = option(factory=ImageSampling, first=("guidance", "top_k", "candidates"))
    """Sampling."""

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.text_dropout < 1, f"text_dropout must be in [0, 1): got {self.text_dropout}")
        check_text_tokenizer(self.text_tokenizer)
        check_text_encoder(self.text_encoder)

    def check_given(self, given: Collection[str]) -> None:
        check_tokenizer_given(self, given)


def _preset(name: str, model: PartiConfig, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "tokenizer": f"runs/vqgan-{name}",
        "batch_size": 64,
        "data": DataConfig(name=name),
        "optim": OptimConfig(name="muon", learning_rate=1e-2, warmup=100),
        "model": model,
        "decode": ImageSampling(guidance=3.0),
    }
    return Config(preset=name, **values | changes)


def _small(dim: int, depth: int, decoder_depth: int, context: int, dropout: float) -> PartiConfig:
    sizes: dict[str, Any] = {"heads": dim // 32, "head_dim": 32, "hidden_dim": 4 * dim, "context": context}
    return PartiConfig(dim=dim, depth=depth, decoder_depth=decoder_depth, dropout=dropout, **sizes)


def _parti(name: str) -> Config:
    """A size of the paper with its optimisation: Adafactor (0.9, 0.96), decay 0.045, 450,000 steps of 8,192."""
    return Config(
        preset=f"parti-{name}",
        steps=450_000,
        batch_size=8192,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        tokenizer="runs/vqgan-imagenet256-vit-vqgan",
        text_tokenizer="bpe-16000",
        data=DataConfig(name="./captioned", image_size=256),
        optim=OptimConfig(
            name="adafactor", learning_rate=4.5e-5, warmup=10_000, beta1=0.9, beta2=0.96, weight_decay=0.045
        ),
        model=dataclasses.replace(PartiConfig.parti(name), remat=True),
        decode=ImageSampling(guidance=1.2, candidates=16),
    )


PRESETS = {
    # All pairs of the grammar: a word is a token.
    "captioned_digits": _preset("captioned_digits", _small(128, 2, 4, 12, 0.0), steps=2500, text_tokenizer="bpe-369"),
    "emoji64": _preset("emoji64", _small(256, 4, 8, 96, 0.1), steps=20_000, text_tokenizer="bpe-1024"),
    **{f"parti-{name}": _parti(name) for name in ("350m", "750m", "3b", "20b")},
}

ABOUT = {
    "captioned_digits": "1.8 M parameters; 23 minutes of one CPU core after train.vqgan --preset captioned_digits; "
    "caption_cells_seen 0.95",
    "emoji64": "12 M parameters; 20,000 steps of 64, for a GPU, after train.vqgan --preset emoji64",
    "parti-350m": "387 M parameters; 450,000 steps of 8,192, for a TPU slice; the paper's FID on MS-COCO is 14.10",
    "parti-750m": "789 M parameters; 450,000 steps of 8,192, for a TPU slice; the paper's FID on MS-COCO is 10.71",
    "parti-3b": "3,089 M parameters; 450,000 steps of 8,192, for a TPU slice; the paper's FID on MS-COCO is 8.10",
    "parti-20b": "20,539 M parameters; 450,000 steps of 8,192, for a TPU slice; the paper's FID on MS-COCO is 7.23",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: Any) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import Parti

    return lambda key: Parti(facts.grid, facts.codes, facts.own_vocab, config.model, text_dim=facts.text_dim, key=key)


def loss(config: Config, facts: TokenFacts) -> Any:
    """Cross-entropy of the tokens of a batch."""
    return one_by_one(facts, "text", config.text_dropout)


RECIPE = tokens_recipe(
    "parti", "Parti", Config, PRESETS, model, loss, draw_one_by_one, options="decode", conditions=TEXTS
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
