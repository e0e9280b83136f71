"""Train a VQGAN tokenizer (arXiv:2012.09841, in the form of MaskGIT, arXiv:2202.04200) on images.

  python -m train.vqgan                                      # digits
  python -m train.vqgan --preset mnist --data.root DATA      # from a folder that has mnist/
  python -m train.vqgan --preset imagenet256 --dry-run       # the MaskGIT paper's: 256 pixels, 16x16 tokens of 1,024

Loss: squared error + quantisation + entropy, and with --adversarial above 0 the non-saturating loss of a discriminator,
which has an optimiser of its own (--discriminator.*) and an R1 penalty every 16 steps (--r1-every); both players share
one forward and one backward pass. --model.codebook ema: codes are moving averages of latents. Writes runs/vqgan-PRESET;
`train.maskgit --tokenizer runs/vqgan-PRESET` takes it from there. In summary.json, sample_accuracy and sample_frechet
are of reconstructions.

Where we differ: no perceptual loss (the paper weighs an ImageNet classifier's features with 0.1).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eqxgen.configs import VQGANConfig

from ._errors import UsageError, require
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, FIDELITY, RECONSTRUCTION
from .config.optim import OptimConfig
from .config.options import option
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig
from .tasks.reconstruction import tokenizer_recipe

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(OptimConfig):
    """The optimiser of the discriminator."""

    FLAG = "discriminator"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (RECONSTRUCTION, CLASSIFIER, FIDELITY)

    quantisation: float = 1.0
    """Weight of the codebook and commitment terms."""
    entropy: float = 0.1
    """Weight of the entropy loss: each latent sure of its code, all codes alike."""
    adversarial: float = option(0.0, first=True)
    """Weight of the discriminator's judgement; 0 trains without one."""
    discriminator: DiscriminatorConfig = option(factory=DiscriminatorConfig)
    """The discriminator's optimiser."""
    r1: float = 10.0
    """Weight γ of the penalty γ/2 |gradient|² of the discriminator on real images; 0: none."""
    r1_every: int = 16
    """Steps between penalties, each of which counts as many times (arXiv:1912.04958, appendix B)."""
    restart_every: int = 50
    """Steps between restarts of codes that no latent of a batch chooses (codebook ema: fewer than one on average);
    0: none. They end with four fifths of the run.
    """
    model: VQGANConfig = option(factory=VQGANConfig, first=("width", "multipliers", "codes"))
    """The tokenizer."""

    @property
    def unread(self) -> Mapping[str, str]:
        names = () if self.adversarial else ("discriminator.", "r1", "r1_every")
        return dict.fromkeys(names, "--adversarial above 0")

    def __post_init__(self):
        super().__post_init__()
        require(self.r1_every >= 1, f"r1_every must be at least 1: got {self.r1_every}")
        for name in ("quantisation", "entropy", "adversarial", "r1", "restart_every"):
            require(
                0 <= getattr(self, name) < float("inf"),
                f"{name} must be at least 0 and finite: got {getattr(self, name)}",
            )


def _preset(name: str, steps: int, model: VQGANConfig, flip: bool = False, **changes: Any) -> Config:
    rule: dict[str, Any] = {"learning_rate": 3e-3, "warmup": 50, "beta2": 0.99, "weight_decay": 0.0}
    values: dict[str, Any] = {
        "batch_size": 64,
        "entropy": 0.01,
        "data": DataConfig(name=name, augment=AugmentConfig(flip=flip)),
        "optim": OptimConfig(**rule),
        "discriminator": DiscriminatorConfig(**rule),
    }
    return Config(preset=name, steps=steps, model=model, **values | changes)


# Adam 1e-4 (0, 0.99) of the original code, for both players.
_PAPER: dict[str, Any] = {
    "learning_rate": 1e-4,
    "warmup": 0,
    "decay": "constant",
    "beta1": 0.0,
    "beta2": 0.99,
    "weight_decay": 0.0,
    "clip": float("inf"),
}

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
    # R1 10, batch 256, 1 M steps, average 0.999: the original code's.
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
        optim=OptimConfig(**_PAPER),
        discriminator=DiscriminatorConfig(**_PAPER),
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
    # A moving codebook is released as a learned one.
    return lambda key: VQGAN(*facts.shape, dataclasses.replace(config.model, codebook="learned"), key=key)


def program(config: Config, facts: ImageFacts) -> "Program":
    """The tokenizer and its discriminator as two players of one turn, and the penalty as a lazy turn."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.losses.adversarial import discriminator_loss, generator_loss, held, r1_penalty
    from eqxgen.losses.reconstruction import Assigned, squared_error, tokenizer_losses
    from eqxgen.models import VQGAN, Discriminator
    from eqxgen.nn import synchronised
    from eqxgen.nn.quantize import count_codes, perplexity, usage

    from .engine.recipe import Context, Player, Program, Sums, Turn

    model(config, facts)  # checks the sizes
    height, _, channels = facts.shape
    weights = {"quantisation": config.quantisation, "entropy": config.entropy}
    two, lazy = config.adversarial > 0, config.r1_every > 1

    def init(key: jax.Array) -> dict[str, Any]:
        tokenizer_key, discriminator_key = jr.split(key)
        players: dict[str, Any] = {"tokenizer": VQGAN(*facts.shape, config.model, key=tokenizer_key)}
        if two:
            players["discriminator"] = Discriminator(height, channels, key=discriminator_key)
        return players

    def loss(model: dict[str, Any], batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        images, weight = batch["image"], batch["weight"]
        tokenizer = synchronised(model["tokenizer"], context.axes)
        through = lambda image, weight: tokenizer.reconstruct(image, context.state, weight=weight)
        fakes, quantized, state = jax.vmap(through, out_axes=(0, 0, None), axis_name="batch")(images, weight)
        error, whole = squared_error(fakes, images), context.sum(Assigned.of(quantized, weight))
        found = tokenizer_losses(error, quantized, whole, **weights)
        count = jnp.sum(weight)
        counts = context.sum(weight @ jax.vmap(functools.partial(count_codes, codes=config.model.codes))(quantized.ids))
        losses = found.total
        metrics = {
            "mse": weight @ error,
            "distance": weight @ found.distance,
            "usage": count * usage(counts),
            "perplexity": count * perplexity(counts),
        }
        if two:
            generator, critic, gap = adversarial(model["discriminator"], images, fakes)
            losses = losses + config.adversarial * generator + critic
            metrics |= {"generator": weight @ generator, "discriminator": weight @ critic, "realness_gap": weight @ gap}
        return Sums(weight @ losses, count, metrics, state)

    def adversarial(
        discriminator: Discriminator, reals: jax.Array, fakes: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        # Each player's loss holds the other still, so that one gradient of their sum is the update of both.
        generator = generator_loss(jax.vmap(held(discriminator))(fakes))
        on_fake = jax.vmap(discriminator)(held(fakes))
        on_real, penalty = (jax.vmap(discriminator)(reals), 0.0) if lazy else penalties(discriminator, reals)
        return generator, discriminator_loss(on_real, on_fake) + penalty, on_real - on_fake

    def penalties(discriminator: Discriminator, reals: jax.Array) -> tuple[jax.Array, jax.Array]:
        on_real, penalty = jax.vmap(functools.partial(r1_penalty, discriminator))(reals)
        return on_real, config.r1 * penalty

    def regulariser(model: dict[str, Any], batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        _, penalty = penalties(model["discriminator"], batch["image"])
        return Sums(batch["weight"] @ penalty, jnp.sum(batch["weight"]), {})

    moving = config.model.codebook == "ema"  # the codes are model state, and their start is no parameter
    players = {"generator": Player(("tokenizer.encoder", "tokenizer.decoder") if moving else "tokenizer")}
    turns = {"main": Turn(loss, ("generator", "discriminator") if two else ("generator",))}
    if two:
        players["discriminator"] = Player("discriminator", config.discriminator)
    if two and lazy and config.r1:
        turns["r1"] = Turn(regulariser, ("discriminator",), every=config.r1_every)
    return Program(
        init=init,
        turns=turns,
        shapes={"image": (facts.shape, "float32")},
        players=players,
        changes=changes(config),
        init_state=lambda model: model["tokenizer"].init_state(),
        fixed=("tokenizer.quantizer",) if moving else (),
    )


def changes(config: Config) -> dict[str, Any]:
    """The codebook placed on data before the first step, and its dead codes restarted every so often."""
    import equinox as eqx
    import jax

    from eqxgen.nn.quantize import Averages, data_start, kmeans, restart_dead_codes, restart_rare_codes

    from .engine.recipe import Change, Context

    def placed(learned: Any, moving: Any) -> Any:
        def change(model: dict[str, Any], batch: dict[str, jax.Array], key: jax.Array, context: Context) -> Any:
            latents = jax.vmap(model["tokenizer"].encoder)(batch["image"])
            latents = latents.reshape(-1, latents.shape[-1])
            if context.state is not None:
                return model, moving(context.state, latents, key=key)
            quantizer = learned(model["tokenizer"].quantizer, latents, key=key)
            return eqx.tree_at(lambda m: m["tokenizer"].quantizer, model, quantizer), None

        return change

    every = config.restart_every
    restarts = lambda step: bool(every) and 0 < step < 0.8 * config.steps and step % every == 0
    places = ("state",) if config.model.codebook == "ema" else ("model.tokenizer.quantizer",)
    start = lambda state, z, *, key: Averages.of(kmeans(z, config.model.codes, key=key))
    return {
        "start": Change(placed(data_start, start), lambda step: step == 0, places),
        "restart": Change(placed(restart_dead_codes, functools.partial(restart_rare_codes, least=1.0)), restarts),
    }


RECIPE = tokenizer_recipe(
    "vqgan",
    "VQGAN tokenizer",
    Config,
    PRESETS,
    model,
    program,
    released=lambda model, state: model["tokenizer"].settled(state),
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
