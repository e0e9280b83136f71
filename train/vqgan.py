"""Train a VQGAN tokenizer (arXiv:2012.09841, in the form of MaskGIT, arXiv:2202.04200) on images.

  python -m train.vqgan                                      # digits
  python -m train.vqgan --preset mnist --data.root DATA      # from a folder that has mnist/
  python -m train.vqgan --preset imagenet256 --dry-run       # the MaskGIT paper's: 256 pixels, 16x16 tokens of 1,024
  python -m train.vqgan --net vit --vit.patch 2 --vit.dim 64 --vit.depth 2 --vit.heads 2 --quantizer cosine

Loss: error of the pixels (--pixel-loss), perceptual distance (--perceptual, with the user's file of weights),
quantisation and entropy, and with --adversarial above 0 that of a discriminator (--critic, --adversarial-form), which
has an optimiser of its own (--discriminator.*) and an R1 penalty every 16 steps (--r1-every); both players share one
forward and one backward pass, or take turns (--alternate). --net and --quantizer choose the tokenizer. Writes
runs/vqgan-PRESET; `train.maskgit --tokenizer runs/vqgan-PRESET` takes it from there. In summary.json, sample_accuracy
and sample_frechet are of reconstructions.

Where we differ: imagenet256 has no perceptual loss (the paper weighs a ResNet's logits with 0.1); the runs of taming
transformers have --legacy; ViT-VQGAN's paper has a logit-Laplace term of 0.1, its code none.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from eqxgen.configs import QuantizerConfig, TamingConfig, TiTokConfig, ViTVQGANConfig, VQGANConfig

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

    net: Literal["maskgit", "taming", "vit", "titok"] = option("maskgit", first=True)
    """maskgit: convolutions; taming: with attention at the smallest size; vit: transformers over patches (ViT-VQGAN);
    titok: a short row of tokens in place of a grid."""
    quantizer: Literal["vq", "cosine", "ema", "fsq", "lfq", "residual", "gumbel"] = option("vq", first=True)
    """vq: a learned codebook; cosine: of unit vectors; ema: of moving averages; fsq: a grid; lfq: signs; residual: of
    rests; gumbel: drawn codes, whose weight is --quantisation."""
    levels: tuple[int, ...] = ()
    """Levels of each dimension of fsq, which multiply to the number of codes; by default powers of 2."""
    bits: int = 0
    """Bits of lfq, log2 of the number of codes; 0: that."""
    stages: int = 4
    """Codebooks of residual, and tokens of each place."""
    gumbel_temperature: float = 1.0
    """Temperature of gumbel's draws."""
    legacy: bool = False
    """--model.commitment weighs the codebook's term in place of the encoder's, as runs of taming transformers."""
    data_start: bool = True
    """Place the codes on latents of the first batch by k-means."""
    pixel_loss: Literal["l2", "l1", "logit-laplace"] = "l2"
    """Loss of the pixels in [-1, 1]; logit-laplace: DALL-E's likelihood."""
    pixel: float = 1.0
    """Weight of the pixels' loss."""
    perceptual: float = 0.0
    """Weight of the perceptual loss."""
    perceptual_net: str = ""
    """File of published weights of --perceptual-name."""
    perceptual_name: Literal["vgg", "alex", "squeeze", "inception"] = "vgg"
    """LPIPS on vgg, alex or squeeze, or the features of inception."""
    quantisation: float = 1.0
    """Weight of the codebook and commitment terms."""
    entropy: float = 0.1
    """Weight of the entropy loss: each latent sure of its code, all codes alike."""
    adversarial: float = option(0.0, first=True)
    """Weight of the discriminator's judgement; 0 trains without one."""
    adversarial_form: Literal["non-saturating", "logistic", "vanilla", "hinge", "least-squares"] = "non-saturating"
    """Losses of the two players; see `eqxgen.losses.adversarial`."""
    adversarial_start: int = 0
    """First step of the adversarial losses."""
    adaptive: bool = False
    """Scale the adversarial term by the gradients at the decoder's last layer (arXiv:2012.09841, equation 7)."""
    alternate: bool = False
    """Update the discriminator after the tokenizer, on new reconstructions, as published; costs a forward pass."""
    critic: Literal["style", "patch"] = "style"
    """The discriminator: StyleGAN2's residual one, or the PatchGAN."""
    critic_width: int = 64
    """Channels of its first level."""
    critic_layers: int = 3
    """Halvings of the PatchGAN."""
    critic_norm: Literal["batch", "act"] = "batch"
    """Norm of the PatchGAN."""
    discriminator: DiscriminatorConfig = option(factory=DiscriminatorConfig)
    """The discriminator's optimiser."""
    r1: float = 10.0
    """Weight γ of the penalty γ/2 |gradient|² of the style discriminator on real images; 0: none."""
    r1_every: int = 16
    """Steps between penalties, each of which counts as many times (arXiv:1912.04958, appendix B)."""
    lecam: float = 0.0
    """Weight of the LeCam penalty of the discriminator (arXiv:2104.03310)."""
    restart_every: int = 50
    """Steps between restarts of codes that no latent of a batch chooses (quantizer ema: fewer than one on average);
    0: none. They end with four fifths of the run.
    """
    model: VQGANConfig = option(factory=VQGANConfig, first=("width", "multipliers", "codes"))
    """The tokenizer of --net maskgit; commitment, temperature and codebook_decay are of every net."""
    taming: TamingConfig = option(factory=TamingConfig)
    """The tokenizer of --net taming."""
    vit: ViTVQGANConfig = option(factory=ViTVQGANConfig)
    """The tokenizer of --net vit."""
    titok: TiTokConfig = option(factory=TiTokConfig)
    """The tokenizer of --net titok."""

    @property
    def sizes(self) -> Any:
        """Sizes of the net."""
        return self.model if self.net == "maskgit" else getattr(self, self.net)

    def places(self, height: int, width: int) -> tuple[int, ...]:
        """Sides of the ids of an image."""
        factor = self.sizes.factor if self.net in ("maskgit", "taming") else self.sizes.patch
        grid = (self.titok.latents,) if self.net == "titok" else (height // factor, width // factor)
        return (*grid, self.stages) if self.quantizer == "residual" else grid

    @property
    def code(self) -> QuantizerConfig:
        """Options of the quantiser."""
        sizes, own = self.sizes, self.model
        return QuantizerConfig(
            kind="ema" if own.codebook == "ema" else self.quantizer,
            codes=sizes.codes,
            dim=own.latent_dim if self.net == "maskgit" else sizes.code_dim,
            levels=self.levels,
            bits=self.bits,
            stages=self.stages,
            commitment=own.commitment,
            legacy=self.legacy,
            past_norm=self.net == "vit",
            temperature=own.temperature,
            gumbel_temperature=self.gumbel_temperature,
            decay=own.codebook_decay,
        )

    @property
    def unread(self) -> Mapping[str, str]:
        names = dict.fromkeys(_OF_DISCRIMINATOR, "--adversarial above 0") if not self.adversarial else {}
        names |= {} if self.critic == "style" else dict.fromkeys(("r1", "r1_every"), "--critic style")
        names |= {} if self.critic == "patch" else dict.fromkeys(("critic_layers", "critic_norm"), "--critic patch")
        names |= {} if self.perceptual else dict.fromkeys(("perceptual_net", "perceptual_name"), "--perceptual above 0")
        of = {"levels": "fsq", "bits": "lfq", "stages": "residual", "gumbel_temperature": "gumbel"}
        names |= {name: f"--quantizer {kind}" for name, kind in of.items() if kind != self.quantizer}
        names |= {f"{net}.": f"--net {net}" for net in ("taming", "vit", "titok") if net != self.net}
        own = ("width", "multipliers", "blocks", "latent_dim", "codes", "form")
        return names | ({f"model.{name}": "--net maskgit" for name in own} if self.net != "maskgit" else {})

    def __post_init__(self):
        super().__post_init__()
        for name in ("r1_every", "critic_width", "critic_layers"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        for name in ("quantisation", "entropy", "adversarial", "r1", "restart_every", "pixel", "perceptual", "lecam"):
            require(
                0 <= getattr(self, name) < float("inf"),
                f"{name} must be at least 0 and finite: got {getattr(self, name)}",
            )
        require(
            self.model.codebook == "learned" or self.quantizer in ("vq", "ema"),
            f"model.codebook must be learned with quantizer {self.quantizer}: got ema, which is --quantizer ema",
        )
        start = self.adversarial_start
        require(start >= 0, f"adversarial_start must be at least 0: got {start}")
        require(
            not self.adversarial or start < self.steps,
            f"adversarial_start must be before the end of the run: got {start} with steps={self.steps}; give a smaller "
            "one, more --steps, or --adversarial 0",
        )
        require(
            not self.perceptual or bool(self.perceptual_net),
            "perceptual_net must name a file of weights with perceptual above 0: got ''",
        )
        _ = self.code  # checks the sizes


_OF_DISCRIMINATOR = (
    *("discriminator.", "r1", "r1_every", "adversarial_form", "adversarial_start", "adaptive", "alternate"),
    *("critic", "critic_width", "critic_layers", "critic_norm", "lecam"),
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


def _imagenet(name: str, steps: int, rule: OptimConfig, **changes: Any) -> Config:
    """256 pixels of ImageNet; both players have one rule."""
    return Config(
        preset=name,
        steps=steps,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=rule,
        discriminator=DiscriminatorConfig(**dataclasses.asdict(rule)),
        **changes,
    )


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
    # R1 10, batch 256, 1 M steps, average 0.999: the original code's. A perceptual loss (0.1, of a ResNet's logits)
    # and its weights are the user's: --perceptual 0.1 --perceptual-net FILE.
    "imagenet256": _imagenet(
        "imagenet256", 1_000_000, OptimConfig(**_PAPER), batch_size=256, model=VQGANConfig.maskgit(), adversarial=0.1
    ),
    # Esser et al. 2021 and their config imagenet_vqgan.yaml: Adam 4.5e-6 for each image (0.5, 0.9), batch of 12 on each
    # of 8 devices, L1 and LPIPS at 1, hinge on patches from step 250,001, codebook at 1 without entropy.
    "imagenet256-taming": _imagenet(
        "imagenet256-taming",
        1_000_000,
        OptimConfig(**_PAPER | {"learning_rate": 96 * 4.5e-6, "beta1": 0.5, "beta2": 0.9}),
        batch_size=96,
        net="taming",
        pixel_loss="l1",
        perceptual=1.0,
        perceptual_net="./lpips-vgg.pth",
        entropy=0.0,
        adversarial=0.8,
        adversarial_form="hinge",
        adversarial_start=250_001,
        adaptive=True,
        alternate=True,
        critic="patch",
        data_start=False,
        restart_every=0,
    ),
    # Yu et al. 2022, table 1 and appendix A: AdamW (0.9, 0.99), decay 1e-4, warm-up of 50,000 steps to 1e-4, cosine to
    # 5e-5, batch 256, 500,000 steps; terms of the code enhancing-transformers, whose squared error is of [0, 1].
    "imagenet256-vit-vqgan": _imagenet(
        "imagenet256-vit-vqgan",
        500_000,
        OptimConfig(**_PAPER | {"warmup": 50_000, "decay": "cosine", "beta1": 0.9, "weight_decay": 1e-4, "final": 0.5}),
        batch_size=256,
        net="vit",
        quantizer="cosine",
        pixel=0.25,
        perceptual=0.1,
        perceptual_net="./lpips-vgg.pth",
        entropy=0.0,
        adversarial=0.1,
        adversarial_form="logistic",
        alternate=True,
        data_start=False,
        restart_every=0,
        vit=dataclasses.replace(ViTVQGANConfig.base(), unit=True),
    ),
}


ABOUT = {
    "digits": "0.37 M parameters; 500 steps of 64",
    "mnist": "0.39 M parameters; 6 minutes on 2 CPU cores; psnr 23.8, codebook_usage 1.0",
    "fashion_mnist": "0.40 M parameters; 800 steps of 64",
    "cifar10": "4.3 M parameters; 30,000 steps of 64, for a GPU",
    "eurosat64": "4.3 M parameters; 20,000 steps of 64, for a GPU",
    "imagenet256-taming": "90 M parameters; 1 M steps of 96, for a TPU slice; needs a file of LPIPS",
    "imagenet256-vit-vqgan": "172 M parameters; 500,000 steps of 256, for a TPU slice; needs a file of LPIPS",
    "imagenet256": "54 M parameters; 1 M steps of 256, for a TPU slice",
}
"""Size, time and the number to expect of each preset, where it was measured; without the discriminator."""


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the tokenizer that a run releases, where moving codes are learned ones."""
    code = config.code
    return _tokenizer(config, facts, dataclasses.replace(code, kind="vq") if code.kind == "ema" else code)


def _tokenizer(config: Config, facts: ImageFacts, code: QuantizerConfig) -> Any:
    from eqxgen.models import VQGAN, Taming, TiTok, ViTVQGAN

    factor = config.sizes.factor if config.net in ("maskgit", "taming") else config.sizes.patch
    if any(side % factor for side in facts.shape[:2]):
        flag = {"maskgit": "model.multipliers", "taming": "taming.widths"}.get(config.net, f"{config.net}.patch")
        why = "each but the first halves the image, so" if factor and "patch" not in flag else "in pixels:"
        raise UsageError(f"--{flag}: {why} {factor} must divide its sides: got images of {facts.shape}")
    kind = {"maskgit": VQGAN, "taming": Taming, "vit": ViTVQGAN, "titok": TiTok}[config.net]
    laplace = config.pixel_loss == "logit-laplace"
    return lambda key: kind(*facts.shape, config.sizes, quantizer=code, laplace=laplace, key=key)


def program(config: Config, facts: ImageFacts) -> "Program":
    """The tokenizer and its discriminator as two players, and the penalty as a lazy turn."""
    from .tasks.critics import check_discriminator, perceptual_net
    from .tasks.objective import tokenizer_program

    check_discriminator(config, facts)
    tokenizer = _tokenizer(config, facts, config.code)
    return tokenizer_program(config, facts, tokenizer, lambda: perceptual_net(config, facts))


def _released(model: Any, state: Any) -> Any:
    from .tasks.objective import settled

    return settled(model, state)


RECIPE = tokenizer_recipe(
    "vqgan",
    "VQGAN tokenizer",
    Config,
    PRESETS,
    model,
    program,
    released=_released,
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
