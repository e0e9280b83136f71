"""Train an autoencoder with a Gaussian of latents (Rombach et al. 2022, arXiv:2112.10752), Stable Diffusion's form.

  python -m train.klvae                                      # digits
  python -m train.klvae --preset mnist --data.root DATA      # from a folder that has mnist/
  python -m train.klvae --preset sd-f8 --dry-run             # the paper's f=8: 256 pixels, 32x32 latents of 4 channels

Loss, summed over the values of an image: absolute error + --kl · divergence of the latents from the standard normal,
and with --adversarial above 0 the loss of a discriminator from step --adversarial-start on, which has an optimiser of
its own (--discriminator.*). --model.widths has the channels of each level; the image is halved between levels: three
levels are f=4, four f=8, five f=16. Writes runs/klvae-PRESET, whose pictures have held-out images above their
reconstructions. In summary.json, psnr, sample_accuracy and sample_frechet are of reconstructions.

Where we differ: no perceptual loss; the discriminator is the tokenizer's with the non-saturating loss, and its weight
is fixed, against the mean absolute error.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eqxgen.configs import AutoencoderConfig

from ._errors import require
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, FIDELITY, LATENTS
from .config.optim import DiscriminatorConfig, OptimConfig
from .config.options import option
from .tasks.autoencoders import latent_recipe
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig, check_sides

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (LATENTS, CLASSIFIER, FIDELITY)

    kl: float = option(1e-6, first=True)
    """Weight of the divergence, both it and the absolute error summed over the image."""
    adversarial: float = option(0.0, first=True)
    """Weight of the discriminator's judgement against the mean absolute error; 0 trains without one."""
    adversarial_start: int = 0
    """Step from which the discriminator is trained and judges."""
    discriminator: DiscriminatorConfig = option(factory=DiscriminatorConfig)
    """The discriminator's optimiser."""
    model: AutoencoderConfig = option(factory=AutoencoderConfig, first=("widths", "blocks", "latent_dim"))
    """The autoencoder."""

    @property
    def unread(self) -> Mapping[str, str]:
        names = () if self.adversarial else ("discriminator.", "adversarial_start")
        return dict.fromkeys(names, "--adversarial above 0")

    def __post_init__(self):
        super().__post_init__()
        for name in ("kl", "adversarial"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{name} must be at least 0 and finite: got {value}")
        start = self.adversarial_start
        require(start >= 0, f"adversarial_start must be at least 0: got {start}")
        require(
            not self.adversarial or start < self.steps,
            f"adversarial_start must be before the last of steps={self.steps}: got {start}; with a later one the "
            "discriminator has no part",
        )


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
    # KL weight 1e-6, discriminator 0.5 from step 50,001, batch 12 of 2 micro-batches: the original code's.
    "sd-f8": Config(
        preset="sd-f8",
        steps=400_000,
        batch_size=24,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        adversarial=0.5,
        adversarial_start=50_001,
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=OptimConfig(**_PAPER),
        discriminator=DiscriminatorConfig(**_PAPER),
        model=AutoencoderConfig.latent_diffusion(8),
    ),
}


ABOUT = {
    "digits": "0.24 M parameters; 1,000 steps of 64",
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
    """The autoencoder and its discriminator as two players of one turn."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.losses.adversarial import discriminator_loss, generator_loss, held
    from eqxgen.models import Discriminator

    from .engine.recipe import Context, Player, Program, Sums, Turn

    make, values = model(config, facts), math.prod(facts.shape)
    two = config.adversarial > 0

    def init(key: jax.Array) -> dict[str, Any]:
        autoencoder_key, discriminator_key = jr.split(key)
        players: dict[str, Any] = {"autoencoder": make(autoencoder_key)}
        if two:
            players["discriminator"] = Discriminator(facts.shape[0], facts.shape[2], key=discriminator_key)
        return players

    def loss(model: dict[str, Any], batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        images, weight = batch["image"], batch["weight"]
        autoencoder = model["autoencoder"]
        seen = images.astype(autoencoder.encoder.stem.weight.dtype)
        fakes, posterior = jax.vmap(lambda image, key: autoencoder(image, key=key))(seen, keys)
        divergence = jax.vmap(lambda one: one.divergence())(posterior)
        error = jnp.mean(jnp.abs(images.astype(jnp.float32) - fakes), axis=(1, 2, 3))
        losses = values * error + config.kl * divergence
        metrics = {"absolute_error": weight @ error, "divergence": weight @ divergence}
        if two:
            generator, critic = adversarial(model["discriminator"], images, fakes)
            begun = (jnp.asarray(context.step) >= config.adversarial_start).astype(jnp.float32)
            losses = losses + begun * (values * config.adversarial * generator + critic)
            metrics |= {"generator": weight @ generator, "discriminator": weight @ critic}
        return Sums(weight @ losses, jnp.sum(weight), metrics)

    def adversarial(discriminator: Any, reals: jax.Array, fakes: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Each player's loss holds the other still, so that one gradient of their sum is the update of both.
        generator = generator_loss(jax.vmap(held(discriminator))(fakes))
        return generator, discriminator_loss(jax.vmap(discriminator)(reals), jax.vmap(discriminator)(held(fakes)))

    players = {"generator": Player("autoencoder")}
    if two:
        players["discriminator"] = Player("discriminator", config.discriminator)
    return Program(
        init=init,
        turns={"main": Turn(loss, tuple(players))},
        shapes={"image": (facts.shape, "float32")},
        players=players,
    )


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
