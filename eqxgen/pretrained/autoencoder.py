"""Names and sizes that the autoencoders of latent diffusion and taming transformers share: diffusers', and those of the
original repositories' checkpoints.

Attention of older hub files (`query`, `key`, `value`, `proj_attn`) is read under its newer names. The original
checkpoints keep it as 1x1 convolutions, count the decoder's levels from the largest size, and hold the nets of the
losses too, which are left out.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from eqxgen.configs import AutoencoderConfig
from eqxgen.models.autoencoder import KLAutoencoder, VQAutoencoder
from eqxgen.pretrained.encoders import linear_rows, norm_rows
from eqxgen.pretrained.family import Unsupported, require_same
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import CONV, POINTWISE, SAME, Transform, qkv, then

OLDER = {
    f".{old}.{part}": f".{new}.{part}"
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items()
    for part in ("weight", "bias")
}
IGNORED = {
    "loss.*": "nets of the training losses",
    "model_ema.*": "averages, beside the weights themselves",
    "model.diffusion_model.*": "the diffusion model of the latents",
    "cond_stage_model.*": "the encoder of conditions",
    **dict.fromkeys(
        ("betas", "*alphas_cumprod*", "posterior_*", "logvar", "lvlb_weights", "scale_factor"), "noise of the diffusion"
    ),
}
GROUPS = 32
"""Groups of every group norm of the original repositories."""


def table(levels: int) -> Table:
    """diffusers' names first, which are written, then those of the original repositories."""
    rows = [
        *linear_rows("encoder.stem", "encoder.conv_in", CONV),
        *linear_rows("encoder.head", "encoder.conv_out", CONV),
        *linear_rows("decoder.stem", "decoder.conv_in", CONV),
        *linear_rows("decoder.head", "decoder.conv_out", CONV),
        *linear_rows("after", "quant_conv", CONV),
        *linear_rows("before", "post_quant_conv", CONV),
        Row("quantizer.codebook", "quantize.embedding.weight"),
        *_hub(),
        *_original(levels),
    ]
    return Table("autoencoder", tuple(rows), ignored=IGNORED, renames=OLDER, prefixes=("first_stage_model.",))


def _hub() -> Iterator[Row]:
    for part, levels in (("encoder", "down_blocks"), ("decoder", "up_blocks")):
        yield from norm_rows(f"{part}.norm", f"{part}.conv_norm_out")
        yield from _block(f"{part}.levels.{{}}.blocks.{{}}", f"{part}.{levels}.{{}}.resnets.{{}}", "conv_shortcut")
        yield from _attention(f"{part}.levels.{{}}.attention.{{}}", f"{part}.{levels}.{{}}.attentions.{{}}", HUB)
        yield from _block(f"{part}.middle.blocks.{{}}", f"{part}.mid_block.resnets.{{}}", "conv_shortcut")
        yield from _attention(f"{part}.middle.attention", f"{part}.mid_block.attentions.0", HUB)
    yield from linear_rows("encoder.downs.{}", "encoder.down_blocks.{}.downsamplers.0.conv", CONV)
    yield from linear_rows("decoder.ups.{}", "decoder.up_blocks.{}.upsamplers.0.conv", CONV)


def _original(levels: int) -> Iterator[Row]:
    for part, side, step in (("encoder", "down", "downs"), ("decoder", "up", "ups")):
        yield from norm_rows(f"{part}.norm", f"{part}.norm_out")
        for i in (0, 1):
            yield from _block(f"{part}.middle.blocks.{i}", f"{part}.mid.block_{i + 1}", "nin_shortcut")
        yield from _attention(f"{part}.middle.attention", f"{part}.mid.attn_1", ORIGINAL)
        for i in range(levels):
            there = f"{part}.{side}.{i if part == 'encoder' else levels - 1 - i}"
            yield from _block(f"{part}.levels.{i}.blocks.{{}}", f"{there}.block.{{}}", "nin_shortcut")
            yield from _attention(f"{part}.levels.{i}.attention.{{}}", f"{there}.attn.{{}}", ORIGINAL)
            yield from linear_rows(f"{part}.{step}.{i}", f"{there}.{side}sample.conv", CONV)


HUB = ("group_norm", ("to_q", "to_k", "to_v"), "to_out.0", SAME)
ORIGINAL = ("norm", ("q", "k", "v"), "proj_out", POINTWISE)


def _attention(ours: str, theirs: str, names: tuple[str, tuple[str, ...], str, Transform]) -> Iterator[Row]:
    normed, projected, out, matrix = names
    yield from norm_rows(f"{ours}.norm", f"{theirs}.{normed}")
    for kind, how in (("weight", then(matrix, qkv(1))), ("bias", qkv(1))):
        yield Row(f"{ours}.attention.qkv.{kind}", tuple(f"{theirs}.{name}.{kind}" for name in projected), how)
    yield Row(f"{ours}.attention.out.weight", f"{theirs}.{out}.weight", matrix)
    yield Row(f"{ours}.attention.out.bias", f"{theirs}.{out}.bias")


def _block(ours: str, theirs: str, shortcut: str) -> Iterator[Row]:
    for i in (0, 1):
        yield from norm_rows(f"{ours}.norms.{i}", f"{theirs}.norm{i + 1}")
        yield from linear_rows(f"{ours}.convs.{i}", f"{theirs}.conv{i + 1}", CONV)
    yield from linear_rows(f"{ours}.shortcut", f"{theirs}.{shortcut}", CONV)


def sizes(values: Mapping[str, Any]) -> tuple[int, AutoencoderConfig]:
    """Channels of the images, and the sizes of a config.json."""
    channels = int(values.get("in_channels", 3))
    if (out := int(values.get("out_channels", 3))) != channels:
        raise Unsupported(f"out_channels must equal in_channels={channels}: got {out}")
    widths = tuple(int(width) for width in values.get("block_out_channels", (64,)))
    down = [str(name) for name in values.get("down_block_types", ("DownEncoderBlock2D",))]
    up = [str(name) for name in values.get("up_block_types", ("UpDecoderBlock2D",))]
    if len(down) != len(widths) or len(up) != len(widths):
        raise Unsupported(
            f"block_out_channels must have a width for each block type: got {len(widths)} and {len(down)}"
        )
    attended = tuple(level for level, name in enumerate(down) if name == "AttnDownEncoderBlock2D")
    wanted = ["AttnUpDecoderBlock2D" if level in attended else "UpDecoderBlock2D" for level in range(len(up))][::-1]
    if set(down) > {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"} or up != wanted:
        raise Unsupported(f"up_block_types must mirror down_block_types, such as {wanted}: got {up}")
    return channels, AutoencoderConfig(
        widths=widths,
        blocks=int(values.get("layers_per_block", 1)),
        latent_dim=int(values.get("latent_channels", 4)),
        attention=attended,
        middle_attention=bool(values.get("mid_block_add_attention", True)),
        groups=int(values.get("norm_num_groups", 32)),
        projected=bool(values.get("use_quant_conv", True)),
    )


def inferred(arrays: Mapping[str, Any], given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Values of config.json from the shapes of a checkpoint of the original repositories.

    Args:
        arrays: by name.
        given: values that take the place of those of the shapes.
        kind: AutoencoderKL or VQModel.

    Raises:
        KeyError: there is no array of the name.
        Unsupported: the file is of another kind, or its sizes are none of ours.
    """
    short = table(1).short
    shapes = {short(name): stored.shape for name, stored in arrays.items()}
    _require_original(shapes, kind)
    levels = _count(shapes, "encoder.down.{}.block.0.conv1.weight")
    blocks = _count(shapes, "encoder.down.0.block.{}.conv1.weight")
    attended = [f"encoder.down.{level}.attn.0.norm.weight" in shapes for level in range(levels)]
    names = [("Attn" if a else "") + "{}EncoderBlock2D" for a in attended]
    latent_dim, projected = shapes["decoder.conv_in.weight"][1], "quant_conv.weight" in shapes
    found = {
        "_class_name": kind,
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "block_out_channels": [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)],
        "down_block_types": [name.replace("{}", "Down") for name in names],
        "up_block_types": [name.replace("{}", "Up").replace("Encoder", "Decoder") for name in reversed(names)],
        "layers_per_block": blocks,
        "latent_channels": latent_dim,
        "norm_num_groups": GROUPS,
        "mid_block_add_attention": "encoder.mid.attn_1.norm.weight" in shapes,
        "use_quant_conv": projected,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }
    if kind == "VQModel":
        found["num_vq_embeddings"], found["vq_embed_dim"] = shapes["quantize.embedding.weight"]
    elif projected and shapes["post_quant_conv.weight"][1] != latent_dim:
        raise Unsupported(f"embed_dim must equal z_channels={latent_dim}: got {shapes['post_quant_conv.weight'][1]}")
    return found | dict(given)


def _require_original(shapes: Mapping[str, Any], kind: str) -> None:
    if any(name.startswith("encoder.down_blocks.") for name in shapes):
        raise Unsupported("config.json must be beside a file with diffusers' names: fetch it, or give config=")
    if "quantize.embed.weight" in shapes:
        raise Unsupported("the quantizer must be a codebook's nearest vectors: got Gumbel's, quantize.embed.weight")
    if kind == "AutoencoderKL" and "quantize.embedding.weight" in shapes:
        raise Unsupported('the file has a codebook, quantize.embedding.weight: give family="autoencoder_vq"')
    if kind == "VQModel" and "quantize.embedding.weight" not in shapes:
        raise Unsupported('the file has no codebook, quantize.embedding.weight: give family="autoencoder_kl"')


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    """Number of names from 0 on."""
    return next(i for i in itertools.count() if pattern.format(i) not in shapes)


def described(model: KLAutoencoder | VQAutoencoder, kind: str) -> tuple[dict[str, Any], Table]:
    """Values of config.json that both kinds have, and the table."""
    encoder, decoder = model.encoder, model.decoder
    attended = [bool(level.attention) for level in encoder.levels]
    blocks = {len(level.blocks) for level in encoder.levels}
    require_same(len(blocks) == 1, "an autoencoder", "as many blocks at each level")
    config = {
        "_class_name": kind,
        "in_channels": model.channels,
        "out_channels": model.channels,
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attended],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attended)],
        "block_out_channels": [level.blocks[-1].norms[1].channels for level in encoder.levels],
        "layers_per_block": blocks.pop(),
        "act_fn": "silu",
        "latent_channels": decoder.stem.weight.shape[2],
        "norm_num_groups": encoder.norm.groups,
        "mid_block_add_attention": encoder.middle.attention is not None,
    }
    return config, table(len(encoder.levels))
