"""Train an autoencoder with a Gaussian of latents (Rombach et al. 2022, arXiv:2112.10752), Stable Diffusion's form.

  python -m train.klvae                                      # digits
  python -m train.klvae --preset mnist --data.root DATA      # from a folder that has mnist/
  python -m train.klvae --preset sd-f8 --dry-run             # the paper's f=8: 256 pixels, 32x32 latents of 4 channels

Loss, summed over the values of an image: absolute error, perceptual distance (--perceptual, with the user's file of
weights) and --kl · divergence of the latents from the standard normal; with --adversarial above 0 that of a
discriminator (--critic, --adversarial-form) from step --adversarial-start on, which has an optimiser of its own
(--discriminator.*) and whose weight follows the gradients with --adaptive. --model.widths has the channels of each
level; the image is halved between levels: three levels are f=4, four f=8, five f=16. Writes runs/klvae-PRESET, whose
pictures have held-out images above their reconstructions. In summary.json, psnr, sample_accuracy and sample_frechet are
of reconstructions.

Where we differ: the paper's variance of the pixels stays at 1, its first value, which the original code never trains.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

from eqxgen.configs import AutoencoderConfig

from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, FIDELITY, LATENTS
from .config.optim import DiscriminatorConfig, OptimConfig
from .config.options import option
from .tasks.autoencoders import latent_recipe
from .tasks.facts import ImageFacts
from .tasks.images import check_sides
from .tasks.judged.config import JudgedConfig, check_weights

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(JudgedConfig):
    """Every flag starts from the preset's value."""

    EVALS = (LATENTS, CLASSIFIER, FIDELITY)

    kl: float = option(1e-6, first=True)
    """Weight of the divergence, both it and the pixels' loss summed over the image."""
    pixel_loss: Literal["l1", "l2"] = "l1"
    """Loss of the pixels in [-1, 1]."""
    r1: float = 0.0
    """Weight γ of the penalty γ/2 |gradient|² of the style discriminator on real images; 0: none."""
    model: AutoencoderConfig = option(factory=AutoencoderConfig, first=("widths", "blocks", "latent_dim"))
    """The autoencoder."""

    @property
    def sizes(self) -> AutoencoderConfig:
        """Sizes of the net."""
        return self.model

    def __post_init__(self):
        super().__post_init__()
        check_weights(self, "kl")


def _preset(name: str, steps: int, model: AutoencoderConfig, flip: bool = False) -> Config:
    rule: dict[str, Any] = {"learning_rate": 2e-3, "warmup": 50, "beta2": 0.99, "weight_decay": 0.0}
    return Config(
        preset=name,
        steps=steps,
        batch_size=64,
        model=model,
        data=DataConfig(name=name, augment=AugmentConfig(flip=flip)),
        optim=OptimConfig(clip=math.inf, **rule),
        discriminator=DiscriminatorConfig(clip=math.inf, **rule),
    )


# Adam 4.5e-6 times the batch (0.5, 0.9) of the original code, for both players.
_PAPER: dict[str, Any] = {
    "learning_rate": 4.5e-6 * 24,
    "warmup": 0,
    "decay": "constant",
    "beta1": 0.5,
    "beta2": 0.9,
    "weight_decay": 0.0,
    "clip": math.inf,
}

PRESETS = {
    "digits": _preset("digits", 1000, AutoencoderConfig(widths=(16, 32, 32), blocks=1, groups=8)),
    "mnist": _preset("mnist", 1500, AutoencoderConfig(widths=(16, 32, 32), blocks=1, groups=8)),
    "cifar10": _preset("cifar10", 30_000, AutoencoderConfig(widths=(64, 128, 128)), flip=True),
    # KL weight 1e-6, LPIPS at 1, hinge on patches at 0.5 from step 50,001, batch 12 of 2 micro-batches: the original
    # code's (autoencoder_kl_32x32x4.yaml).
    "sd-f8": Config(
        preset="sd-f8",
        steps=400_000,
        batch_size=24,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        perceptual=1.0,
        perceptual_net="./lpips-vgg.pth",
        adversarial=0.5,
        adversarial_form="hinge",
        adversarial_start=50_001,
        adaptive=True,
        alternate=True,
        critic="patch",
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=OptimConfig(**_PAPER),
        discriminator=DiscriminatorConfig(**_PAPER),
        model=AutoencoderConfig.latent_diffusion(8),
    ),
}


ABOUT = {
    "digits": "0.24 M parameters; 155 s of one CPU core beside other work; psnr 20.3",
    "mnist": "0.24 M parameters; 1,500 steps of 64",
    "cifar10": "5.1 M parameters; 30,000 steps of 64, for a GPU",
    "sd-f8": "84 M parameters; 400,000 steps of 24, for a TPU slice",
}
"""Size, time and the number to expect of each preset, where it was measured; without the discriminator."""


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the autoencoder."""
    from eqxgen.models import KLAutoencoder

    check_sides("--model.widths: each but the first halves the image, so", config.model.factor, facts.shape)
    return lambda key: KLAutoencoder(facts.shape[2], config.model, key=key)


def program(config: Config, facts: ImageFacts) -> "Program":
    """The autoencoder and its discriminator as two players."""
    from .tasks.judged.gaussian import autoencoder_program
    from .tasks.judged.nets import check_discriminator, perceptual_net

    check_discriminator(config, facts)
    return autoencoder_program(config, facts, model(config, facts), lambda: perceptual_net(config, facts))


RECIPE = latent_recipe(
    "klvae",
    "KL autoencoder",
    Config,
    PRESETS,
    model,
    program,
    released=lambda model, _: model["autoencoder"],
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
