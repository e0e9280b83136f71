"""guided-diffusion's ADM, its upsampler and its classifier (Dhariwal and Nichol 2021, arXiv:2105.05233): state
dictionaries, which have no config.json.

    model = from_pretrained("256x256_diffusion.pt", config={"class": "UNetModel", "image_size": 256, ...})

The config is the constructor's arguments under their published names, and `class`: UNetModel, SuperResModel or
EncoderUNetModel.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import UNetConfig
from eqxgen.models.denoisers.unet import UNet
from eqxgen.models.denoisers.unet_guides import UNetClassifier, Upsampler
from eqxgen.pretrained.encoders import linear_rows, norm_rows
from eqxgen.pretrained.family import Family, Unsupported, require_same
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import CONV, SAME, TRANSPOSED, layout, qkv, then

LINE = layout("outputs inputs 1 -> outputs inputs")
"""A linear map stored as a convolution over one axis."""
POINT = layout("outputs inputs 1 1 -> outputs inputs")
CLASSES = ("UNetModel", "SuperResModel", "EncoderUNetModel")
POOLS = {"attention": "attention", "adaptive": "mean"}
DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "dropout": 0,
    "channel_mult": [1, 2, 4, 8],
    "conv_resample": True,
    "dims": 2,
    "num_classes": None,
    "use_checkpoint": False,
    "use_fp16": False,
    "num_heads": 1,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "pool": "adaptive",
}
"""Arguments and their published defaults."""
SIZES = {"class", "image_size", "model_channels", "out_channels", "num_res_blocks", "attention_resolutions"}


def table(config: UNetConfig, *, later: bool, pool: str | None = None, prefix: str = "") -> Table:
    """Published names.

    Args:
        config: the sizes.
        later: queries, keys and values are split before the heads.
        pool: of a classifier.
        prefix: of our paths.
    """
    rows = tuple(row._replace(path=prefix + row.path) for row in _rows(config, later, pool))
    return Table("guided-diffusion's U-Net", rows)


def _rows(config: UNetConfig, later: bool, pool: str | None) -> Iterator[Row]:
    yield from linear_rows("time.up", "time_embed.0")
    yield from linear_rows("time.down", "time_embed.2")
    yield Row("time.labels.weight", "label_emb.weight")
    yield from linear_rows("stem", "input_blocks.0.0", CONV)
    yield from _down(config, later)
    heads = config.heads_of(config.widths[-1])
    for i, place in enumerate((0, 2)):
        yield from _block(f"middle.blocks.{i}", f"middle_block.{place}")
    yield from _attention("middle.attention", "middle_block.1", heads, later)
    yield from norm_rows("norm", "out.0")
    if pool is None:
        yield from _up(config, later)
        yield from linear_rows("head", "out.2", CONV)
        return
    if pool == "mean":
        yield from linear_rows("head", "out.3", POINT)
        return
    yield Row("positions", "out.2.positional_embedding", TRANSPOSED)
    yield Row("qkv.weight", "out.2.qkv_proj.weight", then(LINE, qkv(heads, parts=1)))
    yield Row("qkv.bias", "out.2.qkv_proj.bias", qkv(heads, parts=1))
    yield from linear_rows("head", "out.2.c_proj", LINE)


def _down(config: UNetConfig, later: bool) -> Iterator[Row]:
    count = 1
    for i, width in enumerate(config.widths):
        for j in range(config.blocks):
            yield from _block(f"downs.{i}.blocks.{j}", f"input_blocks.{count}.0")
            yield from _attention(f"downs.{i}.attention.{j}", f"input_blocks.{count}.1", config.heads_of(width), later)
            count += 1
        yield from _step(f"downs.{i}.step", f"input_blocks.{count}.0", "op", config)
        count += 1


def _up(config: UNetConfig, later: bool) -> Iterator[Row]:
    count, last = 0, len(config.widths) - 1
    for i in range(last + 1):
        level, attended = config.widths[last - i], last - i in config.attention
        for j in range(config.blocks + 1):
            theirs = f"output_blocks.{count}"
            yield from _block(f"ups.{i}.blocks.{j}", f"{theirs}.0")
            yield from _attention(f"ups.{i}.attention.{j}", f"{theirs}.1", config.heads_of(level), later)
            count += 1
        yield from _step(f"ups.{i}.step", f"output_blocks.{count - 1}.{1 + attended}", "conv", config)


def _step(ours: str, theirs: str, name: str, config: UNetConfig) -> Iterator[Row]:
    if config.resample == "block":
        yield from _block(ours, theirs)
    else:
        yield from linear_rows(ours, f"{theirs}.{name}", CONV)


def _block(ours: str, theirs: str) -> Iterator[Row]:
    for i, (normed, conv) in enumerate((("in_layers.0", "in_layers.2"), ("out_layers.0", "out_layers.3"))):
        yield from norm_rows(f"{ours}.norms.{i}", f"{theirs}.{normed}")
        yield from linear_rows(f"{ours}.convs.{i}", f"{theirs}.{conv}", CONV)
    yield from linear_rows(f"{ours}.modulation", f"{theirs}.emb_layers.1")
    yield from linear_rows(f"{ours}.shortcut", f"{theirs}.skip_connection", CONV)


def _attention(ours: str, theirs: str, heads: int, later: bool) -> Iterator[Row]:
    yield from norm_rows(f"{ours}.norm", f"{theirs}.norm")
    order = qkv(heads, parts=1) if later else SAME
    yield Row(f"{ours}.attention.qkv.weight", f"{theirs}.qkv.weight", then(LINE, order))
    yield Row(f"{ours}.attention.qkv.bias", f"{theirs}.qkv.bias", order)
    yield Row(f"{ours}.attention.out.weight", f"{theirs}.proj_out.weight", LINE)
    yield Row(f"{ours}.attention.out.bias", f"{theirs}.proj_out.bias")


def sizes(values: Mapping[str, Any]) -> UNetConfig:
    """The sizes of a constructor's arguments.

    Raises:
        Unsupported: an argument is unknown, or has a value that our models have no field for.
    """
    if unknown := set(values) - SIZES - set(DEFAULTS):
        raise Unsupported(f"the config must have arguments of guided-diffusion's nets alone: got {sorted(unknown)}")
    given = DEFAULTS | dict(values)
    if given["class"] not in CLASSES:
        raise Unsupported(f"class must be one of {', '.join(CLASSES)}: got {given['class']!r}")
    block = bool(given["resblock_updown"])
    if given["dims"] != 2 or not (given["conv_resample"] or block):
        raise Unsupported("dims must be 2, and conv_resample or resblock_updown True: got another")
    if given["num_heads_upsample"] not in (-1, given["num_heads"]):
        raise Unsupported(f"num_heads_upsample must be num_heads or -1: got {given['num_heads_upsample']}")
    multipliers, head_dim = tuple(given["channel_mult"]), int(given["num_head_channels"])
    return dataclasses.replace(
        UNetConfig.adm(),
        width=int(given["model_channels"]),
        multipliers=multipliers,
        blocks=int(given["num_res_blocks"]),
        attention=tuple(i for i in range(len(multipliers)) if 2**i in given["attention_resolutions"]),
        heads=int(given["num_heads"]) if head_dim == -1 else None,
        head_dim=None if head_dim == -1 else head_dim,
        dropout=float(given["dropout"]),
        scaled=bool(given["use_scale_shift_norm"]),
        resample="block" if block else "conv",
        far_padding=False,
        learn_variance=given["class"] != CLASSES[2] and int(given["out_channels"]) == 2 * int(given["in_channels"]),
    )


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Any], Table]:
    """The model of a constructor's arguments, and its table."""
    config, given = sizes(values), DEFAULTS | dict(values)
    kind, channels, out = given["class"], int(given["in_channels"]), int(given["out_channels"])
    later, classes = bool(given["use_new_attention_order"]), given["num_classes"]
    if kind == "EncoderUNetModel":
        if given["pool"] not in POOLS:
            raise Unsupported(f"pool must be {' or '.join(POOLS)}: got {given['pool']!r}")
        side, pool = int(given["image_size"]), POOLS[given["pool"]]
        make = lambda key: UNetClassifier(side, side, channels, out, config, pool=pool, key=key)
        return make, table(config, later=later, pool=pool)
    if out not in (channels, 2 * channels):
        raise Unsupported(f"out_channels must be once or twice in_channels={channels}: got {out}")
    if kind == "SuperResModel":
        return lambda key: Upsampler(channels, classes, config, key=key), table(config, later=later, prefix="net.")
    return lambda key: UNet(channels, classes, config, key=key), table(config, later=later)


def describe(model: UNet | Upsampler | UNetClassifier) -> tuple[dict[str, Any], Table]:
    """Values for `build` but the image's size, and the table, in the older order of queries, keys and values.

    Raises:
        ValueError: the model is not of guided-diffusion's architecture.
    """
    net = model.net if isinstance(model, Upsampler) else model
    config, pool = net.config, None
    if isinstance(net, UNetClassifier):
        pool = "mean" if net.qkv is None else "attention"
    prefix = "net." if isinstance(model, Upsampler) else ""
    free = {name: getattr(config, name) for name in (*FREE, "remat")}
    same = dataclasses.replace(UNetConfig.adm(), **free) == config and not (
        config.resample == "conv" and config.far_padding
    )
    require_same(same, "guided-diffusion", "blocks, skips and time of ADM")
    values = {
        "class": "EncoderUNetModel" if pool else "SuperResModel" if prefix else "UNetModel",
        "in_channels": net.channels,
        "model_channels": config.width,
        "channel_mult": list(config.multipliers),
        "num_res_blocks": config.blocks,
        "attention_resolutions": [2**i for i in config.attention],
        "num_heads": config.heads or 1,
        "num_head_channels": config.head_dim or -1,
        "dropout": config.dropout,
        "use_scale_shift_norm": config.scaled,
        "resblock_updown": config.resample == "block",
    }
    if isinstance(net, UNetClassifier):
        values |= {"out_channels": net.head.out_dim, "pool": "adaptive" if net.qkv is None else "attention"}
    else:
        out = net.channels * (2 if config.learn_variance else 1)
        values |= {"out_channels": out, "num_classes": net.classes}
    return values, table(config, later=False, pool=pool, prefix=prefix)


FREE = (
    *("width", "multipliers", "blocks", "attention", "heads", "head_dim", "dropout", "scaled", "resample"),
    *("far_padding", "learn_variance", "init"),
)
"""Fields in which guided-diffusion's nets differ."""
ADM = Family("ADM", (), build, describe)
from_pretrained, to_pretrained = ADM.from_pretrained, ADM.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
