"""Train a model that matches images and texts: CLIP (arXiv:2103.00020) or SigLIP (arXiv:2303.15343).

  python -m train.clip --data.root DATA                          # MNIST, with captions such as "a seven", "the digit 7"
  python -m train.clip --preset captioned_digits                 # scenes of digits, with held-out combinations
  python -m train.clip --preset mnist --objective siglip
  python -m train.clip --preset clip-vit-b32 --dry-run
  python -m train.clip --preset clip-vit-b32 --data.name ./pictures --text-tokenizer ./clip --from ./clip
  python -m train.search --run runs/clip-mnist --text "a seven" --data mnist

Objectives: infonce, the cross-entropy of each text among those of the batch and of each image among its images, with a
scale of at most 100 after each update; siglip, a sigmoid for each pair, whose bias starts at ln(p / (1 - p)) with p = 1
/ batch. The negatives are those of the whole batch, over all devices; of equal captions none is a negative of another.
Captions are those of the data, or --templates filled with the names of classes. Writes runs/clip-PRESET with samples/,
the held-out images that are nearest to texts; summary.json has zero-shot accuracy, recall of retrieval, and of
captioned_digits the exact match of the scenes that the model chooses among all captions, cell by cell.

Where we differ: --accumulate is refused, as micro-batches would have other negatives.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from eqxgen.configs import CLIPConfig, ConvNetConfig, TextTowerConfig, ViTConfig

from ._errors import require
from .config.data import AugmentConfig, DataConfig
from .config.evals import CHOICES, RETRIEVAL, ZERO_SHOT
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.captions import check_text_tokenizer
from .tasks.clip.recipe import matching_recipe
from .tasks.facts import PairFacts
from .tasks.images import ImageConfig

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (ZERO_SHOT, RETRIEVAL, CHOICES)

    objective: Literal["infonce", "siglip"] = option("infonce", first=True)
    """Loss: infonce, of a softmax over the batch, or siglip, of a sigmoid for each pair."""
    captions: Literal["data", "classes"] = option("data", first=True)
    """Texts of the images: data, their captions; classes, --templates with the names of their classes."""
    templates: tuple[str, ...] = option(("a photo of a {}",), first=True)
    """Captions of images with classes, {} in place of the name, of a digit the word or the figure. Training draws one;
    zero-shot classification takes the mean of all."""
    text_tokenizer: str = option("chars", first=True)
    """chars: the characters of the texts; bytes; bpe-2000: as many byte pairs, learnt from them; or a path: the folder
    of a published CLIP or SigLIP, a tokenizer.json, a folder with GPT-2's files, a vocabulary.json of another run."""
    normalise: Literal["none", "imagenet", "clip"] = "none"
    """Mean and deviation of the pixels that a published model expects; none: pixels in [-1, 1], as SigLIP's."""
    backbone: Literal["vit", "conv"] = option("vit", first=True)
    """Image tower: vit, or conv for small images."""
    dim: int = option(512, first=True)
    """Width of the joint space."""
    vit: ViTConfig = option(factory=ViTConfig, first=("dim", "depth", "heads", "patch"))
    """The image tower."""
    conv: ConvNetConfig = option(factory=ConvNetConfig)
    """The image tower of small images."""
    text: TextTowerConfig = option(factory=TextTowerConfig, first=("dim", "depth", "context"))
    """The text tower."""

    def __post_init__(self):
        super().__post_init__()
        require(self.dim >= 1, f"dim must be at least 1: got {self.dim}")
        siglip = self.objective == "siglip"
        require(self.batch_size >= 2, f"batch_size must be at least 2, as there are negatives: got {self.batch_size}")
        require(
            self.accumulate == 1,
            f"accumulate must be 1, as micro-batches would have fewer negatives than one batch: got {self.accumulate}",
        )
        require(
            not (siglip and self.backbone == "vit") or self.dim == self.vit.dim,
            f"dim must be vit.dim={self.vit.dim} with objective siglip, which does not project it: got {self.dim}",
        )
        wrong = [template for template in self.templates if template.count("{}") != 1]
        require(not wrong, f"templates must have {{}} once each, for the name: got {(wrong or [''])[0]!r}")
        needed = self.captions == "data" or self.templates
        require(bool(needed), 'templates must be given with captions classes, as in "a photo of a {}"')
        check_text_tokenizer(self.text_tokenizer)

    @property
    def unread(self) -> Mapping[str, str]:
        towers = {f"{name}.": f"--backbone {name}" for name in ("vit", "conv") if name != self.backbone}
        return towers | ({"templates": "--captions classes"} if self.captions == "data" else {})


DIGITS = ("a {}", "the digit {}", "the number {}", "a handwritten {}", "{}")


def _small(dim: int, depth: int, context: int) -> TextTowerConfig:
    return TextTowerConfig(
        dim=dim, depth=depth, heads=dim // 32, hidden_dim=2 * dim, context=context, activation="gelu"
    )


def _published(sizes: CLIPConfig, context: int, vocab: int, **changes: Any) -> Config:
    """Sizes of a published model on a folder of pictures with captions; its vocabulary has the end as its last id."""
    assert isinstance(sizes.vision, ViTConfig)
    values: dict[str, Any] = {
        "precision": "bfloat16",
        "text_tokenizer": f"bpe-{vocab - 1}",
        "log_every": 100,
        "sample_every": 5000,
        "checkpoint_every": 2000,
        "ema": EmaConfig(decay=0.0),
        "dim": sizes.dim,
        "vit": dataclasses.replace(sizes.vision, remat="full"),
        "text": sizes.text,
    }
    augment = AugmentConfig(crop="resized", smallest=0.9)
    return Config(data=DataConfig(name="./captioned", image_size=224, augment=augment), **values | changes)


PRESETS = {
    "mnist": Config(
        steps=2000,
        batch_size=64,
        captions="classes",
        templates=DIGITS,
        text_tokenizer="bpe-320",
        backbone="conv",
        dim=64,
        data=DataConfig(name="mnist", augment=AugmentConfig(crop="padded", pad=2, padding="zeros")),
        conv=ConvNetConfig(width=16),
        text=_small(64, 2, 8),
        optim=OptimConfig(learning_rate=3e-3, warmup=100, beta2=0.98, weight_decay=0.05),
        ema=EmaConfig(decay=0.99),
    ),
    "captioned_digits": Config(
        steps=1400,
        batch_size=512,
        text_tokenizer="bpe-369",
        dim=96,
        data=DataConfig(name="captioned_digits"),
        vit=ViTConfig(patch=8, dim=96, depth=2, heads=3, hidden_dim=192),
        text=_small(64, 2, 12),
        optim=OptimConfig(name="muon", learning_rate=5e-3, warmup=50, beta2=0.98, weight_decay=0.1),
        ema=EmaConfig(decay=0.99),
    ),
    # Noto's drawings to train on, Twemoji's of the same emoji held out.
    "emoji64": Config(
        steps=2000,
        batch_size=128,
        text_tokenizer="bpe-4000",
        backbone="conv",
        dim=128,
        data=DataConfig(
            name="emoji64",
            augment=AugmentConfig(crop="resized", smallest=0.6, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
        ),
        conv=ConvNetConfig(width=16, levels=4, features=256),
        text=_small(64, 2, 48),
        optim=OptimConfig(learning_rate=2e-3, warmup=100, beta2=0.98, weight_decay=0.2),
        ema=EmaConfig(decay=0.99),
    ),
    # Table 18 and 19 of the paper: 32 epochs of 400 M pairs, batches of 32,768.
    "clip-vit-b32": _published(
        CLIPConfig(),
        77,
        49_408,
        steps=32 * 400_000_000 // 32_768,
        batch_size=32_768,
        optim=OptimConfig(learning_rate=5e-4, warmup=2000, beta2=0.98, epsilon=1e-6, weight_decay=0.2),
        normalise="clip",
    ),
    # Section 4: batches of 32,768 on 9 G pairs, Adafactor in bfloat16, decay 1e-4 that is not multiplied by the rate.
    "siglip-b16": _published(
        CLIPConfig.siglip(),
        64,
        32_000,
        objective="siglip",
        steps=9_000_000_000 // 32_768,
        batch_size=32_768,
        optim=OptimConfig(learning_rate=1e-3, warmup=10_000, beta2=0.95, weight_decay=0.1),
    ),
}
PRESETS = {name: dataclasses.replace(preset, preset=name) for name, preset in PRESETS.items()}

ABOUT = {
    "mnist": "0.17 M parameters; 2,000 steps of 64, 4 minutes of CPU time; zero_shot_accuracy 0.989",
    "captioned_digits": "0.28 M parameters; 8 minutes of one CPU core beside other work; cells_held_out 0.972",
    "emoji64": "1.6 M parameters; 2,000 steps of 128",
    "clip-vit-b32": "151 M parameters; 32 epochs of 400 M pairs, for a TPU slice; the paper's 0.632 on ImageNet",
    "siglip-b16": "203 M parameters; 9 G pairs, for a TPU slice",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: PairFacts) -> Any:
    """Initialiser of the released model."""
    from .tasks.clip import towers

    return lambda key: towers.released(config, towers.make_net(config, facts, key))


def program(config: Config, facts: PairFacts) -> "Program":
    """Both towers and their loss."""
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.contrastive import image_text_nce, sigmoid_pairs

    from .engine.recipe import Context, Program, Sums
    from .tasks.classify.nets import NORMALISED, normalised
    from .tasks.clip import towers

    def loss(net: Any, batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        pixels, weight = batch["image"], batch["weight"]
        if config.normalise != "none":
            pixels = normalised(pixels, *NORMALISED[config.normalise])
        images = jax.vmap(lambda image, key: net.image_features(image, key=key))(pixels, keys)
        texts = jax.vmap(net.text_features)(batch["text"])
        options = {"group": batch["group"], "weight": weight, "axes": context.axes}
        if config.objective == "siglip":
            losses = sigmoid_pairs(images, texts, net.logit_scale, net.logit_bias, **options)
        else:
            losses = image_text_nce(images, texts, net.logit_scale, **options)
        scale = jnp.exp(net.logit_scale.astype(jnp.float32))
        return Sums(weight @ losses, jnp.sum(weight), {"scale": scale * jnp.sum(weight)})

    fixed = ("vision.positions",) if config.backbone == "vit" and config.vit.positions == "sincos" else ()
    return Program.of(
        lambda key: towers.make_net(config, facts, key),
        loss,
        {"image": (facts.shape, "float32"), "text": ((facts.text,), "int32"), "group": ((), "int32")},
        constrained=towers.clamped if config.objective == "infonce" else lambda net: net,
        fixed=fixed,
    )


RECIPE = matching_recipe(Config, PRESETS, model, program)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
