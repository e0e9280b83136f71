"""DINOv2's published weights (Oquab et al. 2023) in Hugging Face's layout, without and with registers, such as
snapshots of `facebook/dinov2-base` and `facebook/dinov2-with-registers-base`, and in the names of the original files.

Images of any size that the patch divides are taken. The original files come without a config: pass the values of
Hugging Face's as `config=`. Their positions are resized by a slightly other factor, (side + 0.1) / old side.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import ViTConfig
from eqxgen.models.vit import ViT
from eqxgen.pretrained import encoders as enc
from eqxgen.pretrained import vit
from eqxgen.pretrained.family import Family, Unsupported, integers, require_fixed, require_same
from eqxgen.pretrained.table import Row, Table

PREFIX = {"dinov2": "dinov2.", "dinov2_with_registers": "dinov2_with_registers."}
NAMES = {"dinov2": "Dinov2", "dinov2_with_registers": "Dinov2WithRegisters"}
ENDINGS = ("Model", "ForImageClassification")
FIXED = {"qkv_bias": (True, True), "apply_layernorm": (True, True)}
RATES = {**vit.RATES, "drop_path": "drop_path_rate"}


def table(config: ViTConfig, classifier: bool, kind: str) -> Table:
    """Names of `transformers.Dinov2Model` and its kin, and those of the original files."""
    prefix, ours = PREFIX[kind] if classifier else "", "stack.blocks.{}."
    published, original = f"{prefix}encoder.layer.{{}}.", "blocks.{}."
    rows = [
        *vit.embedding_rows("", f"{prefix}embeddings.", config.patch),
        Row("mask_token", f"{prefix}embeddings.mask_token"),
        Row("registers.tokens", f"{prefix}embeddings.register_tokens", enc.FIRST),
        *enc.norm_rows("norm", f"{prefix}layernorm"),
        *enc.linear_rows("head", "classifier"),
    ]
    for theirs, names in ((published, enc.DINOV2), (original, enc.TIMM)):
        rows += [
            row
            for row in enc.block_rows(ours, theirs, config.heads, names)
            if not (config.gated and "mlp." in row.path)
        ]
    scales = (("attention_out_norm", 1), ("mlp_out_norm", 2))
    rows += [Row(f"{ours}{part}.scale", f"{published}layer_scale{i}.lambda1") for part, i in scales]
    rows += [Row(f"{ours}{part}.scale", f"{original}ls{i}.gamma") for part, i in scales]
    if config.gated:
        rows += _gated(ours, f"{published}mlp.weights_in", f"{published}mlp.weights_out")
        rows += _gated(ours, f"{original}mlp.w12", f"{original}mlp.w3")
    rows += [*vit.timm_rows(config.heads, config.patch)[:6], Row("mask_token", "mask_token")]
    rows += [Row("registers.tokens", "register_tokens", enc.FIRST)]
    ignored = {} if config.mask_token else {"embeddings.mask_token": "token of the pretraining"}
    ignored |= {} if config.registers else {"embeddings.register_tokens": "no tokens"}
    ignored |= {} if classifier else {"classifier.*": "head of a classifier"}
    return Table("DINOv2", tuple(rows), ignored=ignored, prefixes=tuple(PREFIX.values()))


def _gated(ours: str, up: str, down: str) -> list[Row]:
    rows = [Row(f"{ours}mlp.up.{part}", f"{up}.{part}", enc.GATE_FIRST) for part in ("weight", "bias")]
    return rows + enc.linear_rows(f"{ours}mlp.down", down)


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], ViT], Table]:
    """The model of a config, and its table."""
    require_fixed(values, FIXED, "DINOv2")
    kind = values.get("model_type", "dinov2")
    known = tuple(NAMES[kind] + ending for ending in ENDINGS)
    architecture = (values.get("architectures") or known)[0]
    if architecture not in known:
        raise Unsupported(f"architectures must be one of {', '.join(known)}: got {architecture!r}")
    classifier, registers = architecture == known[1], kind != "dinov2"
    sizes = integers(values, vit.SIZES)
    rates: dict[str, Any] = {ours: float(values.get(theirs, 0.0)) for ours, theirs in RATES.items()}
    gated, hidden = bool(values.get("use_swiglu_ffn", False)), int(sizes["dim"] * values.get("mlp_ratio", 4))
    config = ViTConfig(
        **sizes,
        **rates,
        hidden_dim=(int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden,
        gated=gated,
        activation=enc.activation(values, "gelu"),
        epsilon=float(values.get("layer_norm_eps", 1e-6)),
        registers=int(values.get("num_register_tokens", 4)) if registers else 0,
        mask_token=bool(values.get("use_mask_token", True)),
        layer_scale=float(values.get("layerscale_value", 1.0)),
        pool="class+mean" if classifier else "class",
        resize=True,
        antialias=registers,
    )
    height, width = enc.sides(values, 224)
    classes, channels = enc.labels(values) if classifier else None, int(values.get("num_channels", 3))
    make = lambda key: ViT(height, width, channels, classes, config, key=key)
    return make, table(config, classifier, kind)


def describe(model: ViT) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not of DINOv2's architecture: scaled branches, a class token, a mask token, images of
            any size.
    """
    config, classifier = model.config, model.head is not None
    names = (
        *vit.SIZES,
        *RATES,
        "hidden_dim",
        "activation",
        "epsilon",
        "gated",
        "registers",
        "mask_token",
        "layer_scale",
    )
    plain = ViTConfig(
        **{name: getattr(config, name) for name in (*names, "remat")},
        pool="class+mean" if classifier else "class",
        resize=True,
        antialias=config.antialias,
    )
    hidden, kind = model.stack.blocks.mlp.down.in_dim, "dinov2_with_registers" if config.antialias else "dinov2"  # type: ignore[attr-defined]
    exact = hidden * (1.5 if config.gated else 1) / config.dim
    ratio = next((r for r in range(1, 9) if _hidden(config, r) == hidden), exact)
    same = plain == config and config.layer_scale is not None and (config.mask_token or not config.antialias)
    require_same(
        same and (config.antialias or not config.registers) and _hidden(config, ratio) == hidden,
        "DINOv2",
        "scaled branches, a class token, images of any size, registers with antialiasing",
    )
    values = {
        "model_type": kind,
        "architectures": [NAMES[kind] + ENDINGS[classifier]],
        **vit.common_values(model),
        **{theirs: getattr(config, ours) for ours, theirs in RATES.items()},
        "mlp_ratio": ratio,
        "use_swiglu_ffn": config.gated,
        "layerscale_value": config.layer_scale,
        **{name: value for name, (value, _) in FIXED.items()},
    }
    values |= {"num_register_tokens": config.registers} if config.antialias else {"use_mask_token": config.mask_token}
    return values, table(config, classifier, kind)


def _hidden(config: ViTConfig, ratio: int | float) -> int:
    hidden = int(config.dim * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if config.gated else hidden


DINOV2 = Family("DINOv2", tuple(NAMES), build, describe, vit.outputs)
from_pretrained, to_pretrained = DINOV2.from_pretrained, DINOV2.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
