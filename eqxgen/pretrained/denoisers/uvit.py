"""U-ViT (Bao et al. 2023, arXiv:2209.12152): the original checkpoints, which have no config.json.

    model = from_pretrained("cifar10_uvit_small.pth", config={"img_size": 32, "patch_size": 2, "embed_dim": 512, ...})

The config is the constructor's arguments under their published names. Nets whose classes include that of no class have
odd `num_classes`, such as 1001, and nets without it even ones; `null` in the config says otherwise.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import UViTConfig
from eqxgen.models.denoisers.uvit import UViT
from eqxgen.pretrained.encoders import FIRST, attention_rows, linear_rows, norm_rows, patches
from eqxgen.pretrained.family import Family, Unsupported
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import CONV

DEFAULTS: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "in_chans": 3,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": False,
    "qk_scale": None,
    "mlp_time_embed": False,
    "num_classes": -1,
    "use_checkpoint": False,
    "conv": True,
    "skip": True,
    "null": None,
}
"""Arguments and their published defaults, and `null`."""


def table(heads: int, patch: int) -> Table:
    """Published names."""
    return Table("U-ViT", tuple(_rows(heads, patch)))


def _rows(heads: int, patch: int) -> Iterator[Row]:
    yield Row("patches.projection.weight", "patch_embed.proj.weight", patches(patch))
    yield Row("patches.projection.bias", "patch_embed.proj.bias")
    yield from linear_rows("time.up", "time_embed.0")
    yield from linear_rows("time.down", "time_embed.2")
    yield Row("labels.weight", "label_emb.weight")
    yield Row("positions", "pos_embed", FIRST)
    yield from _block("stack.first.blocks.{}.", "in_blocks.{}.", heads)
    yield from _block("stack.middle.", "mid_block.", heads)
    yield from _block("stack.second.blocks.{}.block.", "out_blocks.{}.", heads)
    yield from linear_rows("stack.second.blocks.{}.join", "out_blocks.{}.skip_linear")
    yield from norm_rows("norm", "norm")
    yield from linear_rows("out.projection", "decoder_pred")
    yield from linear_rows("last", "final_layer", CONV)


def _block(ours: str, theirs: str, heads: int) -> Iterator[Row]:
    yield from attention_rows(f"{ours}attention.", (f"{theirs}attn.qkv.",), f"{theirs}attn.proj", heads)
    yield from norm_rows(f"{ours}attention_norm", f"{theirs}norm1")
    yield from norm_rows(f"{ours}mlp_norm", f"{theirs}norm2")
    yield from linear_rows(f"{ours}mlp.up", f"{theirs}mlp.fc1")
    yield from linear_rows(f"{ours}mlp.down", f"{theirs}mlp.fc2")


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], UViT], Table]:
    """The model of a constructor's arguments, and its table."""
    if unknown := set(values) - set(DEFAULTS):
        raise Unsupported(f"the config must have arguments of U-ViT alone: got {sorted(unknown)}")
    given = DEFAULTS | dict(values)
    if given["qk_scale"] is not None or not given["skip"]:
        raise Unsupported("qk_scale must be None and skip True: got another")
    dim, rows, side = int(given["embed_dim"]), int(given["num_classes"]), int(given["img_size"])
    null = bool(rows % 2) if given["null"] is None else bool(given["null"])
    config = UViTConfig(
        dim=dim,
        depth=int(given["depth"]) // 2 * 2 + 1,
        heads=int(given["num_heads"]),
        hidden_dim=int(dim * float(given["mlp_ratio"])),
        patch=int(given["patch_size"]),
        time_mlp=bool(given["mlp_time_embed"]),
        qkv_bias=bool(given["qkv_bias"]),
        convolution=bool(given["conv"]),
        null=null,
    )
    classes, channels = (rows - null if rows > 0 else None), int(given["in_chans"])
    return lambda key: UViT(side, side, channels, classes, config, key=key), table(config.heads, config.patch)


def describe(model: UViT) -> tuple[dict[str, Any], Table]:
    """Values for `build`, and the table.

    Raises:
        ValueError: the images are not square.
    """
    config = model.config
    if model.height != model.width:
        raise ValueError(f"U-ViT's images must be square to be written: got {model.height} x {model.width}")
    values = {
        "img_size": model.height,
        "patch_size": config.patch,
        "in_chans": model.channels,
        "embed_dim": config.dim,
        "depth": config.depth - 1,
        "num_heads": config.heads,
        "mlp_ratio": config.hidden_dim / config.dim,
        "qkv_bias": config.qkv_bias,
        "mlp_time_embed": config.time_mlp,
        "num_classes": -1 if model.labels is None else model.labels.vocab,
        "conv": config.convolution,
        "null": config.null,
    }
    return values, table(config.heads, config.patch)


UVIT = Family("U-ViT", (), build, describe)
from_pretrained, to_pretrained = UVIT.from_pretrained, UVIT.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
