"""Train MAGE (arXiv:2211.09117) on image tokens: one net that draws images and gives features.

  python -m train.mage                                       # digits, 8x8 pixels as tokens
  python -m train.vqgan --preset mnist                       # a tokenizer, and
  python -m train.mage --preset mnist                        # a model of its tokens
  python -m train.mage --no-conditional --decode.guidance 1  # without labels, as the paper's
  python -m train.mage --contrast 0.1 --model.projection 64 --shift 1     # MAGE-C
  python -m train.classify --backbone mage --from runs/mage-digits        # a classifier on its encoder
  python -m train.evaluate --run runs/mage-digits --evals probe fine_tuning
  python -m train.mage --preset imagenet256 --dry-run        # the paper's ViT-B: batch 4096, 1,600 epochs

Writes runs/mage-PRESET: config.json, metrics.jsonl, samples/, checkpoints/, TensorBoard events, model.safetensors, and
summary.json with the accuracy of a classifier on samples, and of a linear probe of the encoder's features on held-out
images. The same command again resumes.
"""

import dataclasses
import math
from typing import Any

from eqxgen.configs import MAGEConfig, MaskedDecoding, MaskRatio

from ._errors import UsageError, require
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, FINE_TUNING, PROBE, TRAINED_ON_SAMPLES
from .config.optim import OptimConfig
from .config.options import option
from .engine.recipes import Finished
from .tasks.facts import TokenFacts
from .tasks.image_tokens import TokensConfig, tokens_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TokensConfig):
    """Every flag starts from the preset's value."""

    EVALS = (*TokensConfig.EVALS, PROBE, FINE_TUNING)

    conditional: bool = option(True, first=True)
    """Labels. Without them the model draws images of no class, as the paper's."""
    label_smoothing: float = 0.1
    """Weight of the uniform distribution in the targets."""
    label_dropout: float = 0.5
    """Share of the examples whose label training hides, for guidance and for features without labels."""
    contrast: float = 0.0
    """Weight of the contrastive loss of two views of each image, MAGE-C: 0.1 in the paper; 0: MAGE."""
    temperature: float = 0.2
    """Divides the similarities of the contrastive loss."""
    shift: int = 0
    """Largest move of a view in places of the grid of tokens, in the contrastive loss."""
    probe_examples: int = option(50_000, free=True)
    """Training images of the linear probe and of fine-tuning, evenly over the part, where there are more."""
    mask: MaskRatio = option(factory=MaskRatio)
    """Share of the tokens that training masks."""
    model: MAGEConfig = option(factory=MAGEConfig, first=("dim", "depth", "heads"))
    """The transformers."""
    decode: MaskedDecoding = option(factory=MaskedDecoding, first=("steps", "guidance"))
    """Sampling."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("label_smoothing", "label_dropout"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1): got {getattr(self, name)}")
        require(0 <= self.contrast < math.inf, f"contrast must be at least 0 and finite: got {self.contrast}")
        require(0 < self.temperature < math.inf, f"temperature must be positive and finite: got {self.temperature}")
        require(self.probe_examples >= 2, f"probe_examples must be at least 2: got {self.probe_examples}")
        require(self.shift >= 0, f"shift must be at least 0: got {self.shift}")
        require(
            (self.contrast > 0) == (self.model.projection > 0),
            "contrast goes with model.projection, both 0 or both above: got "
            f"{self.contrast} and {self.model.projection}",
        )
        require(self.contrast > 0 or not self.shift, f"shift must be 0 without contrast: got {self.shift}")
        require(
            not self.contrast or self.accumulate == 1,
            f"accumulate must be 1 with contrast, whose negatives are one batch: got {self.accumulate}",
        )


def _preset(name: str, dim: int, depth: int, decode: MaskedDecoding, **changes: Any) -> Config:
    sizes: dict[str, Any] = {"heads": dim // 32, "hidden_dim": 4 * dim}
    sizes |= {f"decoder_{key}": value for key, value in (sizes | {"dim": dim, "depth": 2}).items()}
    values: dict[str, Any] = {
        "tokenizer": f"runs/vqgan-{name}",
        "batch_size": 64,
        "label_dropout": 0.2,
        # Nearer to the start of generation, where all is masked, than the paper's.
        "mask": MaskRatio(mean=0.8, deviation=0.25),
        "data": DataConfig(name=name),
        "optim": OptimConfig(name="muon", learning_rate=1e-2, warmup=50),
        "model": MAGEConfig(dim=dim, depth=depth, **sizes, dropout=0.0, head_gradient=True),
    }
    return Config(preset=name, decode=decode, **values | changes)


def _imagenet(name: str, model: MAGEConfig) -> Config:
    """A size of the paper with the original code's optimisation: AdamW (0.9, 0.95), 1.5e-4 · 4096 / 256, decay 0.05,
    gradients of at most 3, warm-up of 40 of 1,600 epochs; sampled as its best images, in 20 steps.
    """
    return Config(
        preset=name,
        steps=500_000,
        batch_size=4096,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        conditional=False,
        tokenizer="runs/vqgan-imagenet256",
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=OptimConfig(learning_rate=2.4e-3, warmup=12_500, beta2=0.95, weight_decay=0.05, clip=3.0),
        model=dataclasses.replace(model, remat=True),
        decode=MaskedDecoding(steps=20, choice_temperature=6.0),
    )


PRESETS = {
    "digits": _preset(
        "digits", 96, 3, MaskedDecoding(guidance=1.8, choice_temperature=3.0), steps=640, tokenizer="pixels"
    ),
    "mnist": _preset(
        "mnist", 128, 4, MaskedDecoding(guidance=1.8, choice_temperature=3.0), steps=700, probe_examples=20_000
    ),
    "imagenet256": _imagenet("imagenet256", MAGEConfig.base()),
    "imagenet256-large": _imagenet("imagenet256-large", MAGEConfig.large()),
}


ABOUT = {
    "digits": "0.6 M parameters; 7 minutes of one CPU core beside other work; sample_accuracy 0.989, recall_judge 0.78",
    "mnist": "1.3 M parameters; 15 minutes of one CPU core after train.vqgan --preset mnist; sample_accuracy 0.993",
    "imagenet256": "144 M parameters; 500,000 steps of 4,096, for a TPU slice; the paper's FID 11.1, probe 74.7 %",
    "imagenet256-large": "407 M parameters; the same steps; the paper's FID 9.10, probe 78.9 %",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: TokenFacts) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import MAGE

    classes = facts.classes if config.conditional else 0
    return lambda key: MAGE(facts.tokens, facts.codes, classes, config.model, key=key)


def loss(config: Config, facts: TokenFacts) -> Any:
    """Mean cross-entropy of the masked tokens of each image; with `contrast`, of two views of it, and their InfoNCE."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.losses.contrastive import info_nce
    from eqxgen.losses.mage import mage_loss, shifted

    from .engine.recipe import Sums

    dropout = config.label_dropout if config.conditional else 0.0
    options = {"ratio": config.mask, "label_smoothing": config.label_smoothing, "label_dropout": dropout}

    def of(model, ids, label, keys) -> Any:
        label = label if config.conditional else jnp.full_like(label, model.null_label)
        return jax.vmap(lambda ids, label, key: mage_loss(model, ids, label, **options, key=key))(ids, label, keys)

    def view(ids, keys):
        move = lambda ids, key: shifted(ids, facts.grid, config.shift, key=key)
        return jax.vmap(move)(ids, keys) if config.shift else ids

    def plain(model, batch, keys, _):
        found, weight = of(model, batch["ids"], batch["label"], keys), batch["weight"]
        return Sums(weight @ found.loss, jnp.sum(weight), {"accuracy": weight @ found.correct})

    def contrasted(model, batch, keys, context):
        if "other" not in batch:
            return plain(model, batch, keys, context)
        keys = jax.vmap(lambda key: jr.split(key, 4))(keys)
        ids, weight = (view(batch[name], keys[:, i]) for i, name in enumerate(("ids", "other"))), batch["weight"]
        one, two = (of(model, view_, batch["label"], keys[:, 2 + i]) for i, view_ in enumerate(ids))
        same = info_nce(one.vector, two.vector, temperature=config.temperature, weight=weight, axes=context.axes)
        tokens = weight @ (one.loss + two.loss) / 2
        metrics = {"accuracy": weight @ (one.correct + two.correct) / 2, "contrast": weight @ same, "tokens": tokens}
        return Sums(tokens + config.contrast * (weight @ same), jnp.sum(weight), metrics)

    return contrasted if config.contrast else plain


def fits(config: Config, facts: TokenFacts) -> None:
    """Raises `UsageError` where a view is moved by the whole grid."""
    from eqxgen.losses.mage import check_reach

    try:
        check_reach(config.shift, facts.grid)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def draw(config: Config, facts: TokenFacts) -> Any:
    """Sampler of an image's tokens: (model, label, key=) -> ids.

    Raises:
        ValueError: an option is not one of the tokens or of the training.
    """
    from jax.tree_util import Partial

    from eqxgen.decoding.masked import MaskedRules, generate

    guidance = config.decode.guidance
    require(config.conditional or guidance == 1, f"decode.guidance must be 1 with --no-conditional: got {guidance}")
    rules = MaskedRules.of(config.decode, facts.tokens, facts.grid)
    return Partial(generate if config.conditional else _unlabelled, options=rules)


def _unlabelled(model: Any, label: Any, options: Any, *, key: Any) -> Any:
    from eqxgen.decoding.masked import generate

    return generate(model, model.null_label, options, key=key)


def offered(config: Config, tokens: Any, evaluators: Any) -> Any:
    """The evaluators, with the linear probe; samples without a class have no accuracy."""
    import numpy as np

    from .evaluators.examples import Examples
    from .evaluators.fine_tuning import fine_tuning
    from .evaluators.probe import probe

    read = lambda rows: {"ids": tokens.rows(rows).astype(np.int32), "label": tokens.train_labels[rows].astype(np.int32)}
    train = Examples(len(tokens.train_labels), read)
    test = Examples.of(ids=tokens.test.astype(np.int32), label=tokens.test_labels.astype(np.int32))
    of = features, train, test, tokens.num_classes, config.probe_examples
    found = *evaluators, probe(*of), fine_tuning(*of)
    if config.conditional:
        return found
    lacks = "the model was trained with --no-conditional, and its samples have no class"
    judged = {CLASSIFIER.name, TRAINED_ON_SAMPLES.name}
    return tuple(dataclasses.replace(each, lacks=lacks) if each.kind.name in judged else each for each in found)


def features(model: Any, example: Any) -> Any:
    """The encoder's features of an image's tokens, without its label."""
    return model.features(example["ids"])


def sample(run: Finished, asked: Any) -> int:
    """Writes samples; gives the exit status.

    Raises:
        UsageError: a class is asked of a model without labels.
    """
    if not run.config.conditional:
        asked_for = {"--label": asked.label is not None, "--labels": asked.labels, "--per-class": asked.per_class}
        for flag in (flag for flag, given in asked_for.items() if given):
            raise UsageError(
                f"{flag} goes with a model of classes: --run {run.folder} was trained with --no-conditional"
            )
    return BASE.draw(run, asked)


BASE = tokens_recipe(
    "mage",
    "MAGE",
    Config,
    PRESETS,
    model,
    loss,
    draw,
    options="decode",
    offered=offered,
    pairs=lambda config: config.contrast > 0,
    fits=fits,
)
RECIPE = dataclasses.replace(BASE, draw=sample)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
