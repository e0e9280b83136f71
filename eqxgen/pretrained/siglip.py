"""SigLIP's published weights (Zhai et al. 2023) in Hugging Face's layout, such as a snapshot of
`google/siglip-base-patch16-224`, and SigLIP 2's for images of one size.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import CLIPConfig, TextTowerConfig
from eqxgen.models.clip import CLIP
from eqxgen.pretrained import clip
from eqxgen.pretrained import encoders as enc
from eqxgen.pretrained.family import Family, Unsupported, require_fixed, require_same
from eqxgen.pretrained.table import Row, Table


def table(config: CLIPConfig) -> Table:
    """Names of `transformers.SiglipModel`."""
    pool = "vision_model.head."
    rows = [
        *clip.towers("vision_model.", "text_model.", config),
        *enc.linear_rows("text_head", "text_model.head"),
        Row("vision.pool.probe", f"{pool}probe", enc.FIRST),
        *enc.attention_rows(
            "vision.pool.attention.",
            (f"{pool}attention.in_proj_",),
            f"{pool}attention.out_proj",
            clip.vision_of(config).heads,
        ),
        *enc.norm_rows("vision.pool.norm", f"{pool}layernorm"),
        *enc.linear_rows("vision.pool.mlp.up", f"{pool}mlp.fc1"),
        *enc.linear_rows("vision.pool.mlp.down", f"{pool}mlp.fc2"),
        Row("logit_scale", "logit_scale", enc.VECTOR),
        Row("logit_bias", "logit_bias", enc.VECTOR),
    ]
    return Table("SigLIP", tuple(rows), ignored=clip.IGNORED)


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], CLIP], Table]:
    """The model of a config, and its table."""
    vision, text = values.get("vision_config", {}), values.get("text_config", {})
    require_fixed(vision, {"vision_use_head": (True, True)}, "SigLIP")
    sizes = clip.text_sizes(text, dim=768, heads=12, hidden=3072, context=64)
    width, joint = int(vision.get("hidden_size", 768)), int(text.get("projection_size", sizes["dim"]))
    if joint != width:
        raise Unsupported(f"text_config.projection_size must be vision_config.hidden_size={width}: got {joint}")
    config = CLIPConfig(
        clip.vision_config(
            vision, patch=16, activation="gelu_pytorch_tanh", epsilon=1e-6, class_token=False, pool="attention"
        ),
        TextTowerConfig(
            **sizes,
            activation=enc.activation(text, "gelu_pytorch_tanh"),
            epsilon=float(text.get("layer_norm_eps", 1e-6)),
            causal=False,
            pool="last",
        ),
        joint,
        sigmoid=True,
    )
    return clip.maker(config, vision, int(text.get("vocab_size", 32000))), table(config)


def describe(model: CLIP) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not of SigLIP's architecture: no class token, attention pooling, text that is not
            causal and pooled at its last token.
    """
    config, parts = model.config, "no class token, attention pooling, text that is not causal and pooled at its end"
    clip.require_towers(config, "SigLIP", parts, class_token=False, pool="attention")
    require_same(config.sigmoid and not config.text.causal and config.text.pool == "last", "SigLIP", parts)
    vision, text = clip.tower_values(model)
    return {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "vision_config": {"model_type": "siglip_vision_model", **vision},
        "text_config": {"model_type": "siglip_text_model", "projection_size": config.dim, **text},
        "dtype": str(model.logit_scale.dtype),
    }, table(config)


SIGLIP = Family("SigLIP", ("siglip",), build, describe, clip.outputs)
from_pretrained, to_pretrained = SIGLIP.from_pretrained, SIGLIP.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
