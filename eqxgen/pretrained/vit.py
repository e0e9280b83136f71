"""ViT's published weights (Dosovitskiy et al. 2021) in Hugging Face's layout, such as a snapshot of
`google/vit-base-patch16-224`, and in timm's names, such as `timm/vit_base_patch16_224.augreg_in21k`.

The architecture that config.json names gives a classifier (`ViTForImageClassification`), or features with or without a
pooler (`ViTModel`). timm's config names a size, such as vit_small_patch16_224, with norms of epsilon 1e-6.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray

from eqxgen.configs import ViTConfig
from eqxgen.models.vit import ViT
from eqxgen.pretrained import encoders as enc
from eqxgen.pretrained.family import Family, Unsupported, integers, require_fixed, require_same
from eqxgen.pretrained.outputs.images import image_outputs
from eqxgen.pretrained.table import Row, Table

SIZES = {
    "patch": ("patch_size", 16),
    "dim": ("hidden_size", 768),
    "depth": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
}
RATES = {"dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob"}
ARCHITECTURES = ("ViTForImageClassification", "ViTModel")
# Options that `ViT` has no field for: name in config.json, the one supported value, the published default.
FIXED = {"qkv_bias": (True, True), "pooler_act": ("tanh", "tanh")}

TIMM_SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
TIMM_SIZES |= {"huge": (1280, 32, 16)}


def embedding_rows(ours: str, theirs: str, patch: int) -> list[Row]:
    """Class token, positions and patches of Hugging Face's ViT, DINOv2 and ViT-MAE."""
    return [
        Row(f"{ours}class_token.tokens", f"{theirs}cls_token", enc.FIRST),
        Row(f"{ours}positions", f"{theirs}position_embeddings", enc.FIRST),
        *enc.linear_rows(f"{ours}patches.projection", f"{theirs}patch_embeddings.projection", enc.patches(patch)),
    ]


def timm_rows(heads: int, patch: int) -> list[Row]:
    """timm's names, which the original DINOv2 and MAE have too."""
    return [
        Row("class_token.tokens", "cls_token", enc.FIRST),
        Row("positions", "pos_embed", enc.FIRST),
        *enc.linear_rows("patches.projection", "patch_embed.proj", enc.patches(patch)),
        *enc.norm_rows("norm", "norm"),
        *enc.linear_rows("head", "head"),
        *enc.block_rows("stack.blocks.{}.", "blocks.{}.", heads, enc.TIMM),
    ]


def table(config: ViTConfig, classifier: bool) -> Table:
    """Names of `transformers.ViTForImageClassification` and `ViTModel`, and those of timm."""
    prefix = "vit." if classifier else ""
    rows = [
        *embedding_rows("", f"{prefix}embeddings.", config.patch),
        *enc.norm_rows("norm", f"{prefix}layernorm"),
        *enc.block_rows("stack.blocks.{}.", f"{prefix}encoder.layer.{{}}.", config.heads, enc.VIT),
        *enc.linear_rows("head", "classifier"),
        *enc.linear_rows("pooler", f"{prefix}pooler.dense"),
        *timm_rows(config.heads, config.patch),
    ]
    ignored = {} if config.pooler else {"pooler.dense.*": "vector of the pretraining"}
    if not classifier:
        heads_of = "head of a classifier"
        ignored |= {"classifier.*": heads_of, "head.*": heads_of, "embeddings.mask_token": "token of the pretraining"}
    return Table("ViT", tuple(rows), ignored=ignored, prefixes=("vit.",))


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], ViT], Table]:
    """The model of a config, and its table."""
    if "model_type" not in values:
        return _timm(values)
    require_fixed(values, FIXED, "ViT")
    architecture = (values.get("architectures") or ["ViTModel"])[0]
    if architecture not in ARCHITECTURES:
        raise Unsupported(f"architectures must be one of {', '.join(ARCHITECTURES)}: got {architecture!r}")
    classifier = architecture != "ViTModel"
    if not classifier and int(values.get("pooler_output_size") or values["hidden_size"]) != values["hidden_size"]:
        raise Unsupported(f"pooler_output_size must be hidden_size: got {values['pooler_output_size']}")
    sizes = integers(values, SIZES)
    rates: dict[str, Any] = {ours: float(values.get(theirs, 0.0)) for ours, theirs in RATES.items()}
    config = ViTConfig(
        **sizes,
        **rates,
        hidden_dim=int(values.get("intermediate_size", 3072)),
        activation=enc.activation(values, "gelu"),
        epsilon=float(values.get("layer_norm_eps", 1e-12)),
        pooler=not classifier and bool(values.get("add_pooling_layer", True)),
    )
    height, width = enc.sides(values, 224)
    classes = enc.labels(values) if classifier else None
    channels = int(values.get("num_channels", 3))
    make = lambda key: ViT(height, width, channels, classes, config, key=key)
    return make, table(config, classifier)


def _timm(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], ViT], Table]:
    name = str(values["architecture"])
    found = re.fullmatch(r"(?:vit|deit)_(\w+)_patch(\d+)_(\d+)", name)
    if found is None or found[1] not in TIMM_SIZES:
        known = ", ".join(TIMM_SIZES)
        raise Unsupported(f"architecture must be such as vit_base_patch16_224, of {known}: got {name!r}")
    dim, depth, heads = TIMM_SIZES[found[1]]
    config = ViTConfig(patch=int(found[2]), dim=dim, depth=depth, heads=heads, epsilon=1e-6)
    side, classes = int(found[3]), int(values.get("num_classes", 1000)) or None
    return lambda key: ViT(side, side, 3, classes, config, key=key), table(config, classes is not None)


def describe(model: ViT) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not of the published architecture: a class token that is pooled, no registers, no mask
            token, biases, a plain MLP.
    """
    config, classifier = model.config, model.head is not None
    plain = ViTConfig(
        **{name: getattr(config, name) for name in (*SIZES, *RATES, "hidden_dim", "activation", "epsilon", "pooler")},
        drop_path=config.drop_path,
        remat=config.remat,
    )
    parts = "a class token that is pooled, no registers, no mask token, biases, a plain MLP, one size of images"
    require_same(config == plain and not (classifier and config.pooler), "ViT", parts)
    values = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification" if classifier else "ViTModel"],
        **common_values(model),
        **{theirs: getattr(config, ours) for ours, theirs in RATES.items()},
        "intermediate_size": model.stack.blocks.mlp.up.out_dim,  # type: ignore[attr-defined]
        **{name: value for name, (value, _) in FIXED.items()},
    }
    if not classifier and not config.pooler:
        values["add_pooling_layer"] = False
    return values, table(config, classifier)


def common_values(model: ViT) -> dict[str, Any]:
    """Values of config.json that ViT, DINOv2 and ViT-MAE share."""
    config = model.config
    values = {theirs: getattr(config, ours) for ours, (theirs, _) in SIZES.items()}
    values |= {} if model.head is None else enc.published_labels(model.head.out_dim)
    return values | {
        "image_size": enc.published_size(model.height, model.width),
        "num_channels": model.patches.channels,
        "hidden_act": enc.published_activation(config.activation),
        "layer_norm_eps": config.epsilon,
        "dtype": str(model.positions.dtype),
    }


def outputs(model: ViT, original: Any) -> dict[str, tuple[Any, Any]]:
    """Logits or features of both on an image of a fixed seed."""
    model = eqx.nn.inference_mode(model)
    return image_outputs(model, original, model.height, model.width, model.patches.channels)


VIT = Family("ViT", ("vit", "timm"), build, describe, outputs)
from_pretrained, to_pretrained = VIT.from_pretrained, VIT.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
