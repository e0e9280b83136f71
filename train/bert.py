"""Train BERT (Devlin et al. 2018, arXiv:1810.04805) to fill masked words.

  python -m train.bert                                          # TREC's questions
  python -m train.bert --data.name mr --steps 4000
  python -m train.bert --preset base --data.name ./books --data.tokenizer wordpiece-30522 --data.packed
  python -m train.bert --preset base --from ./bert-base-uncased --data.name ./books
  python -m train.sample --run runs/bert-tiny --text "What is the [MASK] of France ?"
  python -m train.glue --from runs/bert-tiny                    # a classifier of the questions

Of each text 15 % of the tokens are chosen anew in every epoch, by the seed and the step alone: 80 % of them become
[MASK], 10 % another token, 10 % stay (section 3.1). The loss is that of the chosen tokens, whose logits alone are
computed. A row is a line, a sentence or a pair; with --data.packed rows are full and go across lines. Padding is masked
out. Writes runs/bert-PRESET with vocabulary.json and samples/; summary.json has masked_loss and masked_accuracy of
held-out texts. A task's test texts are not read.

Where we differ: no prediction of the next sentence (as Liu et al. 2019, arXiv:1907.11692), a vocabulary that is learnt
from the text; in the preset tiny averaged weights, and 30 % of the tokens (Wettig et al. 2022, arXiv:2202.08005).
"""

import dataclasses
from collections.abc import Collection
from typing import Any

from eqxgen.configs import BERTConfig

from ._errors import require
from .config.base import TrainConfig
from .config.evals import MASKED
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .config.tasks import MaskedTextConfig
from .tasks.bert.masked import masked_recipe
from .tasks.bert.texts import check_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """Every flag starts from the preset's value."""

    EVALS = (MASKED,)

    data: MaskedTextConfig = option(factory=MaskedTextConfig)
    """The texts."""
    masked: float = option(0.15, first=True)
    """Fraction of the tokens of a text that are chosen."""
    whole_words: bool = option(False, first=True)
    """Choose words with all their pieces."""
    model: BERTConfig = option(factory=BERTConfig, first=("dim", "depth", "heads", "context", "dropout"))
    """The transformer."""

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.masked < 1, f"masked must be between 0 and 1: got {self.masked}")
        require(self.model.context >= 4, f"model.context must be at least 4: got {self.model.context}")

    def check_given(self, given: Collection[str]) -> None:
        check_tokenizer(self, given)


TINY = BERTConfig(dim=96, depth=2, heads=4, hidden_dim=192, context=48, attention_dropout=0.0, pooling="mean")
"""Sizes of the presets of train.glue too, which start from it."""

_LARGE: dict[str, Any] = {
    "steps": 1_000_000,
    "batch_size": 256,
    "precision": "bfloat16",
    "sample_every": 50_000,
    "checkpoint_every": 5000,
    "optim": OptimConfig(
        learning_rate=1e-4, warmup=10_000, decay="linear", beta2=0.999, epsilon=1e-6, weight_decay=0.01
    ),
    "ema": EmaConfig(decay=0.0),
    "data": MaskedTextConfig(name="./books", tokenizer="wordpiece-30522", packed=True),
}

PRESETS = {
    "tiny": Config(
        preset="tiny",
        steps=3000,
        batch_size=64,
        masked=0.3,
        model=TINY,
        optim=OptimConfig(name="muon", learning_rate=5e-3, warmup=200, beta2=0.99, weight_decay=0.05),
        ema=EmaConfig(decay=0.99),
    ),
    # Section A.2: batches of 256 rows of 512 tokens, a million steps.
    "base": Config(preset="base", model=dataclasses.replace(BERTConfig.base(), remat=True), **_LARGE),
    "large": Config(preset="large", model=dataclasses.replace(BERTConfig.large(), remat=True), **_LARGE),
}


ABOUT = {
    "tiny": "0.94 M parameters; 3,000 steps of 64 texts; masked_accuracy 0.535 on TREC, by bench.models.text_scores",
    "base": "110 M parameters; 1,000,000 steps of 256 rows of 512 tokens, for TPUs or GPUs",
    "large": "335 M parameters; 1,000,000 steps of 256 rows of 512 tokens, for TPUs or GPUs",
}
"""Size, time and the number to expect of each preset, where it was measured."""


RECIPE = masked_recipe(Config, PRESETS)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
