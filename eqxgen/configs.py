"""The models' sizes: plain data with its laws, and the published presets.

This file imports nothing heavy, so that a command line can read and check it at once.
"""

import dataclasses
import math


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


SCHEDULES = ("cosine", "linear", "power", "log", "exp", "sqrt", "arccos")
"""Names of the mask schedules; see `eqxgen.generate.mask_schedule`."""


def parse_schedule(name: str) -> tuple[str, float]:
    """The kind of a mask schedule and its exponent, which only `power` has: "power2.5" is ("power", 2.5), "power" alone ("power", 2).

    Raises:
        ValueError: the name is unknown, or the exponent is not positive.
    """
    kind = "power" if name.startswith("power") else name
    _require(kind in SCHEDULES, f"schedule must be one of {', '.join(SCHEDULES)}: got {name!r}")
    try:
        exponent = float(name.removeprefix(kind) or 2)
    except ValueError:
        exponent = math.nan
    _require(
        math.isfinite(exponent) and exponent > 0, f"the exponent of schedule power must be a positive number, as in power2.5: got {name!r}"
    )
    return kind, exponent


@dataclasses.dataclass(frozen=True)
class MaskGITConfig:
    """Sizes of `eqxgen.models.maskgit.MaskGIT`."""

    dim: int = 768
    """Width of a token."""
    depth: int = 24
    """Number of transformer blocks."""
    heads: int = 16
    """Attention heads; must divide dim."""
    hidden_dim: int = 3072
    """Inner width of each MLP."""
    dropout: float = 0.1
    """Dropout rate, of attention probabilities and of every residual branch."""
    placement: str = "post"
    """Where the norms stand: post (the paper's, as BERT) or pre."""
    remat: bool = False
    """Compute each block again in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        for name in ("dim", "depth", "heads", "hidden_dim"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1: got {getattr(self, name)}")
        _require(
            self.dim % self.heads == 0,
            f"model.heads must divide model.dim: got model.dim={self.dim}, model.heads={self.heads}",
        )
        _require(0 <= self.dropout < 1, f"model.dropout must be in [0, 1): got {self.dropout}")
        _require(self.placement in ("pre", "post"), f"model.placement must be pre or post: got {self.placement!r}")

    @classmethod
    def base(cls) -> "MaskGITConfig":
        """The paper's model for ImageNet (Chang et al. 2022, section 4.1): 24 layers, 768 wide, 172 M parameters here."""
        return cls()


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Sizes of `eqxgen.models.dit.DiT`."""

    dim: int = 768
    """Width of a token; a multiple of 4, for the positions."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads; must divide dim."""
    hidden_dim: int = 3072
    """Inner width of each MLP."""
    patch: int = 2
    """Side of a token, in entries of the latent."""
    learn_variance: bool = True
    """Whether the model gives the noise's variance too."""
    remat: bool = False
    """Compute each block again in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        for name in ("dim", "depth", "heads", "hidden_dim", "patch"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1: got {getattr(self, name)}")
        _require(self.dim % 4 == 0, f"model.dim must be a multiple of 4: got {self.dim}")
        _require(
            self.dim % self.heads == 0,
            f"model.heads must divide model.dim: got model.dim={self.dim}, model.heads={self.heads}",
        )

    @classmethod
    def base(cls) -> "DiTConfig":
        """DiT-B/2 (Peebles and Xie 2023, table 1): 130 M parameters."""
        return cls()

    @classmethod
    def xlarge(cls) -> "DiTConfig":
        """DiT-XL/2 (Peebles and Xie 2023, table 1): 675 M parameters."""
        return cls(dim=1152, depth=28, heads=16, hidden_dim=4608)


@dataclasses.dataclass(frozen=True)
class VQGANConfig:
    """Sizes of `eqxgen.models.vqgan.VQGAN`."""

    width: int = 128
    """Channels at the first level."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Channels of each level, as multiples of width; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks at each level, and in the middle."""
    latent_dim: int = 256
    """Size of a code."""
    codes: int = 1024
    """Number of codes."""
    commitment: float = 0.25
    """Weight of the encoder's part of the quantisation loss."""
    temperature: float = 0.01
    """Temperature of the soft assignments in the entropy loss."""

    def __post_init__(self):
        for name in ("width", "blocks", "latent_dim", "codes"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1: got {getattr(self, name)}")
        _require(
            len(self.multipliers) >= 1 and min(self.multipliers) >= 1,
            f"model.multipliers must be one or more integers of at least 1: got {self.multipliers}",
        )
        for name in ("commitment", "temperature"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, f"model.{name} must be positive: got {value}")

    @property
    def factor(self) -> int:
        """Pixels along each side of a token."""
        return 2 ** (len(self.multipliers) - 1)

    @classmethod
    def maskgit(cls) -> "VQGANConfig":
        """The tokenizer of the MaskGIT paper: 256 pixels to 16 x 16 tokens of 1,024 codes."""
        return cls()
