"""Train a class-conditional autoregressive model (LlamaGen, arXiv:2406.06525) on image tokens.

  python -m train.ar                                         # digits, 8x8 pixels as tokens
  python -m train.vqgan --preset mnist                       # a tokenizer, and
  python -m train.ar --preset mnist                          # a model of its tokens
  python -m train.ar --shuffle-until 0.5 --shuffle-end 0.75 --model.targets     # random orders at first (RAR)
  python -m train.ar --preset llamagen-b --dry-run           # the paper's: 12 layers, 768 wide, batch 256
  python -m train.vqgan --preset digits-scales               # a tokenizer of several scales, and
  python -m train.ar --preset digits-scales                  # a model that predicts a whole scale at once (VAR)

Writes runs/ar-PRESET: config.json, metrics.jsonl, samples/, checkpoints/, TensorBoard events, model.safetensors, and
summary.json with the accuracy of a classifier on samples. The same command again resumes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from eqxgen.configs import ImageARConfig, ImageSampling, VARConfig

from ._errors import require
from .config.data import AugmentConfig, DataConfig
from .config.optim import OptimConfig
from .config.options import option
from .tasks.encoded.by_scale import SCALED, check_scales, draw_by_scale
from .tasks.facts import TokenFacts
from .tasks.image_tokens import TokensConfig, tokens_recipe
from .tasks.one_by_one import draw_one_by_one, one_by_one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TokensConfig):
    """Every flag starts from the preset's value."""

    order: Literal["rows", "scales"] = option("rows", first=True)
    """rows: one token after another; scales: all tokens of a scale at once (VAR, arXiv:2404.02905), of a tokenizer of
    train.vqgan --quantizer multiscale."""
    label_dropout: float = 0.1
    """Share of the examples whose label training hides, for guidance."""
    shuffle_until: float = 0.0
    """Share of the steps whose examples are all in a random order (RAR, arXiv:2411.00776)."""
    shuffle_end: float = 0.0
    """Share of the steps after which all are row by row; in between fewer and fewer are not. 0: always row by row."""
    model: ImageARConfig = option(factory=ImageARConfig, first=("dim", "depth", "heads"))
    """The transformer of --order rows."""
    var: VARConfig = option(factory=VARConfig)
    """The transformer of --order scales."""
    decode: ImageSampling = option(factory=ImageSampling, first=("guidance", "top_k"))
    """Sampling."""

    @property
    def unread(self) -> Mapping[str, str]:
        others = ("model.", "shuffle_until", "shuffle_end") if self.order == "scales" else ("var.",)
        return {**super().unread, **dict.fromkeys(others, f"--order {'rows' if self.order == 'scales' else 'scales'}")}

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.label_dropout < 1, f"label_dropout must be in [0, 1): got {self.label_dropout}")
        until, end = self.shuffle_until, self.shuffle_end
        require(
            0 <= until <= end <= 1,
            f"shuffle_until must be at least 0 and at most shuffle_end, and that at most 1: got {until} and {end}",
        )
        require(end == 0 or self.model.targets, f"shuffle_end must be 0 without model.targets: got {end}")
        require(end == 0 or self.order == "rows", f"shuffle_end must be 0 with order scales: got {end}")
        sizes = "var" if self.order == "scales" else "model"
        hidden = self.label_dropout == 0 or getattr(self, sizes).null
        require(hidden, f"label_dropout must be 0 with {sizes}.null=false: got {self.label_dropout}")


def _preset(name: str, dim: int, depth: int, flip: bool = False, dropout: float = 0.0, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "tokenizer": f"runs/vqgan-{name}",
        "batch_size": 64,
        "data": DataConfig(name=name.removesuffix("-scales"), augment=AugmentConfig(flip=flip)),
        "optim": OptimConfig(name="muon", learning_rate=1e-2, warmup=50),
        "model": ImageARConfig(dim=dim, depth=depth, heads=dim // 32, hidden_dim=8 * dim // 3, dropout=dropout),
        "decode": ImageSampling(guidance=1.5),
    }
    return Config(preset=name, **values | changes)


def _llamagen(name: str) -> Config:
    """A size of the paper with its optimisation (section 3.1): AdamW 1e-4 (0.9, 0.95), decay 0.05, 300 epochs."""
    return Config(
        preset=f"llamagen-{name}",
        steps=1_500_000,
        batch_size=256,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        tokenizer="runs/vqgan-imagenet256",
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=OptimConfig(learning_rate=1e-4, warmup=5000, decay="constant", beta2=0.95, weight_decay=0.05),
        model=dataclasses.replace(ImageARConfig.llamagen(name), remat=True),
        decode=ImageSampling(guidance=2.0),
    )


PRESETS = {
    "digits": _preset("digits", 96, 4, steps=700, tokenizer="pixels", dropout=0.1),
    "mnist": _preset("mnist", 128, 4, steps=1000),
    "digits-scales": _preset(
        "digits-scales",
        96,
        4,
        steps=500,
        optim=OptimConfig(learning_rate=3e-3, warmup=50),
        order="scales",
        var=VARConfig(dim=96, depth=4, heads=3, dropout=0.1),
        decode=ImageSampling(guidance=1.5, guidance_ramp=1.0),
    ),
    "llamagen-b": _llamagen("b"),
    "llamagen-l": _llamagen("l"),
    "llamagen-xl": _llamagen("xl"),
}

ABOUT = {
    "digits": "0.45 M parameters; 6 minutes of one CPU core; sample_accuracy 0.989, recall_judge 0.79",
    "mnist": "0.8 M parameters; 16 minutes of one CPU core after train.vqgan --preset mnist; sample_accuracy 0.990",
    "digits-scales": "0.70 M parameters; 4 minutes of CPU time after train.vqgan --preset digits-scales; "
    "sample_accuracy 0.992",
    "llamagen-b": "87 M parameters; 1.5 M steps of 256, for a TPU slice; the paper's FID, with 16,384 codes, is 5.46",
    "llamagen-l": "311 M parameters; 1.5 M steps of 256, for a TPU slice; the paper's FID, with 16,384 codes, is 3.80",
    "llamagen-xl": "735 M parameters; 1.5 M steps of 256, for a TPU slice; the paper's FID, with 16,384 codes, is 3.39",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: TokenFacts) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import VAR, ImageAR

    if config.order == "scales":
        check_scales(config, facts)
        return lambda key: VAR(facts.scales, facts.codes, facts.code_dim, facts.classes, config.var, key=key)
    return lambda key: ImageAR(facts.grid, facts.codes, facts.classes, config.model, key=key)


def loss(config: Config, facts: TokenFacts) -> Any:
    """Cross-entropy of the tokens of a batch."""
    return one_by_one(facts, "label", config.label_dropout)


def numbers(config: Config, progress: float) -> dict[str, float]:
    """Share of the examples of a step that are in a random order."""
    until, end = config.shuffle_until, config.shuffle_end
    if end == 0:
        return {}
    return {"shuffled": 1.0 if progress < until else max(0.0, 1 - (progress - until) / max(end - until, 1e-9))}


def draw(config: Config, facts: TokenFacts) -> Any:
    """Sampler of an image's tokens, in the order of the config."""
    return draw_by_scale(config, facts) if config.order == "scales" else draw_one_by_one(config, facts)


RECIPE = tokens_recipe(
    "ar",
    "ImageAR",
    Config,
    PRESETS,
    model,
    loss,
    draw,
    options="decode",
    numbers=numbers,
    conditions=SCALED,
    fits=check_scales,
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
