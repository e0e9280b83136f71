"""Train a U-Net that gives each pixel of an image a class.

  python -m train.segment --data.root DATA                 # isbi: cell membranes, from a folder that has isbi_membrane/
  python -m train.segment --data.name ./roads --data.classes 0=ground 255=road --data.crop 128
  python -m train.segment --preset large --dry-run
  python -m train.segment --data.name ./roads --from runs/segment-isbi --new-head --freeze downs
  python -m train.sample --run runs/segment-isbi --images pictures/ --out masks/

Net: U-Net with convolutions that keep the size (Ronneberger et al. 2015, arXiv:1505.04597). Loss: cross-entropy of the
pixels, and one less the soft Dice coefficient of each class, of an image. A crop of an image and of its mask go through
one transform: mirror images, rotation, elastic deformation. Held-out images are predicted whole, by overlapping tiles.
Writes runs/segment-PRESET with samples/ (image, mask, guess, mistakes); summary.json has eval_dice and eval_iou, of all
pixels of the held-out images together, and those of each class.

Where we differ: no map of weights that separates cells that touch; averaged weights; AdamW with a cosine schedule.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from eqxgen.configs import SegmentationConfig

from ._errors import require
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .config.pairs import PairConfig
from .tasks.facts import ImageFacts
from .tasks.segment.recipe import SegmentConfig, segment_recipe

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(SegmentConfig):
    """Every flag starts from the preset's value."""

    new_head: bool = option(False, first=True)
    """With --from: leave its head out, and train one for the classes of the data."""
    cross_entropy: float = 1.0
    """Weight of the cross-entropy."""
    dice: float = 1.0
    """Weight of the Dice loss."""
    model: SegmentationConfig = option(factory=SegmentationConfig, first=("width", "multipliers", "norm"))
    """The U-Net."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("cross_entropy", "dice"):
            require(
                0 <= getattr(self, name) < math.inf, f"{name} must be at least 0 and finite: got {getattr(self, name)}"
            )
        require(self.cross_entropy + self.dice > 0, "cross_entropy and dice must not both be 0: got 0 and 0")
        require(not self.new_head or self.start_from is not None, "new_head goes with --from, which was not given")


PRESETS = {
    "isbi": Config(
        steps=600,
        batch_size=4,
        sample_every=300,
        optim=OptimConfig(learning_rate=2e-3, warmup=50, beta2=0.99, weight_decay=0.05),
        ema=EmaConfig(decay=0.99),
    ),
    # The paper's sizes on crops of 512 pixels.
    "large": Config(
        data=PairConfig(name="./pairs", crop=512),
        steps=20_000,
        batch_size=32,
        precision="bfloat16",
        tile=1024,
        overlap=256,
        model=dataclasses.replace(SegmentationConfig.paper(), dropout=0.1),
        optim=OptimConfig(learning_rate=1e-3, warmup=500, beta2=0.99, weight_decay=0.05),
        ema=EmaConfig(decay=0.999),
        log_every=100,
        sample_every=5000,
        checkpoint_every=2000,
    ),
}
PRESETS = {name: dataclasses.replace(preset, preset=name) for name, preset in PRESETS.items()}

ABOUT = {
    "isbi": "0.48 M parameters; 265 processor seconds; eval_dice_membrane 0.798",
    "large": "31 M parameters; 20,000 steps of 32 crops of 512 pixels, for a GPU or TPU",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def _net(config: Config, facts: ImageFacts, key: Any) -> Any:
    from eqxgen.models import SegmentationUNet

    return SegmentationUNet(facts.shape[2], facts.classes, config.model, key=key)


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the released net, with the statistics of its batch norms."""
    from eqxgen.nn import WithState

    def make(key: Any) -> Any:
        net = _net(config, facts, key)
        return WithState(net, net.init_state())

    return make


def program(config: Config, facts: ImageFacts) -> "Program":
    """The net and its loss; the statistics of its batch norms are model state."""
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.segmentation import dice_loss, pixel_cross_entropy
    from eqxgen.nn import synchronised

    from .engine.recipe import Context, Program, Sums

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        net, weight, labels = synchronised(model, context.axes), batch["weight"], batch["label"]
        run = lambda image, weight, key: net(image, context.state, weight=weight, key=key)
        logits, state = jax.vmap(run, out_axes=(0, None), axis_name="batch")(batch["image"], weight, keys)
        entropy, dice = jax.vmap(pixel_cross_entropy)(logits, labels), jax.vmap(dice_loss)(logits, labels)
        correct = jnp.mean(jnp.argmax(logits, axis=-1) == labels, axis=(1, 2), dtype=jnp.float32)
        sums = {"cross_entropy": entropy, "dice_loss": dice, "accuracy": correct}
        total = weight @ (config.cross_entropy * entropy + config.dice * dice)
        return Sums(total, jnp.sum(weight), {name: weight @ values for name, values in sums.items()}, state)

    return Program.of(
        lambda key: _net(config, facts, key),
        loss,
        {"image": (facts.shape, "float32"), "label": (facts.shape[:2], "int32")},
        init_state=lambda net: net.init_state(),
        head=("head",),
        new_head=config.new_head,
    )


RECIPE = segment_recipe(Config, PRESETS, model, program)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
