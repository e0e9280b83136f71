"""Train a diffusion or flow model of images, class-conditional by default.

  python -m train.diffusion                                  # digits
  python -m train.diffusion --preset mnist --data.root DATA  # from a folder that has mnist/
  python -m train.diffusion --preset imagenet64-edm --dry-run
  python -m train.sample --run runs/diffusion-digits --steps 12 --sampler heun --guidance 2 --interval 0.3,5

Loss: weight(level) times a distance of the denoised image, whatever the network predicts (eqxgen.diffusion). Labels are
dropped for classifier-free guidance. Writes runs/diffusion-PRESET with samples/ and denoising.webp, a film of ancestral
sampling beside DDIM; summary.json has the accuracy of a classifier on samples.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from eqxgen.configs import DenoiserConfig, DiffusionLoss, DiffusionSampling, DiTConfig, ScheduleConfig, UNetConfig

from ._errors import UsageError, require
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, FIDELITY, HELD_OUT, TRAINED_ON_SAMPLES
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.denoising import denoising_recipe
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Loss, Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (HELD_OUT, CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES)

    backbone: Literal["unet", "dit"] = option("unet", first=True)
    """Network: unet or dit."""
    conditional: bool = True
    """The network is given the class."""
    label_dropout: float = 0.1
    """Share of the examples whose label training hides, for guidance."""
    non_leaking: float = 0.0
    """Probability of each geometric augmentation of EDM, whose parameters the unet is given as well: 0.12 there."""
    denoiser: DenoiserConfig = option(factory=DenoiserConfig, first=("prediction",))
    """Prediction of the network, and noise schedule."""
    loss: DiffusionLoss = option(factory=DiffusionLoss, first=("weight",))
    """Weight, distance, and distribution of the noise levels."""
    unet: UNetConfig = option(factory=UNetConfig, first=("width", "multipliers", "blocks"))
    """The U-Net."""
    dit: DiTConfig = option(factory=DiTConfig, first=("dim", "depth", "heads", "patch"))
    """The transformer."""
    sampling: DiffusionSampling = option(factory=DiffusionSampling, first=("steps", "sampler", "guidance"))
    """Sampling."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("label_dropout", "non_leaking"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1): got {getattr(self, name)}")
        steps, schedule = self.sampling.steps, self.denoiser.schedule
        require(
            not schedule.discrete or steps <= schedule.steps,
            f"sampling.steps must be at most denoiser.schedule.steps: got {steps} of {schedule.steps}",
        )
        require(
            self.conditional or self.sampling.guidance == 1,
            f"sampling.guidance must be 1 for a model without classes: got {self.sampling.guidance}",
        )
        self._check_variance()
        require(
            self.conditional or self.backbone == "unet",
            "conditional must be true with backbone dit: got false; unet goes without classes",
        )
        known = self.unet.augment if self.backbone == "unet" else 0
        require(
            self.non_leaking == 0 or known == LABELS_OF_AUGMENTATION,
            f"non_leaking must have a unet with --unet.augment {LABELS_OF_AUGMENTATION}, the parameters of its "
            f"augmentations: got backbone {self.backbone} with {known}",
        )

    def _check_variance(self) -> None:
        name = "unet.learn_variance" if self.backbone == "unet" else "dit.learn_variance"
        learned = getattr(self, self.backbone).learn_variance
        require(
            (self.loss.variance > 0) == learned,
            f"loss.variance must be above 0 with {name}, and 0 without: got {self.loss.variance} with {learned}",
        )
        fits = self.denoiser.schedule.discrete and self.denoiser.prediction in ("epsilon", "iddpm")
        require(
            not learned or fits,
            f"{name} must have a prediction epsilon and a schedule of steps: got {self.denoiser.prediction} and "
            f"{self.denoiser.schedule.name}",
        )
        require(
            learned or self.sampling.variance != "learned",
            f"sampling.variance learned must have a model with {name}: got one without",
        )


LABELS_OF_AUGMENTATION = 9

_EDM = DenoiserConfig(prediction="edm", schedule=ScheduleConfig(name="edm"))
_EDM_LOSS = DiffusionLoss(weight="edm", times="lognormal")


def _small(name: str, steps: int, width: int, flip: bool = False, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "batch_size": 64,
        "data": DataConfig(name=name, augment=AugmentConfig(flip=flip)),
        "optim": OptimConfig(learning_rate=2e-3, warmup=50, beta2=0.99, weight_decay=0.01),
        "ema": EmaConfig(half_life=64 * 40, ramp=0.1),
        "denoiser": _EDM,
        "loss": dataclasses.replace(_EDM_LOSS, stratified=True),
        "unet": UNetConfig.digits(),
        "sampling": DiffusionSampling(steps=10, guidance=2.0, sigma_max=40.0),
    }
    return Config(preset=name, steps=steps, **values | changes)


PRESETS = {
    "digits": _small("digits", 600, 32),
}

ABOUT = {
    "digits": "0.4 M parameters",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def network(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the network, after its sizes were compared with the images."""
    from eqxgen.models import DiT, UNet

    height, width, channels = facts.shape
    classes = facts.classes if config.conditional else None
    factor = config.unet.factor if config.backbone == "unet" else config.dit.patch
    if height % factor or width % factor:
        flag, why = (
            ("unet.multipliers", "each but the first halves the image, so")
            if config.backbone == "unet"
            else ("dit.patch", "")
        )
        raise UsageError(
            f"--{flag}: {why} {factor} must divide the sides of the images: got {height} x {width}".replace(":  ", ": ")
        )
    if config.backbone == "unet":
        return lambda key: UNet(channels, classes, config.unet, key=key)
    return lambda key: DiT(height, width, channels, classes, config.dit, key=key)


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the denoiser."""
    from eqxgen.diffusion.precondition import denoiser_of

    make = network(config, facts)
    return lambda key: denoiser_of(config.denoiser, make(key))


def loss(config: Config, facts: ImageFacts) -> "Loss":
    """Loss of {"denoiser": ...} with or without "uncertainty", of a batch; see `eqxgen.diffusion.losses`."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.augment.non_leaking import augment
    from eqxgen.diffusion.losses import denoising_loss, dropped
    from eqxgen.diffusion.precondition import WithLabels
    from eqxgen.diffusion.times import time_of_uniform, uniforms

    from .engine.recipe import Context, Sums

    rules, sigma_data, side = config.loss, config.denoiser.sigma_data, facts.shape[0]

    def total(model: dict[str, Any], batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        denoiser, head = model["denoiser"], model.get("uncertainty")
        used = rules if head is not None or rules.weight != "uncertainty" else dataclasses.replace(rules, weight="edm")

        def one(image: jax.Array, label: jax.Array, t: jax.Array, key: jax.Array) -> Any:
            noise_key, label_key, augment_key, key = jr.split(key, 4)
            null = denoiser.null_label
            condition = None if null is None else dropped(label, null, config.label_dropout, key=label_key)
            if config.non_leaking:
                image, labels = augment(image, config.non_leaking, key=augment_key)
                condition = WithLabels(condition, labels)
            noise = jr.normal(noise_key, image.shape)
            return denoising_loss(
                denoiser,
                image,
                t,
                condition,
                noise=noise,
                rules=used,
                sigma_data=sigma_data,
                uncertainty=head,
                levels=facts.levels,
                key=key,
            )

        u = uniforms(jax.vmap(lambda key: jr.fold_in(key, 7))(keys), rules.stratified)
        t = time_of_uniform(denoiser.schedule, u, rules, sigma_data=sigma_data, side=side)
        found, weight = jax.vmap(one)(batch["image"], batch["label"], t, keys), batch["weight"]
        metrics = {"error": weight @ found.error}
        if rules.variance:
            metrics["bound"] = weight @ found.bound
        return Sums(weight @ found.loss, jnp.sum(weight), metrics)

    return total


def program(config: Config, facts: ImageFacts) -> "Program":
    """The denoiser, the learned uncertainty of the weight `uncertainty` beside it, and the loss of both."""
    from eqxgen.diffusion.uncertainty import LogVariance

    from .engine.recipe import Program

    make = model(config, facts)

    def init(key: Any) -> dict[str, Any]:
        head = {"uncertainty": LogVariance()} if config.loss.weight == "uncertainty" else {}
        return {"denoiser": make(key), **head}

    shapes = {"image": (facts.shape, "float32"), "label": ((), "int32")}
    return Program.of(init, loss(config, facts), shapes)


def rules(config: Config, facts: ImageFacts) -> Any:
    """Sampler of an image; see `eqxgen.diffusion.generate`."""
    from eqxgen.diffusion.generate import Rules
    from eqxgen.diffusion.schedules import schedule_of

    return Rules.of(config.sampling, schedule_of(config.denoiser.schedule), facts.shape)


RECIPE = denoising_recipe("diffusion", "Diffusion model", Config, PRESETS, model, program, loss, rules)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
