"""Train a VQGAN tokenizer (arXiv:2012.09841, in the form of MaskGIT, arXiv:2202.04200) on images.

  python -m train.vqgan                                      # digits
  python -m train.vqgan --preset mnist --data.root DATA      # from a folder that has mnist/
  python -m train.vqgan --preset imagenet256 --dry-run       # the MaskGIT paper's: 256 pixels, 16x16 tokens of 1,024

Loss: squared error + quantisation + entropy, and with --adversarial above 0 the non-saturating loss of a discriminator
with an R1 penalty, both players in one update. Writes runs/vqgan-PRESET; `train.maskgit --tokenizer runs/vqgan-PRESET`
takes it from there. In summary.json, sample_accuracy and sample_frechet are of reconstructions.

Where we differ: no perceptual loss (the paper weighs an ImageNet classifier's features with 0.1).
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from eqxgen.configs import VQGANConfig

from ._errors import UsageError, require
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, RECONSTRUCTION
from .config.optim import OptimConfig
from .config.options import option
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig
from .tasks.reconstruction import tokenizer_recipe

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (RECONSTRUCTION, CLASSIFIER)

    quantisation: float = 1.0
    """Weight of the codebook and commitment terms."""
    entropy: float = 0.1
    """Weight of the entropy loss: each latent sure of its code, all codes alike."""
    adversarial: float = option(0.0, first=True)
    """Weight of the discriminator's judgement; 0 trains without one."""
    r1: float = 10.0
    """Weight γ of the penalty γ/2 |gradient|² of the discriminator on real images."""
    restart_every: int = 50
    """Steps between restarts of codes that no latent of a batch chooses; 0: none. They end with four fifths of the
    run.
    """
    model: VQGANConfig = option(factory=VQGANConfig, first=("width", "multipliers", "codes"))
    """The tokenizer."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("quantisation", "entropy", "adversarial", "r1", "restart_every"):
            require(
                0 <= getattr(self, name) < float("inf"),
                f"{name} must be at least 0 and finite: got {getattr(self, name)}",
            )


def _preset(name: str, steps: int, model: VQGANConfig, flip: bool = False, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "batch_size": 64,
        "entropy": 0.01,
        "data": DataConfig(name=name, augment=AugmentConfig(flip=flip)),
        "optim": OptimConfig(learning_rate=3e-3, warmup=50, beta2=0.99, weight_decay=0.0),
    }
    return Config(preset=name, steps=steps, model=model, **values | changes)


PRESETS = {
    "digits": _preset("digits", 500, VQGANConfig(width=32, multipliers=(1, 2), blocks=1, latent_dim=8, codes=64)),
    "mnist": _preset("mnist", 400, VQGANConfig(width=16, multipliers=(1, 2, 4), blocks=1, latent_dim=16, codes=128)),
    "fashion_mnist": _preset(
        "fashion_mnist", 800, VQGANConfig(width=16, multipliers=(1, 2, 4), blocks=1, latent_dim=16, codes=256)
    ),
    "cifar10": _preset(
        "cifar10", 30_000, VQGANConfig(width=64, multipliers=(1, 2, 2), latent_dim=64, codes=1024), flip=True
    ),
    "eurosat64": _preset(
        "eurosat64", 20_000, VQGANConfig(width=64, multipliers=(1, 2, 2), latent_dim=64, codes=1024), flip=True
    ),
    # Adam 1e-4 (0, 0.99), R1 10, batch 256, 1 M steps, average 0.999: the original code's.
    "imagenet256": Config(
        preset="imagenet256",
        steps=1_000_000,
        batch_size=256,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        adversarial=0.1,
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=OptimConfig(
            learning_rate=1e-4, warmup=0, decay="constant", beta1=0.0, beta2=0.99, weight_decay=0.0, clip=float("inf")
        ),
        model=VQGANConfig.maskgit(),
    ),
}


ABOUT = {
    "digits": "0.37 M parameters; 500 steps of 64",
    "mnist": "0.39 M parameters; 6 minutes on 2 CPU cores; psnr 23.8, codebook_usage 1.0",
    "fashion_mnist": "0.40 M parameters; 800 steps of 64",
    "cifar10": "4.3 M parameters; 30,000 steps of 64, for a GPU",
    "eurosat64": "4.3 M parameters; 20,000 steps of 64, for a GPU",
    "imagenet256": "54 M parameters; 1 M steps of 256, for a TPU slice",
}
"""Size, time and the number to expect of each preset, where it was measured; without the discriminator."""


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the tokenizer."""
    from eqxgen.models import VQGAN

    if any(side % config.model.factor for side in facts.shape[:2]):
        raise UsageError(
            f"--model.multipliers: each but the first halves the image, so {config.model.factor} must divide its "
            f"sides: got images of {facts.shape}"
        )
    return lambda key: VQGAN(*facts.shape, config.model, key=key)


def program(config: Config, facts: ImageFacts) -> "Program":
    """The tokenizer with its discriminator, and their loss."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.losses.adversarial import discriminator_loss, generator_loss, held, r1_penalty
    from eqxgen.losses.reconstruction import tokenizer_losses
    from eqxgen.models import Discriminator
    from eqxgen.nn.quantize import count_codes, perplexity, usage

    from .engine.recipe import Context, Program, Sums

    tokenizer = model(config, facts)
    height, _, channels = facts.shape
    weights = {"quantisation": config.quantisation, "entropy": config.entropy}

    def init(key: jax.Array) -> dict[str, Any]:
        tokenizer_key, discriminator_key = jr.split(key)
        players: dict[str, Any] = {"tokenizer": tokenizer(tokenizer_key)}
        if config.adversarial:
            players["discriminator"] = Discriminator(height, channels, key=discriminator_key)
        return players

    def loss(model: dict[str, Any], batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        images, weight = batch["image"], batch["weight"]
        fakes, quantized = jax.vmap(model["tokenizer"])(images)
        found = tokenizer_losses(images, fakes, quantized, weight, **weights, total=context.sum)
        count = jnp.sum(weight)
        counts = context.sum(weight @ jax.vmap(functools.partial(count_codes, codes=config.model.codes))(quantized.ids))
        losses = found.total
        metrics = {
            "mse": weight @ found.squared_error,
            "distance": weight @ found.distance,
            "usage": count * usage(counts),
            "perplexity": count * perplexity(counts),
        }
        if config.adversarial:
            generator, critic, gap = adversarial(model["discriminator"], images, fakes)
            losses = losses + config.adversarial * generator + critic
            metrics |= {"generator": weight @ generator, "discriminator": weight @ critic, "realness_gap": weight @ gap}
        return Sums(weight @ losses, count, metrics)

    def adversarial(
        discriminator: Discriminator, reals: jax.Array, fakes: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        # Each player's loss holds the other still, so that one gradient of their sum is the update of both.
        generator = generator_loss(jax.vmap(held(discriminator))(fakes))
        on_real, penalty = jax.vmap(functools.partial(r1_penalty, discriminator))(reals)
        on_fake = jax.vmap(discriminator)(held(fakes))
        return generator, discriminator_loss(on_real, on_fake) + config.r1 * penalty, on_real - on_fake

    return Program.of(init, loss, {"image": (facts.shape, "float32")}, changes=changes(config))


def changes(config: Config) -> dict[str, Any]:
    """The codebook placed on data before the first step, and its dead codes restarted every so often."""
    import equinox as eqx
    import jax

    from eqxgen.nn.quantize import data_start, restart_dead_codes

    from .engine.recipe import Change, Context

    def placed(place: Any) -> Any:
        def change(model: dict[str, Any], batch: dict[str, jax.Array], key: jax.Array, context: Context) -> Any:
            latents = jax.vmap(model["tokenizer"].encoder)(batch["image"])
            quantizer = place(model["tokenizer"].quantizer, latents.reshape(-1, latents.shape[-1]), key=key)
            return eqx.tree_at(lambda m: m["tokenizer"].quantizer, model, quantizer), context.state

        return change

    every = config.restart_every
    restarts = lambda step: bool(every) and 0 < step < 0.8 * config.steps and step % every == 0
    return {
        "start": Change(placed(data_start), lambda step: step == 0),
        "restart": Change(placed(restart_dead_codes), restarts),
    }


RECIPE = tokenizer_recipe(
    "vqgan", "VQGAN tokenizer", Config, PRESETS, model, program, released=lambda model, state: model["tokenizer"]
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
