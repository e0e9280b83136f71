"""Train a T5 (Raffel et al. 2020, arXiv:1910.10683) on pairs of texts, or on a text whose spans it restores.

  python -m train.t5                                         # CMUdict: the phonemes of a spelling
  python -m train.sample --run runs/t5-cmudict --text hello "o'brien" --beams 5
  python -m train.t5 --data.name ./pairs.tsv --data.target-tokenizer chars     # a source, a tab, a target
  python -m train.t5 --data.source ./train.de --data.target ./train.en --data.tokenizer bpe-8000
  python -m train.t5 --data.name tiny_shakespeare --data.tokenizer bytes --run-dir runs/spans     # span corruption
  python -m train.t5 --preset t5-small --from ./t5-v1_1-small --data.tokenizer ./t5-v1_1-small --data.name ./pairs.tsv
  python -m train.t5 --preset t5-base --dry-run

--data.tokenizer is chars, words, bytes, bpe-SIZE, a vocabulary.json of another run or the folder of a published T5.
Writes runs/t5-PRESET: config.json, vocabulary.json, metrics.jsonl, samples/, checkpoints/, TensorBoard events,
model.safetensors, and summary.json. Of CMUdict it has the phoneme error (edits per phoneme of the nearest
pronunciation) and the word error of held-out words without a near-copy in training. The same command again resumes.
"""

import dataclasses
from typing import Any

from eqxgen.configs import T5Config

from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .config.text_pairs import TextPairConfig
from .tasks.facts import TextPairFacts
from .tasks.seq2seq.recipe import PairsConfig, pairs_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PairsConfig):
    """Every flag starts from the preset's value."""

    model: T5Config = option(factory=T5Config, first=("dim", "depth", "heads", "context", "dropout"))
    """The transformer."""


def _published(name: str) -> Config:
    """A size of version 1.1 with its pretraining: Adafactor, inverse square root after 10,000 steps, no dropout."""
    return Config(
        preset=f"t5-{name}",
        steps=1_000_000,
        batch_size=2048,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        z_loss=1e-4,
        data=TextPairConfig(name="./c4", tokenizer="./t5", vocab=32128, source_length=512, target_length=114),
        optim=OptimConfig(name="adafactor", learning_rate=1e-2, warmup=10_000, decay="inverse_sqrt"),
        ema=EmaConfig(decay=0.0),
        model=dataclasses.replace(T5Config.v1_1(name), dropout=0.0, remat=True),
    )


PRESETS = {
    "cmudict": Config(
        preset="cmudict",
        steps=5500,
        batch_size=64,
        eval_samples=10_000,
        beams=5,
        data=TextPairConfig(name="cmudict", target_tokenizer="words", source_length=14, target_length=14, long="drop"),
        optim=OptimConfig(name="muon", learning_rate=5e-3, warmup=100, decay="cosine", beta2=0.99, weight_decay=0.1),
        ema=EmaConfig(decay=0.99),
        model=T5Config(
            dim=128,
            depth=3,
            heads=4,
            head_dim=32,
            hidden_dim=384,
            context=32,
            dropout=0.0,
            gated=True,
            activation="gelu_tanh",
            tied=False,
            buckets=16,
            max_distance=32,
        ),
    ),
    **{f"t5-{name}": _published(name) for name in ("small", "base")},
}

ABOUT = {
    "cmudict": "1.5 M parameters; 36 minutes of one CPU core beside other work; phoneme_error 0.100",
    "t5-small": "77 M parameters; version 1.1; 1,000,000 steps of 2,048, for a TPU slice",
    "t5-base": "248 M parameters; version 1.1; 1,000,000 steps of 2,048, for a TPU slice",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: TextPairFacts) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import T5

    return lambda key: T5(facts.vocab, config.model, key=key)


RECIPE = pairs_recipe("t5", "T5", Config, PRESETS, model)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
