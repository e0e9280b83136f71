"""Choice of a quantiser, and of its sizes."""

import dataclasses
import itertools
import math

from eqxgen.configs._check import one_of, require

QUANTIZERS = ("vq", "cosine", "ema", "fsq", "lfq", "residual", "multiscale", "gumbel")
VAR_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
"""Sides of the published token maps (Tian et al. 2024, arXiv:2404.02905)."""


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """Options of `eqxgen.models.tokenizers.quantizers.chosen`."""

    kind: str = "vq"
    """vq: a learned codebook; cosine: of unit vectors; ema: of moving averages; fsq: a grid; lfq: signs; residual: of
    the rests, one after another; multiscale: of the rests at several scales; gumbel: drawn codes."""
    codes: int = 1024
    """Number of codes."""
    dim: int = 256
    """Size of the vectors."""
    levels: tuple[int, ...] = ()
    """Levels of each dimension of fsq; by default powers of 2 up to 8."""
    bits: int = 0
    """Bits of lfq; 0: log2 of codes."""
    stages: int = 4
    """Codebooks of residual, and tokens of each place."""
    scales: tuple[int, ...] = VAR_SCALES
    """Sides of the token maps of multiscale, which end at the grid."""
    commitment: float = 0.25
    """Weight of the encoder's part of the quantisation loss."""
    legacy: bool = False
    """commitment weighs the codebook's part in place of the encoder's, as the runs of taming transformers."""
    past_norm: bool = False
    """cosine passes gradients past the norm, as enhancing-transformers."""
    temperature: float = 0.01
    """Of the soft assignments in the entropy loss."""
    gumbel_temperature: float = 1.0
    """Of gumbel's draws."""
    decay: float = 0.99
    """Of the averages of ema."""

    def __post_init__(self):
        one_of(self, "kind", QUANTIZERS, prefix="quantizer.")
        require(self.stages >= 1, f"stages must be at least 1: got {self.stages}")
        sides = self.scales
        require(
            len(sides) > 0 and sides[0] >= 1 and all(before < after for before, after in itertools.pairwise(sides)),
            f"scales must be integers of at least 1 that increase: got {sides}",
        )
        require(
            math.isfinite(self.gumbel_temperature) and self.gumbel_temperature > 0,
            f"gumbel_temperature must be positive: got {self.gumbel_temperature}",
        )
        require(
            not self.legacy or self.kind in ("vq", "cosine", "residual"),
            f"legacy must be false for quantizer {self.kind}, which has no loss of a codebook: got true",
        )
        if self.kind == "fsq":
            self._check_levels()
        if self.kind == "lfq":
            self._check_bits()

    def _check_levels(self) -> None:
        require(all(level >= 2 for level in self.levels), f"levels must be integers of at least 2: got {self.levels}")
        power = self.codes >= 2 and self.codes & (self.codes - 1) == 0
        require(
            power or bool(self.levels),
            f"levels must be given for a number of codes that is no power of 2: got model.codes={self.codes}",
        )
        product = math.prod(self.grid)
        require(
            product == self.codes,
            f"levels must multiply to model.codes: got {' x '.join(map(str, self.levels))} = {product} and "
            f"model.codes={self.codes}; give --model.codes {product}",
        )

    def _check_bits(self) -> None:
        require(0 <= self.bits <= 30, f"bits must be in [0, 30]: got {self.bits}")
        bits = self.bits or max(1, self.codes.bit_length() - 1)
        require(
            self.bits > 0 or 2**bits == self.codes,
            f"model.codes must be a power of 2 with quantizer lfq: got {self.codes}; give --model.codes {2**bits}",
        )
        require(
            2**bits == self.codes,
            f"bits must be log2 of model.codes: got bits={bits} and model.codes={self.codes}; "
            f"give --model.codes {2**bits}",
        )

    @property
    def grid(self) -> tuple[int, ...]:
        """Levels of each dimension of fsq."""
        exponent = self.codes.bit_length() - 1
        return self.levels or (8,) * (exponent // 3) + ((2 ** (exponent % 3),) if exponent % 3 else ())
