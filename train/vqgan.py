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
from typing import TYPE_CHECKING, Any

from eqxgen.configs import QuantizerConfig, TamingConfig, ViTVQGANConfig, VQGANConfig

from ._errors import UsageError
from .config.data import AugmentConfig, DataConfig
from .config.optim import DiscriminatorConfig, OptimConfig
from .tasks.facts import ImageFacts
from .tasks.images import check_sides
from .tasks.reconstruction import tokenizer_recipe
from .tasks.tokenizing import Config as Config

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from .engine.recipe import Program


def _preset(name: str, steps: int, model: VQGANConfig, flip: bool = False, **changes: Any) -> Config:
    rule: dict[str, Any] = {"learning_rate": 3e-3, "warmup": 50, "beta2": 0.99, "weight_decay": 0.0}
    values: dict[str, Any] = {
        "batch_size": 64,
        "entropy": 0.01,
        "data": DataConfig(name=name.split("-")[0], augment=AugmentConfig(flip=flip)),
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


_TAMING: dict[str, Any] = _PAPER | {"learning_rate": 96 * 4.5e-6, "beta1": 0.5, "beta2": 0.9}

PRESETS = {
    "digits": _preset("digits", 500, VQGANConfig(width=32, multipliers=(1, 2), blocks=1, latent_dim=8, codes=64)),
    # Sides 1 to 4 of the 4 x 4 grid, for train.ar --order scales.
    "digits-scales": _preset(
        "digits-scales",
        1000,
        VQGANConfig(width=32, multipliers=(1, 2), blocks=1, latent_dim=8, codes=64),
        quantizer="multiscale",
        scales=(1, 2, 3, 4),
    ),
    "mnist": _preset(
        "mnist", 400, VQGANConfig(width=16, multipliers=(1, 2, 4), blocks=1, latent_dim=16, codes=128, group_width=4)
    ),
    "fashion_mnist": _preset(
        "fashion_mnist", 1400, VQGANConfig(width=16, multipliers=(1, 2, 4), blocks=1, latent_dim=16, codes=256)
    ),
    "captioned_digits": _preset(
        "captioned_digits",
        1000,
        VQGANConfig(width=16, multipliers=(1, 2, 4), blocks=1, latent_dim=16, codes=1024, group_width=4),
    ),
    # Of twice as many tokens a side, for a second stage of train.muse.
    "captioned_digits-fine": _preset(
        "captioned_digits-fine",
        1000,
        VQGANConfig(width=16, multipliers=(1, 2), blocks=1, latent_dim=16, codes=1024, group_width=4),
    ),
    "emoji64": _preset("emoji64", 20_000, VQGANConfig(width=64, multipliers=(1, 2, 2), latent_dim=64, codes=1024)),
    "cifar10": _preset(
        "cifar10", 30_000, VQGANConfig(width=64, multipliers=(1, 2, 2), latent_dim=64, codes=1024), flip=True
    ),
    # For two CPU cores, a quarter of the channels or less.
    "cifar10-small": _preset(
        "cifar10-small",
        1100,
        VQGANConfig(width=16, multipliers=(1, 2, 4), blocks=1, latent_dim=16, codes=512, group_width=4),
        flip=True,
    ),
    "eurosat64": _preset(
        "eurosat64", 20_000, VQGANConfig(width=64, multipliers=(1, 2, 2), latent_dim=64, codes=1024), flip=True
    ),
    "eurosat64-small": _preset(
        "eurosat64-small",
        700,
        VQGANConfig(width=16, multipliers=(1, 2, 2, 4), blocks=1, latent_dim=16, codes=512, group_width=4),
        flip=True,
        batch_size=32,
    ),
    # R1 10, batch 256, 1 M steps, average 0.999: the original code's. A perceptual loss (0.1, of a ResNet's logits)
    # and its weights are the user's: --perceptual 0.1 --perceptual-net FILE.
    "imagenet256": _imagenet(
        "imagenet256",
        1_000_000,
        OptimConfig(**_PAPER),
        batch_size=256,
        accumulate=2,  # 32 images at a time need 18.0 GiB of temporaries on each of 8 TPU v5e, by the compiler's count
        adversarial=0.1,
        model=dataclasses.replace(VQGANConfig.maskgit(), remat=True),
    ),
    # Esser et al. 2021 and their config imagenet_vqgan.yaml: Adam 4.5e-6 for each image (0.5, 0.9), batch of 12 on each
    # of 8 devices, L1 and LPIPS at 1, hinge on patches from step 250,001, codebook at 1 without entropy.
    "imagenet256-taming": _imagenet(
        "imagenet256-taming",
        1_000_000,
        OptimConfig(**_TAMING),
        batch_size=96,
        net="taming",
        taming=TamingConfig(remat=True),
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
        accumulate=2,  # 32 images at a time need 16.6 GiB of temporaries on each of 8 TPU v5e, by the compiler's count
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
        vit=dataclasses.replace(ViTVQGANConfig.base(), unit=True, remat="full"),
    ),
}


ABOUT = {
    "digits": "0.37 M parameters; 500 steps of 64",
    "digits-scales": "0.37 M parameters; 3 minutes of CPU time; psnr 25.1, codebook_usage 1.0",
    "mnist": "0.39 M parameters; 5 minutes of one CPU core beside other work; psnr 24.2, codebook_usage 1.0",
    "fashion_mnist": "0.40 M parameters; 15 minutes of one CPU core; psnr 23.7, codebook_usage 1.0",
    "captioned_digits": "0.41 M parameters; 8 minutes of one CPU core beside other work; psnr 27.3, codebook_usage 1.0",
    "captioned_digits-fine": "0.11 M parameters; 15 minutes of one CPU core; psnr 30.9, codebook_usage 1.0",
    "cifar10-small": "0.40 M parameters; 16 minutes of one CPU core; psnr 23.8, codebook_usage 1.0",
    "emoji64": "4.3 M parameters; 20,000 steps of 64, for a GPU",
    "cifar10": "4.3 M parameters; 30,000 steps of 64, for a GPU",
    "eurosat64": "4.3 M parameters; 20,000 steps of 64, for a GPU",
    "eurosat64-small": "0.45 M parameters; 15 minutes of one CPU core; psnr 27.4, codebook_usage 1.0",
    "imagenet256-taming": "72 M parameters; 1 M steps of 96, for a TPU slice; needs a file of LPIPS",
    "imagenet256-vit-vqgan": "171 M parameters; 500,000 steps of 256, for a TPU slice; needs a file of LPIPS",
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
    halved = {"maskgit": "model.multipliers", "taming": "taming.widths"}.get(config.net)
    why = f"{halved}: each but the first halves the image, so" if halved else f"{config.net}.patch:"
    check_sides(f"--{why}", factor, facts.shape)
    kind = {"maskgit": VQGAN, "taming": Taming, "vit": ViTVQGAN, "titok": TiTok}[config.net]
    grid = config.grid(*facts.shape[:2])
    if code.kind == "multiscale" and grid != (code.scales[-1],) * 2:
        raise UsageError(
            f"--scales must end at the grid of --net {config.net}, {' x '.join(map(str, grid))}, and that be a square: "
            f"got {' '.join(map(str, code.scales))}"
        )
    laplace = config.pixel_loss == "logit_laplace"
    return lambda key: kind(*facts.shape, config.sizes, quantizer=code, laplace=laplace, key=key)


def program(config: Config, facts: ImageFacts) -> "Program":
    """The tokenizer and its discriminator as two players, and the penalty as a lazy turn."""
    from .tasks.judged.nets import check_discriminator, perceptual_net
    from .tasks.judged.quantised import tokenizer_program

    check_discriminator(config, facts)
    tokenizer = _tokenizer(config, facts, config.code)
    return tokenizer_program(config, facts, tokenizer, lambda: perceptual_net(config, facts))


def _released(model: Any, state: Any) -> Any:
    from .tasks.judged.quantised import settled

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
