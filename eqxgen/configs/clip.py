"""Sizes of CLIP (Radford et al. 2021, arXiv:2103.00020, table 20) and SigLIP (Zhai et al. 2023, arXiv:2303.15343)."""

import dataclasses

from eqxgen.configs._check import at_least_one, heads_divide_dim, one_of, positive, require
from eqxgen.configs.resnet import ConvNetConfig
from eqxgen.configs.vit import ViTConfig

TEXT_POOLS = ("largest", "end", "last")


@dataclasses.dataclass(frozen=True)
class TextTowerConfig:
    """Sizes of `eqxgen.models.clip.TextTower`; by default those of CLIP's base model."""

    dim: int = 512
    """Width of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 8
    """Attention heads of a block."""
    hidden_dim: int | None = None
    """Inner width of the MLP; 4 dim by default."""
    context: int = 77
    """Largest number of tokens."""
    activation: str = "quick_gelu"
    """Of the MLP, by name: quick_gelu in OpenAI's models, gelu in LAION's, gelu_tanh in SigLIP's."""
    epsilon: float = 1e-5
    """Of the norms."""
    causal: bool = True
    """Each token attends to those before it alone; false in SigLIP."""
    pool: str = "largest"
    """Token of the text's feature: the one of the largest id, the first with the id `end`, or the last."""
    end: int | None = None
    """Id of the end of a text, for pool "end"."""

    def __post_init__(self):
        at_least_one(self, "dim", "depth", "heads", "hidden_dim", "context", prefix="model.text.")
        heads_divide_dim(self)
        positive(self, "epsilon", prefix="model.text.")
        one_of(self, "pool", TEXT_POOLS, prefix="model.text.")
        given = (self.end is not None) == (self.pool == "end")
        require(given, f"model.text.end must be given with pool='end' alone: got {self.end}, pool={self.pool!r}")


_BASE = ViTConfig(patch=32, activation="quick_gelu", epsilon=1e-5, patch_bias=False, embedding_norm=True)


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Sizes of `eqxgen.models.clip.CLIP`; by default CLIP ViT-B/32."""

    vision: ViTConfig | ConvNetConfig = _BASE
    """The image tower: a transformer, or for small images a convolutional net."""
    text: TextTowerConfig = TextTowerConfig()
    """The text tower."""
    dim: int = 512
    """Width of the joint space."""
    sigmoid: bool = False
    """SigLIP's form: the image's feature is not projected, the text's projection and the logits have a bias."""

    def __post_init__(self):
        at_least_one(self, "dim")
        if self.sigmoid and isinstance(self.vision, ViTConfig):
            width = self.vision.dim
            require(self.dim == width, f"model.dim must be model.vision.dim={width} with sigmoid=True: got {self.dim}")
            pool = self.vision.pool
            require(pool != "class+mean", f"model.vision.pool must be of width dim with sigmoid=True: got {pool!r}")

    @classmethod
    def siglip(cls, patch: int = 16) -> "CLIPConfig":
        """SigLIP's base model, with a vocabulary of 32,000 and 64 tokens."""
        same = {"activation": "gelu_tanh", "epsilon": 1e-6}
        text = TextTowerConfig(dim=768, heads=12, context=64, causal=False, pool="last", **same)
        return cls(ViTConfig(patch=patch, class_token=False, pool="attention", **same), text, 768, sigmoid=True)
