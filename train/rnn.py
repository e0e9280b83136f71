"""Train a recurrent language model on text: the char-RNN (Graves 2013, arXiv:1308.0850), of LSTM, GRU or plain cells.

  python -m train.rnn                                        # an LSTM of two layers on tiny Shakespeare
  python -m train.rnn --preset gru
  python -m train.sample --run runs/rnn-lstm --prompt "QUEEN" --chars 1000

Writes runs/rnn-PRESET, as `train.gpt` does. The state starts from zeros at each window; in sampling it goes on without
end.
"""

import dataclasses
from pathlib import Path
from typing import Any

from eqxgen.configs import RNNConfig

from .config.base import from_dict, parse
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .engine.command import run
from .tasks import language
from .tasks.language import LanguageConfig
from .tasks.sampling import TextSample, write_texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """Every flag starts from the preset's value."""

    context: int = option(64, first=True)
    """Tokens of a window, over which gradients flow."""
    model: RNNConfig = option(factory=RNNConfig, first=("cell", "dim", "depth"))
    """The layers."""


SAMPLE = TextSample


def _preset(cell: str) -> Config:
    optim = OptimConfig(learning_rate=3e-3, warmup=100, decay="cosine", final=0.1, beta2=0.99, weight_decay=0.01)
    sizes: dict[str, Any] = {"steps": 2000, "batch_size": 32, "eval_every": 500, "context": 64}
    return Config(preset=cell, model=RNNConfig(cell=cell), optim=optim, ema=EmaConfig(decay=0.99), **sizes)


PRESETS = {cell: _preset(cell) for cell in ("lstm", "gru")}


ABOUT = {
    "lstm": "1.08 M parameters; 2,000 steps of 32",
    "gru": "0.82 M parameters; 2,000 steps of 32",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def build(record: dict[str, Any]) -> Any:
    """The model of a run's config.json, with weights of no meaning yet."""
    import jax.random as jr

    from eqxgen.models.rnn import RNN

    return RNN(record["facts"]["vocab"], RNNConfig(**record["config"]["model"]), key=jr.key(0))


def maker(config: Config, vocab: int) -> Any:
    """What makes the model from a key."""
    from eqxgen.models.rnn import RNN

    return lambda key: RNN(vocab, config.model, key=key)


def sample(folder: Path, record: dict[str, Any], options: TextSample) -> int:
    """Writes text of a run, for `train.sample`; gives the exit status."""
    from_dict(Config, record["config"], folder / "config.json")
    return write_texts(folder, record, options, build)


def task(config: Config) -> Any:
    """The program with its text, samples and evaluation."""
    return language.task("rnn", config, config.context, lambda vocab: maker(config, vocab))


def main(config: Config) -> int:
    return language.main("rnn", config, config.context, lambda vocab: maker(config, vocab))


if __name__ == "__main__":
    run(lambda: main(parse("rnn", Config, PRESETS, __doc__ or "", about=ABOUT)))
