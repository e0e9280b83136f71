"""Flags of `train.vqgan`. Imports nothing heavy."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from eqxgen.configs import QuantizerConfig, TamingConfig, TiTokConfig, ViTVQGANConfig, VQGANConfig

from .._errors import require
from ..config.evals import CLASSIFIER, FIDELITY, RECONSTRUCTION
from ..config.optim import DiscriminatorConfig
from ..config.options import option
from .images import ImageConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (RECONSTRUCTION, CLASSIFIER, FIDELITY)
    COMMAND = "train.vqgan"

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
    adversarial_form: Literal["non_saturating", "logistic", "vanilla", "hinge", "least_squares"] = "non_saturating"
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
