"""Rows of transformer encoders that several published families share, and values of their configs."""

from collections.abc import Mapping
from typing import Any

from eqxgen.pretrained.family import Unsupported
from eqxgen.pretrained.table import Row
from eqxgen.pretrained.transforms import SAME, Transform, layout, qkv

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "relu": "relu",
    "silu": "swish",
    "swish": "swish",
}
FIRST = layout("1 tokens dim -> tokens dim")
"""Positions and tokens with a leading axis for the batch."""

VECTOR = layout("1 -> ")
"""A number stored as a vector."""

GATE_FIRST = Transform(
    lambda arrays: _turned(arrays[0], 2),
    lambda array: (_turned(array.reshape(-1, 2, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape), 0),),
)
"""A gated MLP's maps as one, all gates before all values."""


def _turned(array: Any, parts: int) -> Any:
    """Halves exchanged; with `parts`, also interleaved."""
    halves = array.reshape(2, -1, *array.shape[1:])[::-1]
    return (halves.swapaxes(0, 1) if parts else halves).reshape(array.shape)


def patches(patch: int) -> Transform:
    """A linear map of patches, whose pixels come row by row with their channels last, stored as a convolution."""
    return layout("outputs inputs height width -> outputs (height width inputs)", height=patch, width=patch)


def attention_rows(ours: str, names: tuple[str, ...], out: str, heads: int) -> list[Row]:
    """An attention's projections: three published arrays, or one with all queries first, and the last."""
    joined = qkv(heads, parts=len(names))
    rows = []
    for part in ("weight", "bias"):
        ends = tuple(f"{name}{part}" for name in names)
        rows += [Row(f"{ours}qkv.{part}", ends, joined)]
        rows += [Row(f"{ours}out.{part}", f"{out}.{part}")]
    return rows


def linear_rows(ours: str, theirs: str, how: Transform = SAME) -> list[Row]:
    """Weight and bias."""
    return [Row(f"{ours}.weight", f"{theirs}.weight", how), Row(f"{ours}.bias", f"{theirs}.bias")]


def norm_rows(ours: str, theirs: str) -> list[Row]:
    """Scale and bias of a norm."""
    return [Row(f"{ours}.scale", f"{theirs}.weight"), Row(f"{ours}.bias", f"{theirs}.bias")]


def block_rows(ours: str, theirs: str, heads: int, names: Mapping[str, Any]) -> list[Row]:
    """A block of attention and MLP, with published names of its parts: qkv, out, norms, up and down."""
    rows = attention_rows(f"{ours}attention.", tuple(theirs + n for n in names["qkv"]), theirs + names["out"], heads)
    for ending, name in zip(("attention_norm", "mlp_norm"), names["norms"], strict=True):
        rows += norm_rows(ours + ending, theirs + name)
    for ending, name in zip(("mlp.up", "mlp.down"), names["mlp"], strict=True):
        rows += linear_rows(ours + ending, theirs + name)
    return rows


def _three(where: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{where}{name}." for name in names)


VIT = {
    "qkv": _three("attention.attention.", "query", "key", "value"),
    "out": "attention.output.dense",
    "norms": ("layernorm_before", "layernorm_after"),
    "mlp": ("intermediate.dense", "output.dense"),
}
"""Hugging Face's ViT and ViT-MAE."""

DINOV2 = {**VIT, "norms": ("norm1", "norm2"), "mlp": ("mlp.fc1", "mlp.fc2")}
"""Hugging Face's DINOv2."""

TIMM = {"qkv": ("attn.qkv.",), "out": "attn.proj", "norms": ("norm1", "norm2"), "mlp": ("mlp.fc1", "mlp.fc2")}
"""timm's ViT, and the original DINOv2 and MAE."""

CLIP = {
    "qkv": _three("self_attn.", "q_proj", "k_proj", "v_proj"),
    "out": "self_attn.out_proj",
    "norms": ("layer_norm1", "layer_norm2"),
    "mlp": ("mlp.fc1", "mlp.fc2"),
}
"""Hugging Face's CLIP and SigLIP, both towers."""

OPENAI = {
    "qkv": ("attn.in_proj_",),
    "out": "attn.out_proj",
    "norms": ("ln_1", "ln_2"),
    "mlp": ("mlp.c_fc", "mlp.c_proj"),
}
"""OpenAI's CLIP, both towers."""


def activation(values: Mapping[str, Any], default: str) -> str:
    """Our name of `hidden_act`.

    Raises:
        Unsupported: there is none.
    """
    name = values.get("hidden_act", default)
    if name not in ACTIVATIONS:
        raise Unsupported(f"hidden_act must be one of {', '.join(ACTIVATIONS)}: got {name!r}")
    return ACTIVATIONS[name]


def published_activation(name: str) -> str:
    """Hugging Face's name of an activation.

    Raises:
        ValueError: it has none.
    """
    found = {"gelu_tanh": "gelu_pytorch_tanh", "swish": "silu"}.get(name, name)
    if found not in ACTIVATIONS:
        raise ValueError(f"model must have a published activation, {', '.join(ACTIVATIONS)}: got {name!r}")
    return found


def sides(values: Mapping[str, Any], default: int) -> tuple[int, int]:
    """Height and width of `image_size`, which may be one number."""
    size = values.get("image_size", default)
    return (int(size), int(size)) if isinstance(size, int | float) else (int(size[0]), int(size[1]))


def published_size(height: int, width: int) -> int | list[int]:
    """`image_size`: one number for a square."""
    return height if height == width else [height, width]


def labels(values: Mapping[str, Any]) -> int:
    """Number of classes: of `id2label`, or `num_labels`, 2 by default."""
    names = values.get("id2label")
    return len(names) if names else int(values.get("num_labels", 2))


def published_labels(classes: int) -> dict[str, Any]:
    """`id2label` and `label2id` of a number of classes."""
    names = {str(i): f"LABEL_{i}" for i in range(classes)}
    return {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}
