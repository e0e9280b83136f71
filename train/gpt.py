"""Train a GPT (Radford et al. 2019) on text: characters, bytes, byte pairs, or token ids of your own.

  python -m train.gpt                                        # nanoGPT's small CPU model on tiny Shakespeare
  python -m train.gpt --preset cpu-char                      # ours of the same size, steps and tokens: lower loss
  python -m train.gpt --model.experts 8                      # 8 experts in place of each MLP, 2 for each token
  python -m train.gpt --preset nano-char                     # nanoGPT's GPU model
  python -m train.gpt --data.name ./books --data.tokenizer bpe-2048
  python -m train.gpt --preset gpt2 --data.name ./openwebtext --data.tokenizer ./gpt2
  python -m train.sample --run runs/gpt-nano-cpu --prompt "QUEEN" --chars 1000

Writes runs/gpt-PRESET: config.json, vocabulary.json, metrics.jsonl, samples/, checkpoints/, TensorBoard events,
model.safetensors, and summary.json with the validation loss in nats per token and its exponential, the perplexity. The
same command again resumes.

On two CPU cores nano-cpu takes 7 minutes to val_loss 1.91, cpu-char as long to 1.60.
"""

import dataclasses
import math
from typing import Any

from eqxgen.configs import GPT2_SIZES, GPTConfig

from ._errors import require
from .config.data import TextConfig
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.facts import TextFacts
from .tasks.language import LanguageConfig, language_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """Every flag starts from the preset's value."""

    model: GPTConfig = option(factory=GPTConfig, first=("dim", "depth", "heads", "context", "dropout"))
    """The transformer."""
    balance_weight: float = 0.01
    """Weight of the experts' balance loss, with --model.experts."""
    z_weight: float = 0.001
    """Weight of the router's z-loss, with --model.experts."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("balance_weight", "z_weight"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{name} must be at least 0 and finite: got {value}")


NO_AVERAGE = EmaConfig(decay=0.0)

# nanoGPT's optimisation: AdamW, decay of matrices alone, warm-up, cosine to a tenth of the peak, gradients clipped at
# 1, no average. Of a warm-up of w steps nanoGPT's step i has (i + 1) / (w + 1) of the peak, ours (i + 1) / w.
_NANO: dict[str, Any] = {
    "eval_every": 500,
    "optim": OptimConfig(
        learning_rate=1e-3, warmup=100, decay="cosine", final=0.1, beta1=0.9, beta2=0.99, weight_decay=0.1
    ),
    "ema": NO_AVERAGE,
}
_SMALL: dict[str, Any] = {"dim": 128, "depth": 4, "heads": 4, "context": 64, "bias": False, "mlp": "gelu"}
_LARGE: dict[str, Any] = {
    "steps": 600_000,
    "batch_size": 480,
    "precision": "bfloat16",
    "sample_every": 10_000,
    "eval_every": 1000,
    "checkpoint_every": 1000,
    "optim": OptimConfig(
        learning_rate=6e-4, warmup=2000, decay="cosine", final=0.1, beta1=0.9, beta2=0.95, weight_decay=0.1
    ),
    "ema": NO_AVERAGE,
    "data": TextConfig(name="./openwebtext", tokenizer="./gpt2", vocab=50257),
}

PRESETS = {
    # Its README's settings for a MacBook: validation loss 1.88 there over 20 batches, 1.907 over 200 and three seeds.
    "nano-cpu": Config(preset="nano-cpu", steps=2000, batch_size=12, model=GPTConfig(**_SMALL), **_NANO),
    # Blocks of the model's width. The learning rate is that of Adam, whose norms its updates have.
    "nano-shampoo": Config(
        preset="nano-shampoo",
        steps=2000,
        batch_size=12,
        model=GPTConfig(**_SMALL),
        **_NANO | {"optim": dataclasses.replace(_NANO["optim"], name="shampoo", block=128)},
    ),
    # Of no more parameters, and the same tokens: LLaMA's parts, and Muon for the matrices between the ends.
    "cpu-char": Config(
        preset="cpu-char",
        steps=2000,
        batch_size=12,
        eval_every=500,
        model=GPTConfig(**_SMALL | {"positions": "rotary", "norm": "rms", "mlp": "swiglu", "hidden_dim": 344}),
        optim=OptimConfig(name="muon", learning_rate=4e-3, warmup=100, decay="cosine", beta2=0.99, weight_decay=0.1),
        ema=EmaConfig(decay=0.99),
    ),
    # config/train_shakespeare_char.py: 1.4697 after 5,000 steps on an A100.
    "nano-char": Config(
        preset="nano-char",
        steps=5000,
        batch_size=64,
        model=GPTConfig(dim=384, depth=6, heads=6, context=256, dropout=0.2, bias=False, mlp="gelu"),
        **_NANO,
    ),
    # config/train_gpt2.py: 491,520 tokens a step; 2.85 on OpenWebText.
    **{
        name: Config(preset=name, model=dataclasses.replace(GPTConfig.gpt2(name), bias=False, remat=True), **_LARGE)
        for name in GPT2_SIZES
    },
    "llama": dataclasses.replace(
        Config(**_LARGE), preset="llama", batch_size=240, model=dataclasses.replace(GPTConfig.llama(), remat=True)
    ),
    "mla": dataclasses.replace(
        Config(**_LARGE), preset="mla", batch_size=240, model=dataclasses.replace(GPTConfig.mla(), remat=True)
    ),
}


ABOUT = {
    "nano-cpu": "0.80 M parameters; 7 minutes on 2 CPU cores; val_loss 1.91, as nanoGPT's",
    "nano-shampoo": "0.80 M parameters; 2,000 steps of 12; nano-cpu by Shampoo",
    "cpu-char": "0.80 M parameters; 7 minutes on 2 CPU cores; val_loss 1.60",
    "nano-char": "10.7 M parameters; 5,000 steps of 64, for a GPU; nanoGPT's val_loss is 1.4697",
    "gpt2": "124 M parameters; 600,000 steps of 480, for 8 GPUs; nanoGPT's val_loss on OpenWebText is 2.85",
    "gpt2-medium": "355 M parameters; 600,000 steps of 480",
    "gpt2-large": "774 M parameters; 600,000 steps of 480",
    "gpt2-xl": "1,557 M parameters; 600,000 steps of 480",
    "llama": "153 M parameters; 600,000 steps of 240; grouped queries, rotary positions, SwiGLU",
    "mla": "154 M parameters; 600,000 steps of 240; as llama, with a latent of 256 for keys and values",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: TextFacts) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import GPT

    return lambda key: GPT(facts.vocab, config.model, key=key)


def _router(config: Config) -> tuple[float, float] | None:
    """Weights of the losses of the experts' router."""
    return (config.balance_weight, config.z_weight) if config.model.experts else None


RECIPE = language_recipe(
    "gpt", "GPT", Config, PRESETS, model, context=lambda config: config.model.context, router=_router
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
