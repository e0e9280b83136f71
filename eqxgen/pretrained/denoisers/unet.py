"""diffusers' `UNet2DModel`: DDPM (Ho et al. 2020, arXiv:2006.11239) and its variants.

Attention of older hub files (`query`, `key`, `value`, `proj_attn`) is read under its newer names.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from eqxgen.configs import UNetConfig
from eqxgen.models.denoisers.unet import UNet
from eqxgen.nn import GroupNorm
from eqxgen.pretrained.autoencoder import OLDER
from eqxgen.pretrained.encoders import attention_rows, linear_rows, norm_rows
from eqxgen.pretrained.family import Family, Unsupported, require_fixed, require_same
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import CONV

# Options that `UNet` has no field for: name in config.json, the one supported value, the published default.
FIXED = {
    "act_fn": ("silu", "silu"),
    "center_input_sample": (False, False),
    "class_embed_type": (None, None),
    "mid_block_scale_factor": (1, 1),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
    "time_embedding_type": ("positional", "positional"),
}
KINDS = {  # attention, and a residual block between levels where that is not the option's
    "DownBlock2D": (False, False),
    "AttnDownBlock2D": (True, None),
    "ResnetDownsampleBlock2D": (False, True),
}
FREE = (
    *("width", "multipliers", "blocks", "attention", "middle_attention", "heads", "head_dim", "dropout", "groups"),
    *(
        "group_width",
        "epsilon",
        "scaled",
        "resample",
        "far_padding",
        "flip",
        "shift",
        "learn_variance",
        "init",
        "remat",
    ),
)
"""Fields in which diffusers' U-Nets differ."""
UPS = {
    "DownBlock2D": "UpBlock2D",
    "AttnDownBlock2D": "AttnUpBlock2D",
    "ResnetDownsampleBlock2D": "ResnetUpsampleBlock2D",
}


def table(config: UNetConfig) -> Table:
    """diffusers' names."""
    return Table("UNet2D", tuple(_rows(config)), renames=OLDER)


def _rows(config: UNetConfig) -> Iterator[Row]:
    yield from linear_rows("time.up", "time_embedding.linear_1")
    yield from linear_rows("time.down", "time_embedding.linear_2")
    yield Row("time.labels.weight", "class_embedding.weight")
    yield from linear_rows("stem", "conv_in", CONV)
    last = len(config.widths) - 1
    for i, width in enumerate(config.widths):
        for side, name, there in (("downs", "down", i), ("ups", "up", last - i)):
            ours, theirs = f"{side}.{there}", f"{name}_blocks.{there}"
            yield from _block(f"{ours}.blocks.{{}}", f"{theirs}.resnets.{{}}")
            yield from _attention(f"{ours}.attention.{{}}", f"{theirs}.attentions.{{}}", config.heads_of(width))
            if config.resample == "block":
                yield from _block(f"{ours}.step", f"{theirs}.{name}samplers.0")
            else:
                yield from linear_rows(f"{ours}.step", f"{theirs}.{name}samplers.0.conv", CONV)
    yield from _block("middle.blocks.{}", "mid_block.resnets.{}")
    yield from _attention("middle.attention", "mid_block.attentions.0", config.heads_of(config.widths[-1]))
    yield from norm_rows("norm", "conv_norm_out")
    yield from linear_rows("head", "conv_out", CONV)


def _block(ours: str, theirs: str) -> Iterator[Row]:
    for i in (0, 1):
        yield from norm_rows(f"{ours}.norms.{i}", f"{theirs}.norm{i + 1}")
        yield from linear_rows(f"{ours}.convs.{i}", f"{theirs}.conv{i + 1}", CONV)
    yield from linear_rows(f"{ours}.modulation", f"{theirs}.time_emb_proj")
    yield from linear_rows(f"{ours}.shortcut", f"{theirs}.conv_shortcut", CONV)


def _attention(ours: str, theirs: str, heads: int) -> Iterator[Row]:
    yield from norm_rows(f"{ours}.norm", f"{theirs}.group_norm")
    parts = tuple(f"{theirs}.to_{part}." for part in "qkv")
    yield from attention_rows(f"{ours}.attention.", parts, f"{theirs}.to_out.0", heads)


def sizes(values: Mapping[str, Any]) -> UNetConfig:
    """The sizes of a config.json.

    Raises:
        Unsupported: an option has a value that `UNet` has no field for.
    """
    require_fixed(values, FIXED, "UNet2D")
    widths = tuple(int(width) for width in values.get("block_out_channels", (224, 448, 672, 896)))
    attention, resample = _levels(values, len(widths))
    if (dim := values.get("time_embedding_dim")) not in (None, 4 * widths[0]):
        raise Unsupported(f"time_embedding_dim must be 4 times the first of block_out_channels={widths}: got {dim}")
    scaled = values.get("resnet_time_scale_shift", "default") == "scale_shift"
    groups, middle = int(values.get("norm_num_groups", 32)), bool(values.get("add_attention", True))
    given = values.get("attn_norm_num_groups")
    if middle and given != groups and (scaled or given is not None):
        raise Unsupported(f"attn_norm_num_groups must be norm_num_groups={groups}: got {given}")
    channels, out = _channels(values)
    head_dim = values.get("attention_head_dim", 8) if attention or middle else None
    there = {widths[level] for level in attention} | ({widths[-1]} if middle else set())
    if head_dim is not None and (odd := sorted(width for width in there if width % int(head_dim))):
        raise Unsupported(
            f"attention_head_dim must divide the block_out_channels with attention: got {head_dim}, and {odd}"
        )
    padding = int(values.get("downsample_padding", 1))
    if padding not in (0, 1):
        raise Unsupported(f"downsample_padding must be 0 or 1: got {padding}")
    return UNetConfig(
        width=widths[0],
        multipliers=tuple(width / widths[0] for width in widths),
        blocks=int(values.get("layers_per_block", 2)),
        attention=attention,
        middle_attention=middle,
        heads=1 if head_dim is None else None,
        head_dim=None if head_dim is None else int(head_dim),
        dropout=float(values.get("dropout", 0.0)),
        groups=groups,
        epsilon=float(values.get("norm_eps", 1e-5)),
        scaled=scaled,
        resample=resample,
        far_padding=padding == 0,
        flip=bool(values.get("flip_sin_to_cos", True)),
        shift=int(values.get("freq_shift", 0)),
        learn_variance=out == 2 * channels,
        init="torch",
    )


def _levels(values: Mapping[str, Any], count: int) -> tuple[tuple[int, ...], str]:
    """Levels with attention, and the kind of the steps between levels."""
    down = [str(name) for name in values.get("down_block_types", ("DownBlock2D", *("AttnDownBlock2D",) * 3))]
    up = [str(name) for name in values.get("up_block_types", (*("AttnUpBlock2D",) * 3, "UpBlock2D"))]
    if unknown := set(down) - set(KINDS):
        raise Unsupported(f"down_block_types must be of {', '.join(KINDS)}: got {sorted(unknown)}")
    wanted = [UPS[name] for name in reversed(down)]
    if up != wanted or len(down) != count:
        raise Unsupported(f"up_block_types must mirror down_block_types, such as {wanted}, of {count} levels: got {up}")
    option = {values.get(f"{side}sample_type", "conv") for side in ("down", "up")}
    if len(option) != 1 or option - {"conv", "resnet"}:
        raise Unsupported(f"downsample_type and upsample_type must both be conv or both resnet: got {sorted(option)}")
    resnet = option == {"resnet"}
    steps = {resnet if KINDS[name][1] is None else bool(KINDS[name][1]) for name in down[:-1]}
    steps |= {resnet if KINDS[name][1] is None else bool(KINDS[name][1]) for name in down[1:]}
    if len(steps) > 1:
        raise Unsupported(f"down_block_types must all resample by a convolution or by a residual block: got {down}")
    attended = tuple(level for level, name in enumerate(down) if KINDS[name][0])
    return attended, "block" if steps == {True} else "conv"


def _channels(values: Mapping[str, Any]) -> tuple[int, int]:
    """Channels of the image, and of the result: as many, twice as many, or fewer than the input has."""
    given, out = int(values.get("in_channels", 3)), int(values.get("out_channels", 3))
    if given < out != 2 * given:
        raise Unsupported(f"out_channels must be at most in_channels={given}, or twice: got {out}")
    return (given if out == 2 * given else out), out


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], UNet], Table]:
    """The model of a config, and its table."""
    config = sizes(values)
    channels, _ = _channels(values)
    extra = int(values.get("in_channels", 3)) - channels
    classes = values.get("num_class_embeds")
    classes = None if classes is None else int(classes)
    return lambda key: UNet(channels, classes, config, extra=extra, key=key), table(config)


def describe(model: UNet) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not of diffusers' architecture.
    """
    config = model.config
    groups = {node.groups for node in _norms(model)}
    plain = dataclasses.replace(UNetConfig(), **{name: getattr(config, name) for name in FREE}) == config
    same = plain and config.multipliers[0] == 1 and config.heads in (None, 1) and len(groups) == 1
    require_same(same, "diffusers' UNet2D", "blocks and skips of DDPM or ADM; groups of one number; heads of one width")
    attended = [i in config.attention for i in range(len(config.widths))]
    block = config.resample == "block"
    down = ["AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" if block else "DownBlock2D" for a in attended]
    values = {
        "_class_name": "UNet2DModel",
        "in_channels": model.channels + model.extra,
        "out_channels": model.channels * (2 if config.learn_variance else 1),
        "flip_sin_to_cos": config.flip,
        "freq_shift": config.shift,
        "block_out_channels": list(config.widths),
        "down_block_types": down,
        "up_block_types": [UPS[name] for name in reversed(down)],
        "downsample_type": "resnet" if block else "conv",
        "upsample_type": "resnet" if block else "conv",
        "layers_per_block": config.blocks,
        "downsample_padding": 0 if config.far_padding else 1,
        "dropout": config.dropout,
        "attention_head_dim": config.head_dim,
        "norm_num_groups": (count := groups.pop()),
        "attn_norm_num_groups": count if config.scaled and config.middle_attention else None,
        "norm_eps": config.epsilon,
        "resnet_time_scale_shift": "scale_shift" if config.scaled else "default",
        "add_attention": config.middle_attention,
        "num_class_embeds": model.classes,
        **{name: value for name, (value, _) in FIXED.items()},
    }
    return values, table(config)


def _norms(model: UNet) -> list[GroupNorm]:
    is_norm = lambda node: isinstance(node, GroupNorm)
    return [node for node in jax.tree.leaves(model, is_leaf=is_norm) if is_norm(node)]


UNET = Family("UNet2D", ("UNet2DModel",), build, describe)
from_pretrained, to_pretrained = UNET.from_pretrained, UNET.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
