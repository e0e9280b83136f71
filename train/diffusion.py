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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from eqxgen.configs import (
    DenoiserConfig,
    DiffusionLoss,
    DiffusionSampling,
    DiTConfig,
    ScheduleConfig,
    UNetConfig,
    UViTConfig,
)

from ._errors import UsageError, require
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, FIDELITY, HELD_OUT, TRAINED_ON_SAMPLES
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.denoising import denoising_recipe
from .tasks.encoded.latents import autoencoder_of, drawn, example_shapes, latents_of, untrained
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Loss, Program

Backbone = Literal["unet", "dit", "uvit"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (HELD_OUT, CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES)

    backbone: Backbone = option("unet", first=True)
    """Network: unet, dit or uvit."""
    conditional: bool = True
    """The network is given the class."""
    label_dropout: float = 0.1
    """Share of the examples whose label training hides, for guidance."""
    non_leaking: float = 0.0
    """Probability of each geometric augmentation of EDM, whose parameters the unet is given as well: 0.12 there."""
    autoencoder: str = ""
    """Folder of a KL autoencoder, published or of a run, whose latents are denoised; by default pixels are, or what
    --data.name has prepared."""
    autoencoder_scale: float | None = None
    """Factor of all channels of these latents; by default the published one, 0.18215 of Stable Diffusion. Prepared
    latents have statistics of their own."""
    denoiser: DenoiserConfig = option(factory=DenoiserConfig, first=("prediction",))
    """Prediction of the network, and noise schedule."""
    loss: DiffusionLoss = option(factory=DiffusionLoss)
    """Weight, distance, and distribution of the noise levels."""
    unet: UNetConfig = option(factory=UNetConfig, first=("width", "multipliers"))
    """The U-Net."""
    dit: DiTConfig = option(factory=DiTConfig, first=("dim", "depth", "heads", "patch"))
    """The transformer."""
    uvit: UViTConfig = option(factory=UViTConfig)
    """The transformer with long skips."""
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
            not (self.autoencoder and self.non_leaking),
            f"non_leaking must be 0 with --autoencoder, as it moves pixels: got {self.non_leaking}",
        )
        scale = self.autoencoder_scale
        require(
            scale is None or 0 < scale < float("inf"),
            f"autoencoder_scale must be above 0 and finite: got {scale}",
        )
        require(
            self.conditional or self.backbone != "dit",
            "conditional must be true with backbone dit: got false; unet and uvit go without classes",
        )
        require(self.uvit.null, "uvit.null must be true, for guidance: got false; --no-conditional has no classes")
        known = self.unet.augment if self.backbone == "unet" else 0
        require(
            self.non_leaking == 0 or known == LABELS_OF_AUGMENTATION,
            f"non_leaking must have a unet with --unet.augment {LABELS_OF_AUGMENTATION}, the parameters of its "
            f"augmentations: got backbone {self.backbone} with {known}",
        )

    @property
    def unread(self) -> Mapping[str, str]:
        return {f"{name}.": f"--backbone {name}" for name in get_args(Backbone) if name != self.backbone}

    def _check_variance(self) -> None:
        name = f"{'unet' if self.backbone == 'uvit' else self.backbone}.learn_variance"
        learned = getattr(getattr(self, self.backbone), "learn_variance", False)
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
_LARGER = dataclasses.replace(_EDM_LOSS, mean=0.0, stratified=True)


def _adam(learning_rate: float, warmup: int = 0) -> OptimConfig:
    """Adam without weight decay at a constant rate."""
    return OptimConfig(learning_rate=learning_rate, warmup=warmup, decay="constant", beta2=0.999, weight_decay=0.0)


def _dit(dim: int, depth: int, patch: int) -> DiTConfig:
    return DiTConfig(dim=dim, depth=depth, heads=dim // 32, hidden_dim=4 * dim, patch=patch, learn_variance=False)


def _small(name: str, steps: int, dit: DiTConfig, flip: bool = False, **changes: Any) -> Config:
    """EDM's preconditioning, loss and times with a small transformer."""
    values: dict[str, Any] = {
        "batch_size": 64,
        "backbone": "dit",
        "data": DataConfig(name=name, augment=AugmentConfig(flip=flip)),
        "optim": OptimConfig(learning_rate=2e-3, warmup=50, beta2=0.99, weight_decay=0.01),
        "ema": EmaConfig(half_life=2560.0, ramp=0.1),
        "denoiser": _EDM,
        "loss": dataclasses.replace(_EDM_LOSS, stratified=True),
        "dit": dit,
        "sampling": DiffusionSampling(steps=12, sampler="dpmpp_2m", guidance=2.0, sigma_max=40.0),
    }
    return Config(preset=name, steps=steps, **values | changes)


PRESETS = {
    "digits": _small("digits", 1000, _dit(96, 4, 2)),
    # Larger images show through more noise: the mean of the levels grows with the side (Hoogeboom et al. 2023).
    "mnist": _small("mnist", 2500, _dit(128, 4, 4), loss=_LARGER),
    "fashion_mnist": _small("fashion_mnist", 4000, _dit(128, 4, 4), loss=_LARGER, flip=True),
    # Ho et al. 2020, appendix B: no classes, 800,000 steps of Adam at 2e-4, average 0.9999.
    "cifar10": Config(
        preset="cifar10",
        steps=800_000,
        batch_size=128,
        log_every=100,
        sample_every=20_000,
        checkpoint_every=5000,
        conditional=False,
        data=DataConfig(name="cifar10", augment=AugmentConfig(flip=True)),
        optim=_adam(2e-4, 5000),
        ema=EmaConfig(decay=0.9999),
        sampling=DiffusionSampling(steps=50, sampler="ddim", grid="linspace"),
    ),
    # Karras et al. 2022, table 7 and appendix F: 200 M images, rise of the learning rate over 10 M, half-life 0.5 M.
    "cifar10-edm": Config(
        preset="cifar10-edm",
        steps=200_000_000 // 512,
        batch_size=512,
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        label_dropout=0.0,
        non_leaking=0.12,
        data=DataConfig(name="cifar10"),
        optim=_adam(1e-3, 10_000_000 // 512),
        ema=EmaConfig(half_life=500_000.0, ramp=0.05),
        denoiser=_EDM,
        loss=_EDM_LOSS,
        unet=UNetConfig.ddpmpp(),
    ),
    # The same, table 7: 2,500 M images, half-life 50 M, dropout 0.1, and the stochastic sampler's numbers of table 5.
    "imagenet64-edm": Config(
        preset="imagenet64-edm",
        steps=2_500_000_000 // 4096,
        batch_size=4096,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        label_dropout=0.0,
        data=DataConfig(name="./imagenet/train", image_size=64, augment=AugmentConfig(flip=True)),
        optim=_adam(1e-4, 10_000_000 // 4096),
        ema=EmaConfig(half_life=50_000_000.0, ramp=0.05),
        denoiser=_EDM,
        loss=_EDM_LOSS,
        unet=dataclasses.replace(UNetConfig.edm_adm(), remat=True),
        sampling=DiffusionSampling(steps=256, sampler="churn"),
    ),
    # Peebles and Xie 2023, section 4 and the original code: AdamW 1e-4 constant without decay, average 0.9999, latents
    # of Stable Diffusion, learned variance; guidance of three channels in the released sampler.
    "imagenet256-dit": Config(
        preset="imagenet256-dit",
        steps=7_000_000,
        batch_size=256,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        backbone="dit",
        autoencoder="./sd-vae-ft-ema",
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=_adam(1e-4),
        ema=EmaConfig(decay=0.9999),
        loss=DiffusionLoss(variance=0.001),
        dit=dataclasses.replace(DiTConfig.xlarge(), remat=True),
        sampling=DiffusionSampling(
            steps=250, sampler="ddpm", grid="linspace", variance="learned", guidance=1.5, channels=3
        ),
    ),
    # Text Brush's U-ViT, noise and DDIM, with betas from 1e-4, where it has 1e-3; its optimisation is not known to us.
    "textbrush": _small(
        "mnist",
        5000,
        _dit(128, 4, 4),
        backbone="uvit",
        uvit=UViTConfig.textbrush(),
        denoiser=DenoiserConfig(),
        loss=DiffusionLoss(),
        sampling=DiffusionSampling(steps=50, sampler="ddim", grid="trailing", guidance=2.0),
    ),
    # Pax's U-Net and its cosine schedule and L1 distance; optimisation is ours.
    "celeba64": Config(
        preset="celeba64",
        steps=100_000,
        batch_size=64,
        log_every=100,
        sample_every=5000,
        checkpoint_every=5000,
        conditional=False,
        data=DataConfig(name="./celeba", image_size=64, augment=AugmentConfig(flip=True)),
        optim=_adam(1e-4, 1000),
        ema=EmaConfig(decay=0.9999),
        denoiser=DenoiserConfig(schedule=ScheduleConfig(name="cosine")),
        loss=DiffusionLoss(distance="l1"),
        unet=UNetConfig.pax(),
        sampling=DiffusionSampling(steps=50, sampler="ddim", grid="trailing"),
    ),
}

ABOUT = {
    "digits": "0.72 M parameters; 86 s on 2 CPU cores; sample_accuracy 0.969, recall_judge 0.83",
    "mnist": "1.28 M parameters; 16 minutes on 2 CPU cores beside other work; sample_accuracy 0.991, recall_judge 0.82",
    "fashion_mnist": "1.28 M parameters; 4,000 steps of 64",
    "cifar10": "35.7 M parameters; 800,000 steps of 128, for a GPU; the paper's FID is 3.17",
    "cifar10-edm": "56.3 M parameters; 390,625 steps of 512, for GPUs; the paper's FID is 1.79 with 35 evaluations",
    "imagenet64-edm": "296 M parameters; 610,351 steps of 4,096, for a TPU slice; the paper's FID is 1.36",
    "imagenet256-dit": "675 M parameters; 7 M steps of 256, for a TPU slice; the paper's FID is 2.27",
    "textbrush": "1.50 M parameters; 5,000 steps of 64",
    "celeba64": "63.6 M parameters; 100,000 steps of 64, for a GPU",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def example_shape(config: Config, facts: ImageFacts) -> tuple[int, int, int]:
    """Shape of what is denoised: images or their latents."""
    latents = latents_of(config.autoencoder, facts)
    return facts.shape if latents is None else latents.shape


def network(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the network, after its sizes were compared with the images."""
    from eqxgen.models import DiT, UNet, UViT

    shape, sizes = example_shape(config, facts), getattr(config, config.backbone)
    classes = facts.classes if config.conditional else None
    factor = sizes.factor if config.backbone == "unet" else sizes.patch
    if shape[0] % factor or shape[1] % factor:
        flag = (
            "--unet.multipliers: each but the first halves the image, so"
            if config.backbone == "unet"
            else (f"--{config.backbone}.patch:")
        )
        raise UsageError(f"{flag} {factor} must divide the sides of the images: got {shape[0]} x {shape[1]}")
    if config.backbone == "unet":
        return lambda key: UNet(shape[2], classes, sizes, key=key)
    kind: Any = DiT if config.backbone == "dit" else UViT
    return lambda key: kind(*shape, classes, sizes, key=key)


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

    rules, sigma_data, side = config.loss, config.denoiser.sigma_data, example_shape(config, facts)[0]
    latents, names = latents_of(config.autoencoder, facts), example_shapes(facts)
    if config.non_leaking and "image" not in names:
        raise UsageError(f"--non-leaking must be 0 with latents, as it moves pixels: got {config.non_leaking}")

    def total(model: dict[str, Any], batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        denoiser, head = model["denoiser"], model.get("uncertainty")
        used = rules if head is not None or rules.weight != "uncertainty" else dataclasses.replace(rules, weight="edm")

        def one(example: dict[str, jax.Array], t: jax.Array, key: jax.Array) -> Any:
            noise_key, label_key, augment_key, latent_key, key = jr.split(key, 5)
            null = denoiser.null_label
            condition = None if null is None else dropped(example["label"], null, config.label_dropout, key=label_key)
            if config.non_leaking:
                image, labels = augment(example["image"], config.non_leaking, key=augment_key)
                example, condition = example | {"image": image}, WithLabels(condition, labels)
            if latents is None:
                image = example["image"]
            else:
                image = drawn(latents, example, context.frozen, key=latent_key)
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
        found, weight = jax.vmap(one)({name: batch[name] for name in names}, t, keys), batch["weight"]
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

    frozen = lambda: autoencoder(config, facts)
    return Program.of(init, loss(config, facts), example_shapes(facts), frozen=frozen)


def autoencoder(config: Config, facts: ImageFacts) -> Any:
    """The frozen autoencoder, or None."""
    if latents_of(config.autoencoder, facts) is None:
        return None
    return untrained(facts) if config.on_paper else autoencoder_of(config.autoencoder, facts)


def rules(config: Config, facts: ImageFacts) -> Any:
    """Sampler of an image; see `eqxgen.diffusion.generate`."""
    from eqxgen.diffusion.generate import Rules
    from eqxgen.diffusion.schedules import schedule_of

    try:
        return Rules.of(config.sampling, schedule_of(config.denoiser.schedule), example_shape(config, facts))
    except ValueError as error:
        raise UsageError(f"--{error}") from None


RECIPE = denoising_recipe("diffusion", "Diffusion model", Config, PRESETS, model, program, loss, rules)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
