"""Sizes and variants of GPT: GPT-2's and nanoGPT's, LLaMA's, with multi-head latent attention, with experts."""

import dataclasses
import math

from eqxgen.configs._check import at_least_one, dropout, heads_divide_dim, one_of, positive, require

GPT2_SIZES = {
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 24, 16),
    "gpt2-large": (1280, 36, 20),
    "gpt2-xl": (1600, 48, 25),
}
"""Width, depth and heads of the published models (Radford et al. 2019, table 2)."""
LLAMA2_SIZES = {
    "7b": (4096, 32, 32, 32, 11008),
    "13b": (5120, 40, 40, 40, 13824),
    "70b": (8192, 80, 64, 8, 28672),
}
"""Width, depth, heads, heads of keys and inner width of LLaMA 2 (Touvron et al. 2023, arXiv:2307.09288)."""
LLAMA3_1_SIZES = {
    "8b": (4096, 32, 32, 8, 14336),
    "70b": (8192, 80, 64, 8, 28672),
    "405b": (16384, 126, 128, 8, 53248),
}
"""The same of LLaMA 3.1 (Grattafiori et al. 2024, arXiv:2407.21783, table 3)."""


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Sizes and parts of `eqxgen.models.gpt.GPT`. GPT-2's by default; `llama` and `mla` give others."""

    dim: int = 768
    """Width of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads; must divide dim."""
    kv_heads: int | None = None
    """Heads of keys and values, each shared by as many queries; must divide heads, which it is by default."""
    head_dim: int | None = None
    """Width of a head; by default dim / heads, else heads * head_dim may differ from dim."""
    hidden_dim: int | None = None
    """Inner width of each MLP; by default 4 dim, of a swiglu 8/3 dim rounded up to a multiple of 256."""
    context: int = 1024
    """Tokens that the model sees at most."""
    dropout: float = 0.0
    """Dropout rate, of the embedding, attention probabilities and every residual branch."""
    embedding_dropout: float | None = None
    """Another rate of the embedding; by default dropout."""
    attention_dropout: float | None = None
    """Another rate of the attention probabilities; by default dropout."""
    bias: bool = True
    """Biases in projections and layer norms."""
    attention_bias: bool | None = None
    """Biases in the attention's projections; by default bias."""
    tied: bool = True
    """The embedding's table as the head."""
    positions: str = "learned"
    """learned (a table, added to the embedding) or rotary (in the attention)."""
    rope_base: float = 10_000.0
    """Base of the wavelengths of rotary positions."""
    rope_factor: float = 1.0
    """Factor of the long wavelengths, as in LLaMA 3.1; see `eqxgen.nn.RoPEScaling`."""
    rope_original: int | None = None
    """Tokens that the unscaled positions were trained on; by default rope_factor scales all wavelengths."""
    rope_low: float = 1.0
    """Wavelengths above rope_original / rope_low are scaled by rope_factor."""
    rope_high: float = 4.0
    """Wavelengths below rope_original / rope_high are not scaled."""
    norm: str = "layer"
    """layer or rms."""
    epsilon: float = 1e-5
    """Of the norms."""
    mlp: str = "gelu_tanh"
    """gelu_tanh (GPT-2), gelu (nanoGPT) or swiglu (LLaMA)."""
    latent: int = 0
    """Width of the latent of keys and values (multi-head latent attention); 0: plain attention."""
    experts: int = 0
    """Experts in place of each MLP, of the same inner width each; 0: one MLP."""
    experts_top_k: int = 2
    """Experts of each token."""
    capacity_factor: float | None = None
    """Places of each expert in training, as a multiple of its even share; what has none is dropped. By default no
    limit."""
    router_jitter: float = 0.0
    """Uniform noise of the router's input in training, 1 ± router_jitter."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "context", "kv_heads", "hidden_dim", "head_dim", "rope_original")
        if self.head_dim is None:
            heads_divide_dim(self)
        positive(self, "epsilon", "rope_base", "rope_low", "rope_high")
        require(self.rope_base > 1, f"model.rope_base must be greater than 1: got {self.rope_base}")
        require(1 <= self.rope_factor < math.inf, f"model.rope_factor must be at least 1: got {self.rope_factor}")
        ordered = self.rope_low < self.rope_high
        require(ordered, f"model.rope_low must be below model.rope_high: got {self.rope_low} and {self.rope_high}")
        require(
            self.heads % (self.kv_heads or self.heads) == 0,
            f"model.kv_heads must divide model.heads: got model.heads={self.heads}, model.kv_heads={self.kv_heads}",
        )
        for name in ("dropout", "embedding_dropout", "attention_dropout"):
            dropout(self, name)
        one_of(self, "positions", ("learned", "rotary"))
        one_of(self, "norm", ("layer", "rms"))
        one_of(self, "mlp", ("gelu_tanh", "gelu", "swiglu"))
        odd = self.positions == "rotary" and self.width_of_head % 2
        got = f"{self.dim} / {self.heads}" if self.head_dim is None else f"model.head_dim={self.head_dim}"
        require(not odd, f"model.dim / model.heads must be even for rotary positions: got {got}")
        require(self.latent >= 0, f"model.latent must be at least 0: got {self.latent}")
        if self.latent:
            self._check_latent()
        self._check_experts()

    def _check_experts(self) -> None:
        require(self.experts >= 0, f"model.experts must be at least 0: got {self.experts}")
        factor, jitter = self.capacity_factor, self.router_jitter
        require(
            factor is None or 0 < factor < math.inf,
            f"model.capacity_factor must be positive and finite: got {factor}; leave it out for no limit",
        )
        require(0 <= jitter < 1, f"model.router_jitter must be in [0, 1): got {jitter}")
        if self.experts:
            require(
                1 <= self.experts_top_k <= self.experts,
                f"model.experts_top_k must be from 1 to model.experts={self.experts}: got {self.experts_top_k}",
            )
            return
        for name in ("experts_top_k", "capacity_factor", "router_jitter"):
            default = GPTConfig.__dataclass_fields__[name].default
            value = getattr(self, name)
            require(value == default, f"model.{name} needs model.experts of at least 1: got {name}={value}, experts=0")

    def _check_latent(self) -> None:
        """Latent attention has no form for the other variants' parts."""
        require(
            self.kv_heads is None and self.head_dim is None and self.positions == "rotary",
            "model.latent goes with model.positions=rotary and without model.kv_heads and model.head_dim, as its keys "
            "are rotated and not shared",
        )
        own = self.attention_bias not in (None, self.bias)
        require(not own, f"model.latent goes without model.attention_bias: got {self.attention_bias}")
        rates = {self.dropout, self.attention_dropout or 0.0}
        require(self.rope_factor == 1, f"model.latent goes without model.rope_factor: got {self.rope_factor}")
        require(rates == {0}, f"model.latent goes without model.dropout: got model.dropout={max(rates)}")
        require(self.width_of_head >= 4, "model.dim / model.heads must be at least 4 with model.latent")

    @property
    def width_of_head(self) -> int:
        """Width of a head, head_dim or its default."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    @classmethod
    def gpt2(cls, name: str = "gpt2") -> "GPTConfig":
        """A published size, one of `GPT2_SIZES`: 124 M, 355 M, 774 M and 1,558 M parameters."""
        require(name in GPT2_SIZES, f"name must be one of {', '.join(GPT2_SIZES)}: got {name!r}")
        dim, depth, heads = GPT2_SIZES[name]
        return cls(dim=dim, depth=depth, heads=heads)

    @classmethod
    def llama(
        cls, dim: int = 768, depth: int = 12, heads: int = 12, kv_heads: int | None = 4, context: int = 2048
    ) -> "GPTConfig":
        """LLaMA's architecture (Touvron et al. 2023, arXiv:2302.13971, section 2.2) with grouped queries, as LLaMA 2's
        large models have.
        """
        sizes = cls(dim=dim, depth=depth, heads=heads, kv_heads=kv_heads, context=context)
        return dataclasses.replace(sizes, bias=False, tied=False, positions="rotary", norm="rms", mlp="swiglu")

    @classmethod
    def llama2(cls, name: str = "7b") -> "GPTConfig":
        """A published size of LLaMA 2, one of `LLAMA2_SIZES`, for a vocabulary of 32,000."""
        return cls._published(LLAMA2_SIZES, name, 4096)

    @classmethod
    def llama3_1(cls, name: str = "8b") -> "GPTConfig":
        """A published size of LLaMA 3.1, one of `LLAMA3_1_SIZES`, for a vocabulary of 128,256."""
        sizes = cls._published(LLAMA3_1_SIZES, name, 131_072)
        return dataclasses.replace(sizes, rope_base=500_000.0, rope_factor=8.0, rope_original=8192)

    @classmethod
    def _published(cls, known: dict[str, tuple[int, ...]], name: str, context: int) -> "GPTConfig":
        require(name in known, f"name must be one of {', '.join(known)}: got {name!r}")
        dim, depth, heads, kv_heads, hidden_dim = known[name]
        return dataclasses.replace(cls.llama(dim, depth, heads, kv_heads, context), hidden_dim=hidden_dim)

    @classmethod
    def mla(
        cls, dim: int = 768, depth: int = 12, heads: int = 12, latent: int = 256, context: int = 2048
    ) -> "GPTConfig":
        """A LLaMA with DeepSeek's attention, whose cache holds a latent for each token (DeepSeek-AI 2024,
        arXiv:2405.04434, section 2.1).
        """
        return dataclasses.replace(cls.llama(dim, depth, heads, None, context), latent=latent)
