"""Sizes of DiT (Peebles and Xie 2023, arXiv:2212.09748)."""

import dataclasses

from eqxgen.configs._check import at_least_one, heads_divide_dim, require


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Sizes of `eqxgen.models.denoisers.dit.DiT`."""

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
    """Prediction of the noise's variance as well."""
    mlp_epsilon: float = 1e-6
    """Epsilon of the norms before the MLPs, 1e-5 in diffusers; that of all others is 1e-6."""
    time_shift: int = 0
    """Subtracted from the number of the time's frequencies: 0 in the paper's code, 1 in diffusers'."""
    gated: bool = False
    """SwiGLU in place of each MLP, with hidden_dim gated units."""
    rms: bool = False
    """RMS norms with a scale in place of layer norms."""
    rope: bool = False
    """Rotary positions of rows and columns in each attention, beside the fixed ones; heads of a multiple of 4."""
    qk_norm: bool = False
    """RMS norm of queries and keys."""
    times: int = 1
    """Times that the net is given: 1; or 2, with the interval down to a second time, of an average velocity."""
    guide: bool = False
    """Guidance scale and the two ends of its interval as inputs, of an average velocity (Geng et al. 2025, 2512.02012).
    """
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        require(self.mlp_epsilon > 0, f"model.mlp_epsilon must be positive: got {self.mlp_epsilon}")
        require(self.time_shift in (0, 1), f"model.time_shift must be 0 or 1: got {self.time_shift}")
        require(self.times in (1, 2), f"model.times must be 1 or 2: got {self.times}")
        require(not self.guide or self.times == 2, f"model.times must be 2 with model.guide: got {self.times}")
        at_least_one(self, "dim", "depth", "heads", "hidden_dim", "patch")
        require(self.dim % 4 == 0, f"model.dim must be a multiple of 4: got {self.dim}")
        heads_divide_dim(self)
        head_dim = self.dim // self.heads
        require(
            not self.rope or head_dim % 4 == 0, f"model.dim / heads must be a multiple of 4 with rope: got {head_dim}"
        )

    @classmethod
    def of(cls, size: str, patch: int = 2) -> "DiTConfig":
        """DiT of the paper's sizes small, base, large and xlarge (table 1) with patch 2, 4 or 8: DiT-S/2 to DiT-XL/8.

        Raises:
            ValueError: another size or patch.
        """
        require(size in SIZES, f"size must be one of {', '.join(SIZES)}: got {size!r}")
        require(patch in (2, 4, 8), f"patch must be 2, 4 or 8: got {patch}")
        dim, depth, heads = SIZES[size]
        return cls(dim=dim, depth=depth, heads=heads, hidden_dim=4 * dim, patch=patch)

    @classmethod
    def small(cls) -> "DiTConfig":
        """DiT-S/2 (table 1): 33 M parameters."""
        return cls.of("small")

    @classmethod
    def base(cls) -> "DiTConfig":
        """DiT-B/2 (table 1): 130 M parameters."""
        return cls.of("base")

    @classmethod
    def large(cls) -> "DiTConfig":
        """DiT-L/2 (table 1): 458 M parameters."""
        return cls.of("large")

    @classmethod
    def xlarge(cls) -> "DiTConfig":
        """DiT-XL/2 (table 1): 675 M parameters."""
        return cls.of("xlarge")

    @classmethod
    def modern(cls, size: str = "xlarge", patch: int = 1) -> "DiTConfig":
        """LightningDiT (Yao et al. 2025, arXiv:2501.01423, table 2): RMS norms, SwiGLU, rotary positions and, as an
        option of its code, norms of queries and keys; without learned variance.

        Raises:
            ValueError: another size.
        """
        config = dataclasses.replace(cls.of(size), patch=patch, learn_variance=False)
        hidden = int(2 / 3 * config.hidden_dim)
        return dataclasses.replace(config, hidden_dim=hidden, gated=True, rms=True, rope=True, qk_norm=True)


SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "xlarge": (1152, 28, 16)}
"""Width, depth and heads by size."""
