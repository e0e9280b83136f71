"""Train an image classifier: a ResNet with batch norm (He et al. 2016, arXiv:1512.03385).

  python -m train.classify                                   # digits
  python -m train.classify --preset mnist --data.root DATA   # from a folder that has mnist/
  python -m train.classify --preset cifar10 --data.root DATA

Loss: cross-entropy with label smoothing. Statistics of batch norm are those of the whole batch, over all devices and
all processes; their averages are released with the averaged weights. Writes runs/classify-PRESET; summary.json has
eval_loss and eval_accuracy on the held-out images.

Where we differ: AdamW with a cosine schedule and averaged weights instead of SGD with steps.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from eqxgen.configs import ResNetConfig

from ._errors import require
from .config.data import AugmentConfig, DataConfig
from .config.evals import LABELS
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig
from .tasks.labels import labels_recipe

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (LABELS,)

    label_smoothing: float = 0.1
    """Weight of the uniform distribution in the target (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
    model: ResNetConfig = option(factory=ResNetConfig, first=("width", "multipliers", "blocks"))
    """The classifier."""

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.label_smoothing < 1, f"label_smoothing must be in [0, 1): got {self.label_smoothing}")


def _preset(name: str, steps: int, model: ResNetConfig, **augment: Any) -> Config:
    return Config(
        preset=name,
        steps=steps,
        model=model,
        batch_size=64,
        data=DataConfig(name=name, augment=AugmentConfig(**augment)),
        optim=OptimConfig(learning_rate=3e-3, warmup=50, beta2=0.99, weight_decay=0.05),
        ema=EmaConfig(decay=0.99),
    )


PRESETS = {
    "digits": _preset("digits", 300, ResNetConfig(multipliers=(1, 2), blocks=1)),
    "mnist": _preset("mnist", 1000, ResNetConfig(blocks=1)),
    "fashion_mnist": _preset("fashion_mnist", 3000, ResNetConfig(blocks=1), flip=True),
    "cifar10": _preset("cifar10", 30_000, ResNetConfig.cifar(20), flip=True, crop="padded", padding="zeros"),
}


ABOUT = {
    "digits": "0.02 M parameters; 10 s on 2 CPU cores; eval_accuracy 0.989",
    "mnist": "0.08 M parameters; 1,000 steps of 64; eval_accuracy 0.991",
    "fashion_mnist": "0.08 M parameters; 3,000 steps of 64",
    "cifar10": "0.27 M parameters; 30,000 steps of 64, for a GPU",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the released classifier, with the statistics of its batch norms."""
    from eqxgen.models import ResNet
    from eqxgen.nn import WithState

    def make(key: Any) -> WithState:
        net = ResNet(facts.shape[2], facts.classes, config.model, key=key)
        return WithState(net, net.init_state())

    return make


def program(config: Config, facts: ImageFacts) -> "Program":
    """The classifier and its loss; the statistics of its batch norms are model state."""
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.labels import smoothed_cross_entropy
    from eqxgen.nn import synchronised

    from .engine.recipe import Context, Program, Sums

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        net, weight = synchronised(model, context.axes), batch["weight"]
        run = lambda image, weight, key: net(image, context.state, weight=weight, key=key)
        logits, state = jax.vmap(run, out_axes=(0, None), axis_name="batch")(batch["image"], weight, keys)
        losses = smoothed_cross_entropy(logits, batch["label"], config.label_smoothing)
        correct = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
        return Sums(weight @ losses, jnp.sum(weight), {"accuracy": weight @ correct}, state)

    make = model(config, facts)
    return Program.of(
        lambda key: make(key).model,
        loss,
        {"image": (facts.shape, "float32"), "label": ((), "int32")},
        init_state=lambda net: net.init_state(),
    )


def released(net: Any, state: Any) -> Any:
    """The averaged classifier with the averaged statistics."""
    from eqxgen.nn import WithState

    return WithState(net, state)


RECIPE = labels_recipe("classify", "Image classifier", Config, PRESETS, model, program, released=released)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
