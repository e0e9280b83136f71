"""Flags of `train.vqgan`. Imports nothing heavy."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from eqxgen.configs import VAR_SCALES, QuantizerConfig, TamingConfig, TiTokConfig, ViTVQGANConfig, VQGANConfig

from .._errors import require
from ..config.evals import CLASSIFIER, FIDELITY, RECONSTRUCTION
from ..config.options import option
from .judged.config import JudgedConfig, check_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(JudgedConfig):
    """Every flag starts from the preset's value."""

    EVALS = (RECONSTRUCTION, CLASSIFIER, FIDELITY)
    COMMAND = "train.vqgan"

    net: Literal["maskgit", "taming", "vit", "titok"] = option("maskgit", first=True)
    """maskgit: convolutions; taming: with attention at the smallest size; vit: transformers over patches (ViT-VQGAN);
    titok: a short row of tokens in place of a grid."""
    quantizer: Literal["vq", "cosine", "ema", "fsq", "lfq", "residual", "multiscale", "gumbel"] = option(
        "vq", first=True
    )
    """vq: a learned codebook; cosine: of unit vectors; ema: of moving averages; fsq: a grid; lfq: signs; residual: of
    rests; multiscale: of rests at several scales (VAR); gumbel: drawn codes, whose weight is --quantisation."""
    levels: tuple[int, ...] = ()
    """Levels of each dimension of fsq, which multiply to the number of codes; by default powers of 2."""
    bits: int = 0
    """Bits of lfq, log2 of the number of codes; 0: that."""
    stages: int = 4
    """Codebooks of residual, and tokens of each place."""
    scales: tuple[int, ...] = VAR_SCALES
    """Sides of the token maps of multiscale, which increase to the side of the grid."""
    gumbel_temperature: float = 1.0
    """Temperature of gumbel's draws."""
    legacy: bool = False
    """--model.commitment weighs the codebook's term in place of the encoder's, as runs of taming transformers."""
    data_start: bool = True
    """Place the codes on latents of the first batch by k-means."""
    pixel_loss: Literal["l2", "l1", "logit_laplace"] = "l2"
    """Loss of the pixels in [-1, 1]; logit_laplace: DALL-E's likelihood."""
    quantisation: float = 1.0
    """Weight of the codebook and commitment terms."""
    entropy: float = 0.1
    """Weight of the entropy loss: each latent sure of its code, all codes alike."""
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

    def grid(self, height: int, width: int) -> tuple[int, ...]:
        """Sides of the latents of an image."""
        factor = self.sizes.factor if self.net in ("maskgit", "taming") else self.sizes.patch
        return (self.titok.latents,) if self.net == "titok" else (height // factor, width // factor)

    def places(self, height: int, width: int) -> tuple[int, ...]:
        """Sides of the ids of an image."""
        grid = self.grid(height, width)
        if self.quantizer == "multiscale":
            return (sum(side * side for side in self.scales),)
        return (*grid, self.stages) if self.quantizer == "residual" else grid

    @property
    def code(self) -> QuantizerConfig:
        """Options of the quantiser."""
        try:
            return self._code()
        except ValueError as error:
            group = "model" if self.net == "maskgit" else self.net
            raise ValueError(str(error).replace("model.codes", f"{group}.codes")) from None

    def _code(self) -> QuantizerConfig:
        sizes, own = self.sizes, self.model
        return QuantizerConfig(
            kind="ema" if own.codebook == "ema" else self.quantizer,
            codes=sizes.codes,
            dim=own.latent_dim if self.net == "maskgit" else sizes.code_dim,
            levels=self.levels,
            bits=self.bits,
            stages=self.stages,
            scales=self.scales,
            commitment=own.commitment,
            legacy=self.legacy,
            past_norm=self.net == "vit",
            temperature=own.temperature,
            gumbel_temperature=self.gumbel_temperature,
            decay=own.codebook_decay,
        )

    @property
    def unread(self) -> Mapping[str, str]:
        names = dict(super().unread)
        of = {
            "levels": "fsq",
            "bits": "lfq",
            "stages": "residual",
            "scales": "multiscale",
            "gumbel_temperature": "gumbel",
        }
        names |= {name: f"--quantizer {kind}" for name, kind in of.items() if kind != self.quantizer}
        names |= {f"{net}.": f"--net {net}" for net in ("taming", "vit", "titok") if net != self.net}
        own = ("width", "multipliers", "blocks", "latent_dim", "codes", "form")
        return names | ({f"model.{name}": "--net maskgit" for name in own} if self.net != "maskgit" else {})

    def __post_init__(self):
        super().__post_init__()
        check_weights(self, "quantisation", "entropy", "restart_every")
        require(
            self.model.codebook == "learned" or self.quantizer in ("vq", "ema"),
            f"model.codebook must be learned with quantizer {self.quantizer}: got ema, which is --quantizer ema",
        )
        _ = self.code  # checks the sizes
