"""Sizes of the vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929, table 1; Oquab et al. 2023,
arXiv:2304.07193; He et al. 2022, arXiv:2111.06377).
"""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, heads_divide_dim, one_of, positive, require

POOLS = ("class", "mean", "class+mean", "attention")
POSITIONS = ("learned", "sincos")
REMATS = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes of `eqxgen.models.vit.ViT`; by default ViT-B/16."""

    patch: int = 16
    """Side of a patch in pixels."""
    dim: int = 768
    """Width of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads of a block."""
    hidden_dim: int | None = None
    """Inner width of the MLP; 4 dim by default."""
    activation: str = "gelu"
    """Of the MLP, by name; CLIP's is quick_gelu, SigLIP's gelu_tanh."""
    gated: bool = False
    """SwiGLU in place of the MLP, as in DINOv2's giant."""
    epsilon: float = 1e-6
    """Of the norms: 1e-6 in the paper's code, 1e-12 in Hugging Face's ViT, 1e-5 in CLIP."""
    class_token: bool = True
    """A learned token before the patches."""
    registers: int = 0
    """Learned tokens without positions, between the class token and the patches (Darcet et al. 2024)."""
    mask_token: bool = False
    """A learned embedding for hidden patches, as in DINOv2."""
    patch_bias: bool = True
    """Bias of the projection of patches; CLIP has none."""
    embedding_norm: bool = False
    """A norm before the first block, as in CLIP."""
    layer_scale: float | None = None
    """First value of the scales of both branches; none by default. DINOv2's is 1e-5."""
    positions: str = "learned"
    """learned; or sincos: fixed sines and cosines of both axes, as in MAE."""
    pool: str = "class"
    """Feature of an image: the class token, the mean of the patches, both side by side, or attention pooling."""
    pooler: bool = False
    """A projection with tanh after the pooling, as in Hugging Face's `ViTModel`."""
    resize: bool = False
    """Takes images of any size that the patch divides, with positions resized to it, as DINOv2."""
    antialias: bool = False
    """Low-pass filter of smaller tables of positions, as in DINOv2 with registers."""
    dropout: float = 0.0
    """Rate after the embedding and after both branches."""
    attention_dropout: float = 0.0
    """Rate on the attention probabilities."""
    drop_path: float = 0.0
    """Rate at which a branch is dropped in training."""
    remat: str = "none"
    """Rematerialisation of blocks in the backward pass: none, dots or full."""

    def __post_init__(self):
        at_least_one(self, "patch", "dim", "depth", "heads", "hidden_dim")
        heads_divide_dim(self)
        positive(self, "epsilon")
        require(self.registers >= 0, f"model.registers must be at least 0: got {self.registers}")
        if self.layer_scale is not None:
            positive(self, "layer_scale")
        one_of(self, "pool", POOLS)
        needed = self.class_token or "class" not in self.pool
        require(needed, f"model.pool={self.pool!r} needs model.class_token=True: got False")
        one_of(self, "positions", POSITIONS)
        require(
            self.positions == "learned" or self.dim % 4 == 0,
            f"model.dim must be a multiple of 4 with positions='sincos': got {self.dim}",
        )
        for name in ("dropout", "attention_dropout", "drop_path"):
            dropout(self, name)
        one_of(self, "remat", REMATS)

    @classmethod
    def plain(cls, patch: int = 16) -> "ViTConfig":
        """The small model with fixed positions and the mean of the patches (Beyer et al. 2022, arXiv:2205.01580)."""
        return dataclasses.replace(cls.small(patch), class_token=False, positions="sincos", pool="mean")

    @classmethod
    def small(cls, patch: int = 16) -> "ViTConfig":
        """DeiT's small model (Touvron et al. 2021, arXiv:2012.12877, table 1)."""
        return cls(patch=patch, dim=384, heads=6)

    @classmethod
    def large(cls, patch: int = 16) -> "ViTConfig":
        """ViT-L, table 1."""
        return cls(patch=patch, dim=1024, depth=24, heads=16)

    @classmethod
    def dinov2(cls, size: str = "base", registers: int = 0) -> "ViTConfig":
        """DINOv2 for images of 518 pixels: small, base, large or giant, without or with 4 registers.

        Raises:
            ValueError: the size is unknown.
        """
        require(size in _DINOV2, f"size must be one of {', '.join(_DINOV2)}: got {size!r}")
        dim, depth, heads = _DINOV2[size]
        return cls(
            patch=14,
            dim=dim,
            depth=depth,
            heads=heads,
            hidden_dim=4096 if size == "giant" else None,
            gated=size == "giant",
            registers=registers,
            mask_token=True,
            layer_scale=1e-5,
            resize=True,
            antialias=registers > 0,
        )


_DINOV2 = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "giant": (1536, 40, 24)}


@dataclasses.dataclass(frozen=True)
class MAEConfig:
    """Sizes of `eqxgen.models.mae.MAE`; by default those of the paper's base model."""

    encoder: ViTConfig = ViTConfig()
    """Sizes of the encoder."""
    dim: int = 512
    """Width of a token in the decoder."""
    depth: int = 8
    """Blocks of the decoder."""
    heads: int = 16
    """Attention heads of a decoder block."""
    hidden_dim: int | None = None
    """Inner width of the decoder's MLP; 4 dim by default."""
    masked: float = 0.75
    """Share of the patches that the encoder does not see."""
    normalised: bool = True
    """The loss is of pixels normalised in each patch."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim")
        heads_divide_dim(self)
        require(0 < self.masked < 1, f"model.masked must be in (0, 1): got {self.masked}")
        require(self.encoder.class_token, "model.encoder.class_token must be True: got False")
        require(self.encoder.registers == 0, f"model.encoder.registers must be 0: got {self.encoder.registers}")
