"""Train a recurrent language model on text: the char-RNN (Graves 2013, arXiv:1308.0850), of LSTM, GRU or plain cells,
or Mamba-2 (Dao and Gu 2024, arXiv:2405.21060).

  python -m train.rnn                                        # an LSTM of two layers on tiny Shakespeare
  python -m train.rnn --preset gru
  python -m train.rnn --preset mamba2                        # four blocks of Mamba-2
  python -m train.sample --run runs/rnn-lstm --prompt "QUEEN" --chars 1000

Writes runs/rnn-PRESET, as `train.gpt` does. The state starts from zeros at each window; in sampling it goes on without
end.
"""

import dataclasses
from typing import Any

from eqxgen.configs import RNNConfig

from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.facts import TextFacts
from .tasks.language import LanguageConfig, language_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """Every flag starts from the preset's value."""

    context: int = option(64, first=True)
    """Tokens of a window, over which gradients flow."""
    model: RNNConfig = option(factory=RNNConfig, first=("cell", "dim", "depth"))
    """The layers."""


def _preset(cell: str) -> Config:
    optim = OptimConfig(learning_rate=3e-3, warmup=100, decay="cosine", final=0.1, beta2=0.99, weight_decay=0.01)
    sizes: dict[str, Any] = {"steps": 2000, "batch_size": 32, "eval_every": 500, "context": 64}
    return Config(preset=cell, model=RNNConfig(cell=cell), optim=optim, ema=EmaConfig(decay=0.99), **sizes)


PRESETS = {
    **{cell: _preset(cell) for cell in ("lstm", "gru")},
    "mamba2": dataclasses.replace(_preset("mamba2"), model=RNNConfig(cell="mamba2", dim=192, depth=4)),
}


ABOUT = {
    "lstm": "1.08 M parameters; 2,000 steps of 32",
    "gru": "0.82 M parameters; 2,000 steps of 32",
    "mamba2": "1.03 M parameters; 2,000 steps of 32",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: TextFacts) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import RNN

    return lambda key: RNN(facts.vocab, config.model, key=key)


RECIPE = language_recipe(
    "rnn", "Recurrent language model", Config, PRESETS, model, context=lambda config: config.context, recurrent=True
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
