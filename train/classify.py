"""Train an image classifier: a small convolutional net, a ResNet or a vision transformer.

  python -m train.classify                                      # digits
  python -m train.classify --preset mnist --data.root DATA      # from a folder that has mnist/
  python -m train.classify --preset mnist-vit --data.root DATA
  python -m train.classify --preset imagenet-vit-s16 --dry-run
  python -m train.classify --preset mnist --data.name fashion_mnist --from runs/classify-mnist           # fine-tuning
  python -m train.classify --preset mnist --data.name fashion_mnist --from runs/classify-mnist --new-head --freeze '**'
  python -m train.classify --backbone mage --from runs/mage-digits                          # of the encoder of a MAGE
  python -m train.sample --run runs/classify-mnist --images pictures/ --out guesses.png

Nets: conv, resnet (He et al. 2016, arXiv:1512.03385), vit (Dosovitskiy et al. 2021, arXiv:2010.11929), and mage (Li et
al. 2022, arXiv:2211.09117), of the tokens that the tokenizer of its run gives; --model.* are the sizes of resnet. Loss:
cross-entropy with label smoothing, of examples that mixup or CutMix may have mixed.
Statistics of batch norm are those of the whole batch, over all devices and all processes; their averages are released
with the averaged weights. Writes runs/classify-PRESET with samples/, confusion.png, confusion.csv, and of a transformer
attention.png; summary.json has eval_loss and eval_accuracy on the held-out images.

Where we differ: averaged weights in every preset; AdamW with a cosine schedule instead of SGD with steps, except where
a preset of a ResNet says otherwise.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from eqxgen.configs import ConvNetConfig, ResNetConfig, ViTConfig

from ._errors import require
from .config.data import AugmentConfig, DataConfig
from .config.evals import LABELS
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.classify.recipe import classifier_recipe
from .tasks.facts import ClassifierFacts
from .tasks.images import ImageConfig

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Program

Backbone = Literal["conv", "mage", "resnet", "vit"]


@dataclasses.dataclass(frozen=True)
class MixConfig:
    """Examples of a batch mixed with each other; with both, each step takes either."""

    mixup: float = 0.0
    """Alpha of mixup, whose share is drawn from Beta(alpha, alpha); 0: none."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0: none."""

    def __post_init__(self):
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            require(0 <= alpha < math.inf, f"mix.{name} must be at least 0 and finite: got {alpha}")

    @property
    def active(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (LABELS,)

    backbone: Backbone = option("resnet", first=True)
    """Network: conv, resnet or vit; or mage, the encoder of the run of train.mage that --from names."""
    new_head: bool = option(False, first=True)
    """With --from: leave its head out, and train one for the classes of the data."""
    normalise: Literal["none", "imagenet", "clip"] = "none"
    """Mean and deviation of the pixels that a published net expects; none: pixels in [-1, 1]."""
    label_smoothing: float = 0.1
    """Weight of the uniform distribution in the target (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
    mix: MixConfig = option(factory=MixConfig)
    """Mixup and CutMix."""
    model: ResNetConfig = option(factory=ResNetConfig, first=("width", "multipliers", "blocks"))
    """The ResNet."""
    conv: ConvNetConfig = option(factory=ConvNetConfig)
    """The small convolutional net, with group norms."""
    vit: ViTConfig = option(factory=ViTConfig, first=("dim", "depth", "heads", "patch"))
    """The vision transformer."""

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.label_smoothing < 1, f"label_smoothing must be in [0, 1): got {self.label_smoothing}")
        require(
            self.backbone != "mage" or self.start_from is not None,
            "backbone mage goes with --from, a run of train.mage, which was not given",
        )
        require(
            self.backbone != "mage" or self.normalise == "none",
            f"normalise must be none with --backbone mage: got {self.normalise}",
        )
        require(not self.new_head or self.start_from is not None, "new_head goes with --from, which was not given")

    @property
    def unread(self) -> Mapping[str, str]:
        groups = {name: "model" if name == "resnet" else name for name in get_args(Backbone) if name != "mage"}
        return {f"{group}.": f"--backbone {name}" for name, group in groups.items() if name != self.backbone}


def _preset(data: DataConfig, steps: int, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "batch_size": 64,
        "optim": OptimConfig(learning_rate=3e-3, warmup=50, beta2=0.99, weight_decay=0.05),
        "ema": EmaConfig(decay=0.99),
    }
    return Config(data=data, steps=steps, **values | changes)


def _images(name: str, image_size: int | None = None, **augment: Any) -> DataConfig:
    return DataConfig(name=name, image_size=image_size, augment=AugmentConfig(**augment))


def _sgd(rate: float, warmup: int, decay: float) -> OptimConfig:
    """Nesterov momentum. A decay within the gradient, as in the papers, counts 1 / (1 - 0.9) times as much as ours."""
    return OptimConfig(
        name="sgd", learning_rate=rate, warmup=warmup, nesterov=True, weight_decay=10 * decay, clip=math.inf
    )


_CROPS = {"flip": True, "crop": "padded", "padding": "zeros"}
_RARE: dict[str, Any] = {"log_every": 100, "sample_every": 5000, "checkpoint_every": 2000}
_MNIST = _images("mnist", crop="padded", pad=2, padding="zeros")
_IMAGENET = 1_281_167  # training images

PRESETS = {
    "digits": _preset(_images("digits"), 300, model=ResNetConfig(multipliers=(1, 2), blocks=1)),
    "mnist": _preset(_MNIST, 2000, backbone="conv", conv=ConvNetConfig(width=16)),
    "mnist-resnet": _preset(_images("mnist"), 1000, model=ResNetConfig(blocks=1)),
    "mnist-vit": _preset(
        _MNIST,
        2500,
        backbone="vit",
        vit=ViTConfig(patch=4, dim=64, depth=4, heads=4, hidden_dim=256, pool="mean"),
        optim=OptimConfig(name="muon", learning_rate=5e-3, warmup=50, beta2=0.99, weight_decay=0.05),
    ),
    "fashion_mnist": _preset(_images("fashion_mnist", flip=True), 3000, model=ResNetConfig(blocks=1)),
    "cifar10": _preset(_images("cifar10", **_CROPS), 30_000, model=ResNetConfig.cifar(20)),
    # ResNet-18 with a 3x3 stem: 200 epochs of SGD at 0.1, weight decay 5e-4.
    "cifar10-resnet": _preset(
        _images("cifar10", **_CROPS),
        200 * 50_000 // 128,
        batch_size=128,
        label_smoothing=0.0,
        model=ResNetConfig(width=64, multipliers=(1, 2, 4, 8), blocks=2),
        optim=_sgd(0.1, 400, 5e-4),
        ema=EmaConfig(decay=0.999),
        **_RARE,
    ),
    # ViT-S with patches of 4 pixels, 200 epochs.
    "cifar10-vit": _preset(
        _images("cifar10", **_CROPS, operations=2, magnitude=9),
        200 * 50_000 // 512,
        batch_size=512,
        backbone="vit",
        vit=ViTConfig.plain(4),
        mix=MixConfig(mixup=0.8, cutmix=1.0),
        optim=OptimConfig(learning_rate=1e-3, warmup=1000, beta2=0.999, weight_decay=0.05),
        ema=EmaConfig(decay=0.999),
        **_RARE,
    ),
    # Beyer et al. 2022, arXiv:2205.01580: 90 epochs of batches of 1,024, mean of the patches, fixed positions, crops of
    # 5 % of the area at least, RandAugment (2, 10), mixup 0.2. Their decay of 1e-4 is not multiplied by the rate of
    # 1e-3, ours is.
    "imagenet-vit-s16": _preset(
        _images("./imagenet", 224, flip=True, crop="resized", smallest=0.05, operations=2, magnitude=10),
        90 * _IMAGENET // 1024,
        batch_size=1024,
        precision="bfloat16",
        label_smoothing=0.0,
        backbone="vit",
        vit=ViTConfig.plain(16),
        mix=MixConfig(mixup=0.2),
        optim=OptimConfig(learning_rate=1e-3, warmup=10_000, beta2=0.999, weight_decay=0.1),
        ema=EmaConfig(decay=0.0),
        **_RARE,
    ),
    # He et al. 2016, section 3.4, with a warm-up and a cosine in place of steps: 90 epochs of batches of 256 at 0.1.
    "imagenet-resnet50": _preset(
        _images("./imagenet", 224, flip=True, crop="resized"),
        90 * _IMAGENET // 256,
        batch_size=256,
        precision="bfloat16",
        label_smoothing=0.0,
        model=ResNetConfig.imagenet(50),
        optim=_sgd(0.1, 5 * _IMAGENET // 256, 1e-4),
        ema=EmaConfig(decay=0.0),
        **_RARE,
    ),
}
PRESETS = {name: dataclasses.replace(preset, preset=name) for name, preset in PRESETS.items()}


ABOUT = {
    "digits": "0.02 M parameters; 10 s on 2 CPU cores; eval_accuracy 0.989",
    "mnist": "0.07 M parameters; 125 s on 2 CPU cores; eval_accuracy 0.994",
    "mnist-resnet": "0.08 M parameters; 1,000 steps of 64; eval_accuracy 0.991",
    "mnist-vit": "0.21 M parameters; 8 minutes of one CPU core beside other work; eval_accuracy 0.990",
    "fashion_mnist": "0.08 M parameters; 3,000 steps of 64",
    "cifar10": "0.27 M parameters; 30,000 steps of 64, for a GPU",
    "cifar10-resnet": "11 M parameters; 200 epochs, for a GPU; others report 0.95 to 0.96",
    "cifar10-vit": "21 M parameters; 200 epochs, for a GPU; others report about 0.90",
    "imagenet-vit-s16": "22 M parameters; 90 epochs, for TPUs or GPUs; the paper's 0.765",
    "imagenet-resnet50": "26 M parameters; 90 epochs, for TPUs or GPUs; the paper's 0.76",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: ClassifierFacts) -> Any:
    """Initialiser of the released classifier, with the statistics of its batch norms."""
    from .tasks.classify import nets

    def make(key: Any) -> Any:
        net = nets.make_net(config, facts, key)
        return nets.released(config, net, nets.init_state(net))

    return make


def program(config: Config, facts: ClassifierFacts) -> "Program":
    """The classifier and its loss; the statistics of its batch norms are model state."""
    import jax
    import jax.numpy as jnp

    from eqxgen.augment.mixing import mixed
    from eqxgen.losses.labels import smoothed_cross_entropy, soft_cross_entropy

    from .engine.recipe import Context, Player, Program, Sums
    from .tasks.classify import nets

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        weight, labels, targets = batch["weight"], batch["label"], batch.get("target")
        logits, state = nets.logits_of(config, model, context.state, batch, keys, context.axes)
        if targets is None:
            losses = smoothed_cross_entropy(logits, labels, config.label_smoothing)
        else:
            losses, labels = soft_cross_entropy(logits, targets, config.label_smoothing), jnp.argmax(targets, axis=-1)
        correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
        return Sums(weight @ losses, jnp.sum(weight), {"accuracy": weight @ correct}, state)

    def mix(batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        targets = jax.nn.one_hot(batch["label"], facts.classes)
        images, targets = mixed(batch["image"], targets, config.mix.mixup, config.mix.cutmix, key=key)
        return batch | {"image": images, "target": targets}

    make = lambda key: nets.make_net(config, facts, key)
    sincos = config.backbone == "vit" and config.vit.positions == "sincos"
    fixed = ("positions",) if sincos else ("tokenizer",) if "tokenizer" in (facts.mage or ()) else ()
    return Program.of(
        make,
        loss,
        {"image": (facts.shape, "float32"), "label": ((), "int32")},
        init_state=nets.init_state,
        mix=mix if config.mix.active else None,
        head=("head",),
        new_head=config.new_head,
        fixed=fixed,
        players={"model": Player(nets.trained(make, fixed) if fixed else "**")},
    )


RECIPE = classifier_recipe(Config, PRESETS, model, program)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
