"""Train a BERT to give texts a class or a grade (Devlin et al. 2018, arXiv:1810.04805, section 4.1), on tasks of GLUE
(Wang et al. 2018, arXiv:1804.07461) and of Kim 2014 (arXiv:1408.5882).

  python -m train.glue                                          # six kinds of questions, TREC
  python -m train.glue --data.name mr --data.fold 3
  python -m train.glue --from runs/bert-tiny                    # after train.bert on the same task
  python -m train.glue --preset base --from ./bert-base-uncased --data.name cola
  python -m train.glue --data.name ./reviews.tsv --data.columns stars text
  python -m train.glue --data.name ./similar.tsv --data.columns score first second --data.grades
  python -m train.sample --run runs/glue-tiny --text "Who wrote it ?" "How far is the moon ?"

Tasks: trec, sst2, sst5, mr, subj, cr, mpqa, cola; mrpc, of pairs; vader_movie, vader_tweets, vader_amazon, vader_nyt,
of grades. Of a set without published parts a tenth is the test, by a hash of the text (--data.fold), and another the
development part. Training texts that are in a tested part too are left out, and a --from run that was trained on tested
texts is refused: MR, SST and vader_movie share their sentences. Writes runs/glue-PRESET with vocabulary.json,
classes.json and guesses in samples/; summary.json has the scores of the development part as eval_*, and those of the
test part as test_*: accuracy, f1 and mcc, or pearson and spearman. Grades are not clamped to their range.

Where we differ: the preset tiny takes the maximum of each feature over the tokens in place of the first token's state,
averages its weights, and masks words at random.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

from eqxgen.configs import BERTConfig

from ._errors import require
from .bert import TINY
from .config.base import TrainConfig
from .config.evals import DEV, TEST
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .config.tasks import TaskConfig
from .tasks.bert.labelled import labelled_recipe
from .tasks.bert.texts import check_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """Every flag starts from the preset's value."""

    EVALS = (DEV, TEST)

    data: TaskConfig = option(factory=TaskConfig)
    """The task."""
    new_head: bool = option(False, first=True)
    """With --from: leave its head out, and train one for the classes of the data."""
    word_dropout: float = 0.0
    """Probability with which a word of a training text is masked."""
    label_smoothing: float = 0.0
    """Weight of the uniform distribution in the target of classes."""
    model: BERTConfig = option(factory=BERTConfig, first=("dim", "depth", "heads", "context", "dropout"))
    """The transformer."""

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.label_smoothing < 1, f"label_smoothing must be in [0, 1): got {self.label_smoothing}")
        require(0 <= self.word_dropout < 1, f"word_dropout must be in [0, 1): got {self.word_dropout}")
        require(not self.new_head or self.start_from is not None, "new_head goes with --from, which was not given")
        require(self.model.context >= 4, f"model.context must be at least 4: got {self.model.context}")

    def check_given(self, given: Collection[str]) -> None:
        check_tokenizer(self, given)


# Appendix A.3: batches of 32, three epochs at 2e-5, a tenth of them as warm-up. Three epochs of CoLA are 727 steps.
_PUBLISHED: dict[str, Any] = {
    "steps": 727,
    "batch_size": 32,
    "sample_every": 0,
    "data": TaskConfig(name="cola", tokenizer="wordpiece-30522"),
    "optim": OptimConfig(learning_rate=2e-5, warmup=73, decay="linear", beta2=0.999, epsilon=1e-6, weight_decay=0.01),
    "ema": EmaConfig(decay=0.0),
}

PRESETS = {
    "tiny": Config(
        preset="tiny",
        steps=1000,
        batch_size=64,
        sample_every=0,
        word_dropout=0.2,
        label_smoothing=0.1,
        model=dataclasses.replace(TINY, dropout=0.3, pooling="max"),
        optim=OptimConfig(learning_rate=1e-3, warmup=100, beta2=0.99, weight_decay=0.1),
        ema=EmaConfig(decay=0.99),
    ),
    "base": Config(preset="base", model=BERTConfig.base(), **_PUBLISHED),
    "large": Config(preset="large", model=BERTConfig.large(), **_PUBLISHED),
}


ABOUT = {
    "tiny": "0.93 M parameters; 1,000 steps of 64 texts; 0.908 on TREC --from train.bert, by bench.models.text_scores",
    "base": "109 M parameters; --from the folder of a BERT: 3 epochs of 32, for a GPU; the paper's MCC is 0.521",
    "large": "335 M parameters; --from the folder of a BERT: 3 epochs of 32, for a GPU; the paper's MCC is 0.605",
}
"""Size, time and the number to expect of each preset, where it was measured."""


RECIPE = labelled_recipe(Config, PRESETS)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
