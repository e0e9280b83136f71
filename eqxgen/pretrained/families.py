"""Families of published models that are read: a line each, and its module of the same name."""

from typing import NamedTuple


class Known(NamedTuple):
    """A family.

    Attributes:
        module: in this folder, and the name of its `Family` in upper case.
        types: `model_type` or `_class_name` in config.json.
        sign: pattern of a published name by which a file without a config is recognised.
    """

    module: str
    types: tuple[str, ...]
    sign: str


FAMILIES = (
    Known("gpt2", ("gpt2",), "*h.0.attn.c_attn.weight"),
    Known("vit", ("vit", "timm"), "*encoder.layer.0.layernorm_before.weight"),
    Known("clip", ("clip",), "*resblocks.0.attn.in_proj_weight"),
    Known("dinov2", ("dinov2", "dinov2_with_registers"), "*.0.ls1.gamma"),
    Known("mae", ("vit_mae",), "decoder.decoder_embed.weight"),
    Known("siglip", ("siglip",), "vision_model.head.attention.in_proj_weight"),
)
