"""EDM's U-Nets (Karras et al. 2022, arXiv:2206.00364): state dictionaries of its SongUNet and DhariwalUNet, which have
no config.json.

    model = from_pretrained("net.safetensors", config={"class": "SongUNet", "img_resolution": 32, ...})

The config is the constructor's arguments under their published names, and `class`. The published file is a pickle,
from which its owner writes `net.model.state_dict()`; a prefix `model.` is read too.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import PRNGKeyArray

from eqxgen.configs import UNetConfig
from eqxgen.models.denoisers.unet import UNet
from eqxgen.pretrained.encoders import linear_rows, norm_rows
from eqxgen.pretrained.family import Family, Unsupported
from eqxgen.pretrained.table import Row, Table, written
from eqxgen.pretrained.transforms import CONV, POINTWISE, TRANSPOSED, Transform, then

IGNORED = {"*resample_filter": "constants of the resampling"}
SONG = {
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": [1, 1],
    "dropout": 0.10,
    "model_channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "channel_mult_emb": 4,
    "num_blocks": 4,
    "attn_resolutions": [16],
    "label_dropout": 0,
}
DHARIWAL = {
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "channel_mult_emb": 4,
    "num_blocks": 3,
    "attn_resolutions": [32, 16, 8],
    "dropout": 0.10,
    "label_dropout": 0,
}
"""Arguments and their published defaults."""
SIZES = {"class", "img_resolution", "in_channels", "out_channels", "label_dim", "augment_dim"}


def parts_last(heads: int) -> Transform:
    """Queries, keys and values whose channels alternate within each head."""
    return Transform(
        lambda arrays: rearrange(arrays[0], "(heads d parts) ... -> heads parts d ...", heads=heads, parts=3),
        lambda array: (rearrange(array, "(heads parts d) ... -> (heads d parts) ...", heads=heads, parts=3),),
    )


def table(config: UNetConfig, side: int) -> Table:
    """Published names, of a net for images of that side."""
    return Table("EDM's U-Net", tuple(_rows(config, side)), ignored=IGNORED, prefixes=("model.",))


def _rows(config: UNetConfig, side: int) -> Iterator[Row]:
    yield Row("time.waves.frequencies", "map_noise.freqs")
    yield from linear_rows("time.up", "map_layer0")
    yield from linear_rows("time.down", "map_layer1")
    yield Row("time.labels.weight", "map_label.weight", TRANSPOSED)
    yield Row("time.labels.bias", "map_label.bias")
    yield Row("time.augment.weight", "map_augment.weight")
    last, first = len(config.widths) - 1, f"{side}x{side}"
    yield from linear_rows("stem", f"enc.{first}_conv", CONV)
    for i, width in enumerate(config.widths):
        here, heads = f"{side >> i}x{side >> i}", config.heads_of(width)
        for j in range(config.blocks):
            yield from _block(f"downs.{i}", j, f"enc.{here}_block{j}", heads)
        for j in range(config.blocks + 1):
            yield from _block(f"ups.{last - i}", j, f"dec.{here}_block{j}", heads)
        if i < last:
            below = f"{side >> i + 1}x{side >> i + 1}"
            yield from _residual(f"downs.{i}.step", f"enc.{below}_down")
            yield from linear_rows(f"downs.{i}.image", f"enc.{below}_aux_residual", CONV)
            yield from _residual(f"ups.{last - i - 1}.step", f"dec.{here}_up")
    small, heads = f"{side >> last}x{side >> last}", config.heads_of(config.widths[-1])
    yield from _residual("middle.blocks.0", f"dec.{small}_in0")
    yield from _attention("middle.attention", f"dec.{small}_in0", heads)
    yield from _residual("middle.blocks.1", f"dec.{small}_in1")
    normed, head = ("out_norm", "out_conv") if config.scaled else (f"dec.{first}_aux_norm", f"dec.{first}_aux_conv")
    yield from norm_rows("norm", normed)
    yield from linear_rows("head", head, CONV)


def _block(level: str, j: int, theirs: str, heads: int) -> Iterator[Row]:
    yield from _residual(f"{level}.blocks.{j}", theirs)
    yield from _attention(f"{level}.attention.{j}", theirs, heads)


def _residual(ours: str, theirs: str) -> Iterator[Row]:
    for i in (0, 1):
        yield from norm_rows(f"{ours}.norms.{i}", f"{theirs}.norm{i}")
        yield from linear_rows(f"{ours}.convs.{i}", f"{theirs}.conv{i}", CONV)
    yield from linear_rows(f"{ours}.modulation", f"{theirs}.affine")
    yield from linear_rows(f"{ours}.shortcut", f"{theirs}.skip", CONV)


def _attention(ours: str, theirs: str, heads: int) -> Iterator[Row]:
    yield from norm_rows(f"{ours}.norm", f"{theirs}.norm2")
    yield Row(f"{ours}.attention.qkv.weight", f"{theirs}.qkv.weight", then(POINTWISE, parts_last(heads)))
    yield Row(f"{ours}.attention.qkv.bias", f"{theirs}.qkv.bias", parts_last(heads))
    yield Row(f"{ours}.attention.out.weight", f"{theirs}.proj.weight", POINTWISE)
    yield Row(f"{ours}.attention.out.bias", f"{theirs}.proj.bias")


def sizes(values: Mapping[str, Any]) -> UNetConfig:
    """The sizes of a constructor's arguments.

    Raises:
        Unsupported: an argument is unknown, or has a value that `UNet` has no field for.
    """
    kinds = {"SongUNet": SONG, "DhariwalUNet": DHARIWAL}
    if (kind := values["class"]) not in kinds:
        raise Unsupported(f"class must be SongUNet or DhariwalUNet: got {kind!r}")
    if unknown := set(values) - SIZES - set(kinds[kind]):
        raise Unsupported(f"the config must have arguments of {kind} alone: got {sorted(unknown)}")
    given = kinds[kind] | dict(values)
    channels, out, side = int(given["in_channels"]), int(given["out_channels"]), int(given["img_resolution"])
    if out not in (channels, 2 * channels):
        raise Unsupported(f"out_channels must be once or twice in_channels={channels}: got {out}")
    multipliers = tuple(given["channel_mult"])
    shared: dict[str, Any] = {
        "width": int(given["model_channels"]),
        "multipliers": multipliers,
        "blocks": int(given["num_blocks"]),
        "attention": tuple(i for i in range(len(multipliers)) if side >> i in given["attn_resolutions"]),
        "embedding": int(given["channel_mult_emb"]),
        "dropout": float(given["dropout"]),
        "augment": int(given.get("augment_dim", 0)),
        "learn_variance": out == 2 * channels,
    }
    return dataclasses.replace(_song(given) if kind == "SongUNet" else UNetConfig.edm_adm(), **shared)


def _song(given: Mapping[str, Any]) -> UNetConfig:
    known = {"embedding_type": ("positional", "fourier"), "encoder_type": ("standard", "residual")}
    for name, values in (known | {"decoder_type": ("standard",)}).items():
        if given[name] not in values:
            raise Unsupported(f"{name} must be {' or '.join(values)}: got {given[name]!r}")
    fourier = given["embedding_type"] == "fourier"
    return dataclasses.replace(
        UNetConfig.ddpmpp(),
        fourier=fourier,
        shift=0 if fourier else 1,
        noise_width=int(given["channel_mult_noise"]),
        residual_input=given["encoder_type"] == "residual",
        taps=tuple(given["resample_filter"]),
    )


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], UNet], Table]:
    """The model of a constructor's arguments, and its table."""
    config, channels, classes = sizes(values), int(values["in_channels"]), int(values.get("label_dim", 0)) or None
    return lambda key: UNet(channels, classes, config, key=key), table(config, int(values["img_resolution"]))


def describe(model: UNet) -> tuple[dict[str, Any], Table]:
    """Not possible without the side of the images, which is in the published names.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "EDM's names hold the side of the images: use eqxgen.pretrained.denoisers.edm.state_dict(model, side)"
    )


def state_dict(model: UNet, side: int) -> dict[str, np.ndarray]:
    """The published state dictionary of a net, for images of that side, without the constants of the resampling.

    Raises:
        ValueError: the model is not of EDM's architecture.
    """
    return {name: np.asarray(array.read(...)) for name, array in written(table(model.config, side), model).items()}


EDM = Family("EDM's U-Net", (), build, describe)
from_pretrained = EDM.from_pretrained

__all__ = ["from_pretrained", "state_dict"]
