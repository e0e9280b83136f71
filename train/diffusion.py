"""Train a diffusion or flow model of images, class-conditional by default.

  python -m train.diffusion                                  # digits
  python -m train.diffusion --preset mnist --data.root DATA  # from a folder that has mnist/
  python -m train.diffusion --preset imagenet64-edm --dry-run
  python -m train.sample --run runs/diffusion-digits --steps 12 --sampler heun --guidance 2 --interval 0.3,5

Loss: weight(level) times a distance of the denoised image, whatever the network predicts (eqxgen.diffusion), or that of
an objective of few steps (eqxgen.diffusion.few_step): meanflow, shortcut, consistency. Labels are dropped for
classifier-free guidance. Writes runs/diffusion-PRESET with samples/ and denoising.webp, a film of ancestral sampling
beside DDIM; summary.json has the accuracy of a classifier on samples.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from eqxgen.configs import (
    DenoiserConfig,
    DiffusionLoss,
    DiffusionSampling,
    DiTConfig,
    FewStepLoss,
    PaxUNetConfig,
    UNetConfig,
    UViTConfig,
)

from ._errors import UsageError, require
from .config.evals import CLASSIFIER, FIDELITY, HELD_OUT, TRAINED_ON_SAMPLES
from .config.options import option
from .tasks.denoising import denoising_recipe
from .tasks.diffusion.few_step import check, few_step, open_teacher, target, unread_by
from .tasks.diffusion.loss import denoising
from .tasks.diffusion.presets import ABOUT, VALUES
from .tasks.encoded.latents import autoencoder_of, example_shapes, latents_of, untrained
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Loss, Program

Backbone = Literal["unet", "dit", "uvit", "pax_unet"]
Objective = Literal["denoise", "meanflow", "improved_meanflow", "shortcut", "consistency"]
LABELS_OF_AUGMENTATION = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (HELD_OUT, CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES)

    objective: Objective = option("denoise", first=True)
    """Training: denoise, of many steps; of one step or a few meanflow, improved_meanflow and shortcut, average
    velocities of a flow, or consistency."""
    backbone: Backbone = option("unet", first=True)
    """Network: unet, dit, uvit or pax_unet."""
    conditional: bool = True
    """The network is given the class."""
    label_dropout: float = 0.1
    """Share of the examples whose label training hides, for guidance."""
    non_leaking: float = 0.0
    """Probability of each geometric augmentation of EDM, whose parameters the unet is given as well: 0.12 there."""
    autoencoder: str = option("", moves=True)
    """Folder of a KL autoencoder, published or of a run, whose latents are denoised; by default pixels are, or what
    --data.name has prepared."""
    autoencoder_scale: float | None = None
    """Factor of all channels of these latents; by default the published one, 0.18215 of Stable Diffusion. Prepared
    latents have statistics of their own."""
    teacher: str = option("", moves=True)
    """With --objective consistency: folder of a run of this recipe, which is distilled; none by default."""
    denoiser: DenoiserConfig = option(factory=DenoiserConfig, first=("prediction",))
    """Prediction of the network, and noise schedule."""
    loss: DiffusionLoss = option(factory=DiffusionLoss)
    """Weight, distance, and distribution of the noise levels."""
    few_step: FewStepLoss = option(factory=FewStepLoss, first=("guidance",))
    """Objectives of few steps."""
    unet: UNetConfig = option(factory=UNetConfig, first=("width", "multipliers"))
    """The U-Net."""
    dit: DiTConfig = option(factory=DiTConfig, first=("dim", "depth", "heads", "patch"))
    """The transformer."""
    uvit: UViTConfig = option(factory=UViTConfig)
    """The transformer with long skips."""
    pax_unet: PaxUNetConfig = option(factory=PaxUNetConfig)
    """The U-Net with linear attention of Pax's example."""
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
        self.sampling.check_guidance()
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
            scale is None or bool(self.autoencoder),
            "autoencoder_scale goes with --autoencoder on images, which was not given",
        )
        require(
            self.conditional or self.backbone != "dit",
            "conditional must be true with backbone dit: got false; the others go without classes",
        )
        require(self.uvit.null, "uvit.null must be true, for guidance: got false; --no-conditional has no classes")
        known = self.unet.augment if self.backbone == "unet" else 0
        require(
            self.non_leaking == 0 or known == LABELS_OF_AUGMENTATION,
            f"non_leaking must have a unet with --unet.augment {LABELS_OF_AUGMENTATION}, the parameters of its "
            f"augmentations: got backbone {self.backbone} with {known}",
        )
        check(self)

    def check_given(self, given: Collection[str]) -> None:
        if self.denoiser.schedule.discrete and not {"sampling.sigma_min", "sampling.grid"}.isdisjoint(given):
            from eqxgen.diffusion.generate import check_least
            from eqxgen.diffusion.schedules import schedule_of

            try:
                check_least(self.sampling, schedule_of(self.denoiser.schedule))
            except ValueError as error:
                raise UsageError(f"--{error}") from None

    @property
    def unread(self) -> Mapping[str, str]:
        others = {f"{name}.": f"--backbone {name}" for name in get_args(Backbone) if name != self.backbone}
        return {**others, **unread_by(self.objective)}

    def _check_variance(self) -> None:
        name = f"{'dit' if self.backbone == 'dit' else 'unet'}.learn_variance"
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


PRESETS = {name: Config(preset=name, **values) for name, values in VALUES.items()}


def example_shape(config: Config, facts: ImageFacts) -> tuple[int, int, int]:
    """Shape of what is denoised: images or their latents."""
    latents = latents_of(config.autoencoder, facts)
    return facts.shape if latents is None else latents.shape


def network(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the network, after its sizes were compared with the images."""
    from eqxgen.models import DiT, PaxUNet, UNet, UViT

    shape, sizes = example_shape(config, facts), getattr(config, config.backbone)
    classes = facts.classes if config.conditional else None
    halving, name = config.backbone in ("unet", "pax_unet"), config.backbone.replace("_", "-")
    factor = sizes.factor if halving else sizes.patch
    if shape[0] % factor or shape[1] % factor:
        flag = f"--{name}.multipliers: each but the first halves the image, so" if halving else f"--{name}.patch:"
        raise UsageError(f"{flag} {factor} must divide the sides of the images: got {shape[0]} x {shape[1]}")
    if halving:
        net: Any = UNet if config.backbone == "unet" else PaxUNet
        return lambda key: net(shape[2], classes, sizes, key=key)
    kind: Any = DiT if config.backbone == "dit" else UViT
    return lambda key: kind(*shape, classes, sizes, key=key)


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the denoiser."""
    from eqxgen.diffusion.precondition import denoiser_of

    make = network(config, facts)
    return lambda key: denoiser_of(config.denoiser, make(key))


def loss(config: Config, facts: ImageFacts, *, last: bool = False) -> "Loss":
    """Loss of {"denoiser": ...} with or without "uncertainty", of a batch, by the objective.

    Args:
        last: as at the end of training, for held-out examples.
    """
    if config.objective == "denoise":
        return denoising(config, facts, example_shape(config, facts)[0])
    return few_step(config, facts, last=last)


def held_out(config: Config, facts: ImageFacts) -> "Loss":
    """Loss of held-out examples."""
    return loss(config, facts, last=True)


def program(config: Config, facts: ImageFacts) -> "Program":
    """The denoiser, the learned uncertainty of the weight `uncertainty` beside it, and the loss of both."""
    from eqxgen.diffusion.uncertainty import LogVariance

    from .engine.recipe import Program

    make = model(config, facts)

    def init(key: Any) -> dict[str, Any]:
        learned = config.objective == "denoise" and config.loss.weight == "uncertainty"
        return {"denoiser": make(key)} | ({"uncertainty": LogVariance()} if learned else {})

    still, state = lambda: frozen(config, facts), lambda model: target(config, model)
    return Program.of(init, loss(config, facts), example_shapes(facts), frozen=still, init_state=state)


def frozen(config: Config, facts: ImageFacts) -> Any:
    """The frozen autoencoder or teacher, or None."""
    if config.teacher:
        return model(config, facts)(_key()) if config.on_paper else open_teacher(config, facts)
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


def _key() -> Any:
    import jax.random as jr

    return jr.key(0)


RECIPE = denoising_recipe("diffusion", "Diffusion model", Config, PRESETS, model, program, held_out, rules)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
