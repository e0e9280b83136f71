"""The models' sizes: plain data with its laws, and the published presets.

This file imports nothing heavy, so that a command line can read and check it at once.
"""

import dataclasses
import math

from ._check import require as _require

SCHEDULES = ("cosine", "linear", "power", "log", "exp", "sqrt", "arccos")
"""Names of the mask schedules; see `eqxgen.decoding.masked.mask_schedule`."""


def parse_schedule(name: str) -> tuple[str, float]:
    """The kind of a mask schedule and its exponent, which only `power` has: "power2.5" is ("power", 2.5), "power" alone
    ("power", 2).

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
        math.isfinite(exponent) and exponent > 0,
        f"the exponent of schedule power must be a positive number, as in power2.5: got {name!r}",
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
        """The paper's model for ImageNet (Chang et al. 2022, section 4.1): 24 layers, 768 wide, 172 M parameters
        here.
        """
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


GPT2_SIZES = {
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 24, 16),
    "gpt2-large": (1280, 36, 20),
    "gpt2-xl": (1600, 48, 25),
}
"""Width, depth and heads of the published models (Radford et al. 2019, table 2)."""


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Sizes of `eqxgen.models.gpt.GPT`."""

    dim: int = 768
    """Width of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads; must divide dim."""
    kv_heads: int | None = None
    """Heads of keys and values, each shared by as many queries; must divide heads, which it is by default."""
    hidden_dim: int | None = None
    """Inner width of each MLP; by default 4 dim, of a swiglu 8/3 dim rounded up to a multiple of 256."""
    context: int = 1024
    """Tokens that the model sees at most."""
    dropout: float = 0.0
    """Dropout rate, of the embedding, attention probabilities and every residual branch."""
    bias: bool = True
    """Whether projections and layer norms have biases."""
    tied: bool = True
    """Whether the head is the embedding's table."""
    positions: str = "learned"
    """Where a token learns its place: learned (a table, added to the embedding) or rotary (in the attention)."""
    norm: str = "layer"
    """layer or rms."""
    mlp: str = "gelu_tanh"
    """gelu_tanh (GPT-2), gelu (nanoGPT) or swiglu (LLaMA)."""
    latent: int = 0
    """Width of the latent that keys and values are made from (multi-head latent attention); 0: plain attention."""
    remat: bool = False
    """Compute each block again in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        for name in ("dim", "depth", "heads", "context"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1: got {getattr(self, name)}")
        for name in ("kv_heads", "hidden_dim"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"model.{name} must be at least 1: got {value}")
        _require(
            self.dim % self.heads == 0,
            f"model.heads must divide model.dim: got model.dim={self.dim}, model.heads={self.heads}",
        )
        _require(
            self.heads % (self.kv_heads or self.heads) == 0,
            f"model.kv_heads must divide model.heads: got model.heads={self.heads}, model.kv_heads={self.kv_heads}",
        )
        _require(0 <= self.dropout < 1, f"model.dropout must be in [0, 1): got {self.dropout}")
        for name, known in (
            ("positions", ("learned", "rotary")),
            ("norm", ("layer", "rms")),
            ("mlp", ("gelu_tanh", "gelu", "swiglu")),
        ):
            value = getattr(self, name)
            _require(value in known, f"model.{name} must be one of {', '.join(known)}: got {value!r}")
        odd = self.positions == "rotary" and (self.dim // self.heads) % 2
        _require(not odd, f"model.dim / model.heads must be even for rotary positions: got {self.dim} / {self.heads}")
        _require(self.latent >= 0, f"model.latent must be at least 0: got {self.latent}")
        whole = self.latent == 0 or (self.kv_heads is None and self.positions == "rotary")
        _require(
            whole,
            "model.latent goes with model.positions=rotary and without model.kv_heads, as its keys are rotated and not "
            "shared",
        )
        _require(
            self.latent == 0 or self.dropout == 0,
            f"model.latent goes without model.dropout: got model.dropout={self.dropout}",
        )
        _require(
            self.latent == 0 or self.dim // self.heads >= 4,
            "model.dim / model.heads must be at least 4 with model.latent",
        )

    @classmethod
    def gpt2(cls, name: str = "gpt2") -> "GPTConfig":
        """A published size, one of `GPT2_SIZES`: 124 M, 355 M, 774 M and 1,558 M parameters."""
        _require(name in GPT2_SIZES, f"name must be one of {', '.join(GPT2_SIZES)}: got {name!r}")
        dim, depth, heads = GPT2_SIZES[name]
        return cls(dim=dim, depth=depth, heads=heads)

    @classmethod
    def llama(
        cls, dim: int = 768, depth: int = 12, heads: int = 12, kv_heads: int = 4, context: int = 2048
    ) -> "GPTConfig":
        """LLaMA's architecture (Touvron et al. 2023, arXiv:2302.13971, section 2.2) with grouped queries, as LLaMA 2's
        large models have.
        """
        style = cls(bias=False, tied=False, positions="rotary", norm="rms", mlp="swiglu")
        return dataclasses.replace(style, dim=dim, depth=depth, heads=heads, kv_heads=kv_heads, context=context)

    @classmethod
    def mla(
        cls, dim: int = 768, depth: int = 12, heads: int = 12, latent: int = 256, context: int = 2048
    ) -> "GPTConfig":
        """A LLaMA with DeepSeek's attention, whose cache holds a latent for each token (DeepSeek-AI 2024,
        arXiv:2405.04434, section 2.1).
        """
        return dataclasses.replace(
            cls.llama(), dim=dim, depth=depth, heads=heads, kv_heads=None, latent=latent, context=context
        )


@dataclasses.dataclass(frozen=True)
class RNNConfig:
    """Sizes of `eqxgen.models.rnn.RNN`."""

    dim: int = 256
    """Width of the embedding and of every layer."""
    depth: int = 2
    """Number of recurrent layers."""
    cell: str = "lstm"
    """lstm, gru or rnn."""
    dropout: float = 0.0
    """Dropout rate, of the embedding and behind every layer."""

    def __post_init__(self):
        for name in ("dim", "depth"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1: got {getattr(self, name)}")
        _require(self.cell in ("lstm", "gru", "rnn"), f"model.cell must be lstm, gru or rnn: got {self.cell!r}")
        _require(0 <= self.dropout < 1, f"model.dropout must be in [0, 1): got {self.dropout}")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from logits. In this order: the penalty, the temperature, then whichever tokens are
    left out.
    """

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token (greedy)."""
    top_k: int | None = None
    """Only so many of the likeliest tokens."""
    top_p: float | None = None
    """Only the fewest of the likeliest tokens that have this probability together (nucleus; Holtzman et al. 2019,
    arXiv:1904.09751).
    """
    min_p: float | None = None
    """Only tokens of at least this probability relative to the likeliest (Nguyen et al. 2024, arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that occurred less likely (Keskar et al. 2019, arXiv:1909.05858, section 4.1); 1 is none."""

    def __post_init__(self):
        _require(0 <= self.temperature < math.inf, f"temperature must be at least 0 and finite: got {self.temperature}")
        _require(
            self.top_k is None or self.top_k >= 1,
            f"top_k must be at least 1: got {self.top_k}; leave it out for all tokens",
        )
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            _require(
                value is None or 0 < value <= 1, f"{name} must be in (0, 1]: got {value}; leave it out for all tokens"
            )
        penalty = self.repetition_penalty
        _require(0 < penalty < math.inf, f"repetition_penalty must be positive and finite: got {penalty}; 1 is none")
