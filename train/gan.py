"""Train a generative adversarial network of images, class-conditional by default.

  python -m train.gan                                        # digits
  python -m train.gan --preset mnist --data.root DATA        # from a folder that has mnist/
  python -m train.gan --preset cifar10-stylegan2-ada --dry-run
  python -m train.sample --run runs/gan-mnist --interpolate --seeds 0-7 --out film.png

Families: dcgan, r3gan, stylegan2 (--family). Generator and discriminator alternate, each with an optimiser of its own
(--optim.*, --discriminator.*); a penalty that is due every k steps is a step of its own. Writes runs/gan-PRESET with
samples/ at fixed latents; metrics.jsonl has the logits of real and generated images, the sign of the real ones (r_t),
the probability of the augmentation, and `diversity`: the deviation of generated images within a class over that of real
ones. A run whose samples are all alike for 400 steps stops and names the last checkpoint before. summary.json has the
accuracy of a classifier on samples.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from eqxgen.configs import DCGANConfig, R3GANConfig, StyleGAN2Config

from ._errors import UsageError, require
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES
from .config.optim import DiscriminatorConfig, EmaConfig, OptimConfig
from .config.options import option
from .tasks.facts import ImageFacts
from .tasks.gan.recipe import adversarial_recipe
from .tasks.images import ImageConfig

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Program

Family = Literal["dcgan", "r3gan", "stylegan2"]
Form = Literal["non_saturating", "hinge", "least_squares", "wasserstein", "relativistic"]
Augmentation = Literal["none", "diffaugment", "ada"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PenaltyConfig:
    """Penalties of gradients."""

    r1: float = 0.0
    """Weight γ of γ/2 |gradient|² of the discriminator at real images."""
    r2: float = 0.0
    """The same at generated images."""
    final: float = 1.0
    """Factor of r1 and r2 after --ramp images."""
    every: int = 1
    """Steps between penalties, each of which counts as many times (arXiv:1912.04958, appendix B)."""
    wgan_gp: float = 0.0
    """Weight λ of (|gradient| - 1)² between real and generated images (arXiv:1704.00028)."""
    path: float = 0.0
    """Weight of the path length penalty of stylegan2's generator."""
    path_every: int = 4
    """Steps between path length penalties, on half of the batch."""

    def __post_init__(self):
        for name in ("every", "path_every"):
            require(getattr(self, name) >= 1, f"penalty.{name} must be at least 1: got {getattr(self, name)}")
        for name in ("r1", "r2", "final", "wgan_gp", "path"):
            require(
                0 <= getattr(self, name) < math.inf,
                f"penalty.{name} must be at least 0 and finite: got {getattr(self, name)}",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES)

    family: Family = option("dcgan", first=True)
    """Nets: dcgan, r3gan or stylegan2."""
    conditional: bool = True
    """The nets are given the class."""
    objective: Form = option("non_saturating", first=True)
    """Losses of both players."""
    penalty: PenaltyConfig = option(factory=PenaltyConfig, first=("r1", "r2", "every"))
    """Penalties of gradients."""
    discriminator: DiscriminatorConfig = option(factory=DiscriminatorConfig)
    """The discriminator's optimiser."""
    mixing: float = 0.0
    """Probability of style mixing, of stylegan2."""
    w_decay: float = 0.995
    """Decay per step of the running mean of style vectors, of stylegan2."""
    augmentation: Augmentation = option("none", first=True)
    """Augmentation of all images that the discriminator sees: none, diffaugment or ada."""
    policy: str = ""
    """Parts of the augmentation, such as color,translation,cutout; by default all three, of ada those of bgc."""
    probability: float = 0.0
    """Probability p of ada: after --ramp images, or at first with --target above 0."""
    target: float = 0.0
    """Target of r_t that moves p of ada, 0.6 in the paper; 0: p is --probability."""
    speed: float = 500_000.0
    """Images in which p of ada moves by 1."""
    ramp: float = 0.0
    """Images in which penalties and p come to their last value, along half a cosine; 0: at once."""
    dcgan: DCGANConfig = option(factory=DCGANConfig)
    """The convolutional nets with batch norm."""
    r3gan: R3GANConfig = option(factory=R3GANConfig)
    """The residual nets without norms."""
    stylegan2: StyleGAN2Config = option(factory=StyleGAN2Config)
    """The nets of style vectors."""

    @property
    def unread(self) -> Mapping[str, str]:
        others = {f"{name}.": f"--family {name}" for name in get_args(Family) if name != self.family}
        if self.family != "stylegan2":
            others |= dict.fromkeys(("mixing", "w_decay", "penalty.path", "penalty.path_every"), "--family stylegan2")
        if self.augmentation == "none":
            others |= {"policy": "--augmentation diffaugment or ada"}
        if self.augmentation != "ada":
            others |= dict.fromkeys(("probability", "target", "speed"), "--augmentation ada")
        return others

    def __post_init__(self):
        super().__post_init__()
        for name in ("mixing", "probability", "target", "w_decay"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1]: got {getattr(self, name)}")
        require(0 < self.speed < math.inf, f"speed must be positive and finite: got {self.speed}")
        require(0 <= self.ramp < math.inf, f"ramp must be at least 0 and finite: got {self.ramp}")
        require(
            self.penalty.path == 0 or self.family == "stylegan2",
            f"penalty.path must be 0 without --family stylegan2: got {self.penalty.path}",
        )
        check_policy(self.augmentation, self.policy)
        require(
            self.batch_size >= 2 * self.accumulate,
            f"batch_size must be at least 2 in each of accumulate={self.accumulate} parts, as diversity is of several "
            f"images: got {self.batch_size}",
        )


POLICIES: dict[str, tuple[str, ...]] = {
    "none": (),
    "diffaugment": ("color", "translation", "cutout", "affine", "flip_x", "flip_y"),
    "ada": ("blit", "geometry", "color", "noise", "cutout"),
}
"""Parts of each augmentation."""
DEFAULT_POLICY = {"none": (), "diffaugment": ("color", "translation", "cutout"), "ada": ("blit", "geometry", "color")}


def check_policy(augmentation: str, policy: str) -> tuple[str, ...]:
    """Parts of an augmentation, by name; the default where none is given.

    Raises:
        ValueError: a part is unknown, or given twice.
    """
    from .config.options import nearest

    names = tuple(name.strip() for name in policy.split(",") if name.strip())
    require(not policy or bool(names), f"policy must name a part, or be empty for the default: got {policy!r}")
    known = POLICIES[augmentation]
    if not known:
        return ()  # a policy without an augmentation is a flag that is not read
    for name in names:
        require(
            name in known,
            f"policy must be of {', '.join(known)} with --augmentation {augmentation}: got {name!r}"
            f"{nearest(name, list(known))}",
        )
    require(len(set(names)) == len(names), f"policy must name each part once: got {policy!r}")
    return names or DEFAULT_POLICY[augmentation]


def _adam(kind: Any, learning_rate: float, beta1: float, beta2: float, epsilon: float = 1e-8, **changes: Any) -> Any:
    values = {"warmup": 0, "decay": "constant", "weight_decay": 0.0, "clip": math.inf} | changes
    return kind(learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon, **values)


def _both(*numbers: float, **changes: Any) -> dict[str, Any]:
    return {
        "optim": _adam(OptimConfig, *numbers, **changes),
        "discriminator": _adam(DiscriminatorConfig, *numbers, **changes),
    }


def _small(name: str, steps: int, **changes: Any) -> Config:
    """Small nets with the optimiser and losses of DCGAN, and R1."""
    values: dict[str, Any] = {
        "batch_size": 64,
        "data": DataConfig(name=name),
        "ema": EmaConfig(half_life=5000.0, ramp=0.1),
        "penalty": PenaltyConfig(r1=0.1, every=8),
        **_both(1e-3, 0.5, 0.99, decay="linear", final=0.1),
    }
    return Config(preset=name, steps=steps, **values | changes)


def _small_r3gan(name: str, steps: int, **changes: Any) -> Config:
    """R3GAN's loss and nets, small, with its penalties at every fourth step instead of each."""
    values: dict[str, Any] = {
        "family": "r3gan",
        "objective": "relativistic",
        "batch_size": 32,
        "penalty": PenaltyConfig(r1=0.5, r2=0.5, every=4),
        # One group: XLA's gradient of grouped convolutions is slow on a CPU.
        "r3gan": R3GANConfig(widths=(48, 32, 16), groups=(1, 1, 1), blocks=(1, 1, 1), label_dim=32),
        **_both(1e-3, 0.0, 0.99, decay="cosine", final=0.1),
    }
    return dataclasses.replace(_small(name, steps, **values | changes), preset=f"{name}-r3gan")


PRESETS = {
    "digits": _small("digits", 2000, dcgan=DCGANConfig(latent_dim=32, width=32, base=2)),
    "mnist": _small("mnist", 6000, dcgan=DCGANConfig(latent_dim=64, width=32)),
    "mnist-r3gan": _small_r3gan("mnist", 3400),
    "fashion_mnist": _small("fashion_mnist", 6000, dcgan=DCGANConfig(latent_dim=64, width=32)),
    "fashion_mnist-r3gan": _small_r3gan("fashion_mnist", 3000),
    "cifar10-small": dataclasses.replace(
        _small(
            "cifar10",
            8000,
            dcgan=DCGANConfig(latent_dim=128, width=32),
            data=DataConfig(name="cifar10", augment=AugmentConfig(flip=True)),
        ),
        preset="cifar10-small",
    ),
    # Karras et al. 2020 (ADA), configuration `cifar`: 100 M images of 64 a batch; no path length and no mixing.
    "cifar10-stylegan2-ada": Config(
        preset="cifar10-stylegan2-ada",
        steps=100_000_000 // 64,
        batch_size=64,
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        family="stylegan2",
        stylegan2=StyleGAN2Config.cifar(),
        penalty=PenaltyConfig(r1=0.01, every=16),
        augmentation="ada",
        target=0.6,
        data=DataConfig(name="cifar10"),
        ema=EmaConfig(half_life=500_000.0, ramp=0.05),
        **_both(2.5e-3, 0.0, 0.99),
    ),
    # Huang et al. 2024: ramps of 20 M images, of which ours keep beta2 at its last value.
    "cifar10-r3gan": Config(
        preset="cifar10-r3gan",
        steps=200_000_000 // 512,
        batch_size=512,
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        family="r3gan",
        objective="relativistic",
        r3gan=R3GANConfig.cifar(),
        penalty=PenaltyConfig(r1=0.05, r2=0.05, final=0.1),
        augmentation="ada",
        probability=0.55,
        ramp=20_000_000.0,
        data=DataConfig(name="cifar10"),
        ema=EmaConfig(half_life=5_000_000.0, ramp=0.05),
        **_both(2e-4, 0.0, 0.99, decay="cosine", final=0.25),
    ),
    # Radford et al. 2016, section 4: Adam 2e-4 with beta1 0.5, batch 128; the number of steps is ours.
    "celeba64-dcgan": Config(
        preset="celeba64-dcgan",
        steps=40_000,
        batch_size=128,
        log_every=100,
        sample_every=2000,
        checkpoint_every=2000,
        conditional=False,
        dcgan=DCGANConfig.paper(),
        data=DataConfig(name="./celeba", image_size=64, augment=AugmentConfig(flip=True)),
        **_both(2e-4, 0.5, 0.999),
    ),
    # Karras et al. 2020 (ADA), configuration `paper256`: 25 M images.
    "ffhq256": Config(
        preset="ffhq256",
        steps=25_000_000 // 64,
        batch_size=64,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        family="stylegan2",
        conditional=False,
        stylegan2=StyleGAN2Config.paper256(),
        penalty=PenaltyConfig(r1=1.0, every=16, path=2.0),
        mixing=0.9,
        augmentation="ada",
        target=0.6,
        data=DataConfig(name="./ffhq", image_size=256, augment=AugmentConfig(flip=True)),
        ema=EmaConfig(half_life=20_000.0, ramp=0.0),
        **_both(2.5e-3, 0.0, 0.99),
    ),
}

ABOUT = {
    "digits": "0.05 M parameters; 4 minutes on 2 CPU cores beside other work; sample_accuracy 0.974, recall_judge 0.86",
    "mnist": "0.34 M parameters; 12 minutes of one CPU core; sample_accuracy 0.990, recall_judge 0.82, of three seeds",
    "mnist-r3gan": "0.15 M parameters; 28 minutes of one CPU core; sample_accuracy 0.980, median of three seeds",
    "fashion_mnist": "0.34 M parameters; 6,000 steps of 64",
    "fashion_mnist-r3gan": "0.15 M parameters; 3,000 steps of 32",
    "cifar10-small": "0.49 M parameters; 8,000 steps of 64",
    "cifar10-stylegan2-ada": "20.2 M parameters; 1,562,500 steps of 64, for a GPU; the paper's FID is 2.42",
    "cifar10-r3gan": "20.8 M parameters; 390,625 steps of 512, for GPUs; the paper's FID is 1.96",
    "celeba64-dcgan": "12.7 M parameters; 40,000 steps of 128, for a GPU",
    "ffhq256": "24.8 M parameters; 390,625 steps of 64, for GPUs",
}
"""Size of the generator, time and the number to expect of each preset, where it was measured."""


def nets(config: Config, facts: ImageFacts) -> tuple[Any, Any]:
    """Initialisers of the generator and of the discriminator, after their sizes were compared with the images."""
    from eqxgen import models

    kinds = {"dcgan": "DCGAN", "r3gan": "R3GAN", "stylegan2": "StyleGAN2"}
    height, width, channels = facts.shape
    sizes, classes = getattr(config, config.family), facts.classes if config.conditional else None
    if height != width:
        raise UsageError(f"--family {config.family}: the images must be square: got {height} x {width}")
    try:
        (sizes.base if config.family == "r3gan" else sizes.sides)(height)
    except ValueError as error:
        raise UsageError(f"--{error}" if str(error).startswith(config.family) else str(error)) from None
    kind = kinds[config.family]
    generator, discriminator = getattr(models, f"{kind}Generator"), getattr(models, f"{kind}Discriminator")
    return (
        lambda key: generator(height, channels, classes, sizes, key=key),
        lambda key: discriminator(height, channels, classes, sizes, key=key),
    )


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the released generator, with its state: statistics of batch norms, mean style vector."""
    from eqxgen.nn import WithState

    make = nets(config, facts)[0]

    def init(key: Any) -> Any:
        generator = make(key)
        return WithState(generator, generator.init_state())

    return init


def program(config: Config, facts: ImageFacts) -> "Program":
    """Generator and discriminator as players of alternating turns, and lazy penalties as turns of their own."""
    import jax.random as jr

    from .engine.recipe import Player, Program, Turn
    from .tasks.gan.losses import Adversaries, collapsed, start

    make_generator, make_discriminator = nets(config, facts)
    adversaries, penalty = Adversaries(config, facts, check_policy(config.augmentation, config.policy)), config.penalty

    def init(key: Any) -> dict[str, Any]:
        first, second = jr.split(key)
        return {"generator": make_generator(first), "discriminator": make_discriminator(second)}

    turns = {"main": Turn(adversaries.generator, ("generator",))}
    if penalty.path:
        turns["path"] = Turn(adversaries.path, ("generator",), every=penalty.path_every)
    turns["discriminator"] = Turn(adversaries.discriminator, ("discriminator",))
    if adversaries.penalised and penalty.every > 1:
        turns["penalty"] = Turn(adversaries.penalty, ("discriminator",), every=penalty.every)
    return Program(
        init=init,
        turns=turns,
        shapes={"image": (facts.shape, "float32"), "label": ((), "int32")},
        players={"generator": Player("generator"), "discriminator": Player("discriminator", config.discriminator)},
        init_state=lambda model: start(model, config),
        failed=collapsed,
    )


RECIPE = adversarial_recipe("gan", "Generative adversarial network", Config, PRESETS, model, program)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
