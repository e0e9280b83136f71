"""Train a model of masked image tokens by text (MUSE, arXiv:2301.00704), and its super-resolution stage.

  python -m train.vqgan --preset captioned_digits            # a tokenizer, and
  python -m train.muse                                       # a model of its tokens by the captions
  python -m train.sample --run runs/muse-captioned_digits --text "three red sevens in a row" --steps 12
  python -m train.vqgan --preset captioned_digits-fine       # a finer tokenizer, and
  python -m train.muse --preset captioned_digits-super       # a model of its tokens by the captions and the coarse ones
  python -m train.sample --run runs/muse-captioned_digits-super --low runs/muse-captioned_digits --text "a large 5"
  python -m train.muse --preset muse-3b --dry-run            # the paper's: 256 tokens of 8,192 codes, batch 512

Captions come with --data.name: captioned_digits, emoji64, or a folder with metadata.jsonl or a .txt for each picture.
--text-tokenizer is chars, bytes, bpe-SIZE or the path of a vocabulary; --text-encoder a frozen T5 or CLIP instead.
Guidance is by texts that training hides (--text-dropout), in whose place is the empty text; --decode.guidance-ramp 1
raises it step by step, as the paper does.

--low-tokenizer RUN makes a second stage: RUN is the tokenizer of the first stage, of the same images or of these made
smaller by a whole number, and its tokens are read beside the text, also where the text is hidden. Its evaluation is
given the tokens of the real pictures; train.sample draws both stages.

Writes runs/muse-PRESET, as train.parti does, with the same evaluation. The same command again resumes.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

from eqxgen.configs import MaskedDecoding, MuseConfig

from ._errors import require
from .config.data import DataConfig
from .config.evals import CAPTIONS, FIDELITY, HELD_OUT
from .config.optim import OptimConfig
from .config.options import option
from .tasks.captions import check_text_encoder, check_text_tokenizer, check_tokenizer_given
from .tasks.facts import TokenFacts
from .tasks.image_tokens import tokens_recipe
from .tasks.low_tokens import STAGES
from .tasks.masked import MaskedConfig, draw_masked, masked_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(MaskedConfig):
    """Every flag starts from the preset's value."""

    EVALS = (HELD_OUT, CAPTIONS, FIDELITY)

    low_tokenizer: str | None = option(None, first=True)
    """Folder of the train.vqgan run whose tokens a second stage reads; by default the model is a first stage."""
    text_encoder: str = option("", moves=True, first=True)
    """Folder of a frozen encoder of texts with its tokenizer: a published T5 or CLIP, or a run of train.t5 or
    train.clip; by default the model has an encoder that is trained."""
    text_tokenizer: str = option("chars", first=True)
    """chars: the characters of the captions; bytes; bpe-2000: as many byte pairs, learnt from them; or a path: a
    tokenizer.json, a folder with GPT-2's vocab.json and merges.txt, or a vocabulary.json of another run."""
    text_dropout: float = 0.1
    """Share of the examples whose text training hides, for guidance."""
    model: MuseConfig = option(factory=MuseConfig, first=("dim", "depth", "heads", "context"))
    """The transformer."""

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.text_dropout < 1, f"text_dropout must be in [0, 1): got {self.text_dropout}")
        check_text_tokenizer(self.text_tokenizer)
        check_text_encoder(self.text_encoder)
        mirrored = self.low_tokenizer is not None and self.data.augment.flip
        require(not mirrored, "data.augment.flip must be off with low_tokenizer, whose tokens are not mirrored")

    def check_given(self, given: Collection[str]) -> None:
        check_tokenizer_given(self, given)


def _preset(name: str, model: MuseConfig, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "tokenizer": f"runs/vqgan-{name}",
        "batch_size": 64,
        "data": DataConfig(name=name.removesuffix("-super")),
        "optim": OptimConfig(name="muon", learning_rate=1e-2, warmup=100),
        "model": model,
        "label_smoothing": 0.0,
        "decode": MaskedDecoding(steps=12, guidance=2.0, choice_temperature=3.0),
    }
    return Config(preset=name, **values | changes)


def _small(dim: int, depth: int, decoder_depth: int, context: int, dropout: float) -> MuseConfig:
    sizes: dict[str, Any] = {"heads": dim // 32, "head_dim": 32, "hidden_dim": 4 * dim, "context": context}
    return MuseConfig(dim=dim, depth=depth, decoder_depth=decoder_depth, dropout=dropout, **sizes)


def _muse(name: str, size: str, steps: int, decode: MaskedDecoding, **changes: Any) -> Config:
    """A size of the paper with its optimisation: Adafactor (0.9, 0.96) at 1e-4, decay 0.045, batch 512."""
    values: dict[str, Any] = {
        "preset": name,
        "steps": steps,
        "batch_size": 512,
        "precision": "bfloat16",
        "log_every": 100,
        "sample_every": 10_000,
        "checkpoint_every": 5000,
        "tokenizer": "runs/vqgan-imagenet256",
        "text_encoder": "./t5-v1_1-xxl",
        "data": DataConfig(name="./captioned", image_size=256),
        "optim": OptimConfig(
            name="adafactor", learning_rate=1e-4, warmup=5000, beta1=0.9, beta2=0.96, weight_decay=0.045
        ),
        "model": dataclasses.replace(MuseConfig.muse(size), remat=True),
        "decode": decode,
    }
    return Config(**values | changes)


_BASE = MaskedDecoding(steps=24, guidance=8.0, guidance_ramp=1.0)
PRESETS = {
    # All pairs of the grammar: a word is a token.
    "captioned_digits": _preset("captioned_digits", _small(128, 2, 4, 12, 0.0), steps=2500, text_tokenizer="bpe-369"),
    "captioned_digits-super": _preset(
        "captioned_digits-super",
        _small(128, 2, 4, 12, 0.0),
        steps=1500,
        text_tokenizer="bpe-369",
        tokenizer="runs/vqgan-captioned_digits-fine",
        low_tokenizer="runs/vqgan-captioned_digits",
        decode=MaskedDecoding(steps=8, choice_temperature=3.0),
    ),
    "emoji64": _preset("emoji64", _small(256, 4, 8, 96, 0.1), steps=20_000, text_tokenizer="bpe-1024"),
    "muse-632m": _muse("muse-632m", "632m", 1_500_000, _BASE),
    "muse-3b": _muse("muse-3b", "3b", 1_500_000, _BASE),
    "muse-super": _muse(
        "muse-super",
        "super",
        1_000_000,
        MaskedDecoding(steps=8, guidance=8.0, guidance_ramp=1.0),
        tokenizer="runs/vqgan-imagenet256-vit-vqgan",
        low_tokenizer="runs/vqgan-imagenet256",
        data=DataConfig(name="./captioned", image_size=512),
    ),
}

ABOUT = {
    "captioned_digits": "1.8 M parameters; 22 minutes of one CPU core after train.vqgan --preset captioned_digits; "
    "caption_cells_seen 0.98",
    "captioned_digits-super": "2.3 M parameters; 1,500 steps of 64 after train.vqgan --preset captioned_digits and "
    "--preset captioned_digits-fine; caption_cells_seen 0.79 after 600",
    "emoji64": "12 M parameters; 20,000 steps of 64, for a GPU, after train.vqgan --preset emoji64; not trained yet",
    "muse-632m": "611 M parameters; beside the 4,762 M of a frozen T5-XXL, as in the paper; 1.5 M steps of 512, for a "
    "TPU slice",
    "muse-3b": "3,235 M parameters; beside the 4,762 M of a frozen T5-XXL; 1.5 M steps of 512, for a TPU slice; the "
    "paper's FID on MS-COCO is 7.88",
    "muse-super": "765 M parameters; beside the 4,762 M of a frozen T5-XXL; 1 M steps of 512 on 4,096 tokens of images "
    "of 512 pixels, for a TPU slice",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: Any) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import Muse

    low = (facts.low_tokens, facts.low_codes) if facts.low_tokens else None
    return lambda key: Muse(
        facts.grid, facts.codes, facts.own_vocab, config.model, text_dim=facts.text_dim, low=low, key=key
    )


def bind(model: Any, row: Any, key: Any) -> tuple[Any, Any]:
    """The model with the low-resolution tokens of a row, and the row's text.

    Args:
        key: of dropout; None in sampling.
    """
    import jax.random as jr

    if model.low is None:
        return model, row
    low = model.low.tokens
    key = None if key is None else jr.fold_in(key, 1)
    return model.given(row[-low:], key=key, inference=key is None), row[:-low]


def loss(config: Config, facts: TokenFacts) -> Any:
    """Cross-entropy of the masked tokens of a batch."""
    return masked_tokens(config, "text", config.text_dropout, bind)


def draw(config: Config, facts: TokenFacts) -> Any:
    """Sampler of an image's tokens: (model, row, key=) -> ids.

    Raises:
        ValueError: an option is not one of the tokens.
    """
    from jax.tree_util import Partial

    return Partial(_drawn, draw_masked(config, facts))


def _drawn(sampler: Any, model: Any, row: Any, *, key: Any) -> Any:
    return sampler(*bind(model, row, None), key=key)


RECIPE = tokens_recipe("muse", "MUSE", Config, PRESETS, model, loss, draw, options="decode", conditions=STAGES)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
