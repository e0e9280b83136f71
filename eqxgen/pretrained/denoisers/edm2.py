"""EDM2's U-Nets (Karras et al. 2024, arXiv:2312.02696): state dictionaries of its preconditioned net, which have no
config.json.

    model = from_pretrained("edm2-s.safetensors", config={"img_resolution": 64, "img_channels": 4, ...})

The config is the constructor's arguments under their published names. The published file is a pickle, from which its
owner writes `net.state_dict()`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from eqxgen.configs import EDM2Config
from eqxgen.models.denoisers.edm2 import EDM2UNet
from eqxgen.pretrained.denoisers.edm import parts_last
from eqxgen.pretrained.family import Family, Unsupported
from eqxgen.pretrained.table import Row, Table, written
from eqxgen.pretrained.transforms import CONV, POINTWISE, then

DEFAULTS: dict[str, Any] = {
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "channel_mult_noise": None,
    "channel_mult_emb": None,
    "num_blocks": 3,
    "attn_resolutions": [16, 8],
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "channels_per_head": 64,
    "dropout": 0,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256,
    "use_fp16": True,
    "sigma_data": 0.5,
    "logvar_channels": 128,
}
"""Arguments and their published defaults."""
SIZES = {"img_resolution", "img_channels", "label_dim"}
BALANCES = {
    "label_balance": "label_balance",
    "concat_balance": "concat_balance",
    "block_balance": "res_balance",
    "attention_balance": "attn_balance",
}


def table(config: EDM2Config, side: int) -> Table:
    """Published names, of a net for images of that side."""
    return Table(
        "EDM2's U-Net", tuple(_rows(config, side)), ignored={"*resample_filter": "constants of the resampling"}
    )


def _rows(config: EDM2Config, side: int) -> Iterator[Row]:
    for ours, theirs in (("waves", "unet.emb_fourier"), ("uncertainty_waves", "logvar_fourier")):
        yield Row(f"{ours}.frequencies", f"{theirs}.freqs")
        yield Row(f"{ours}.phases", f"{theirs}.phases")
    yield Row("time.layer.weight", "unet.emb_noise.weight")
    yield Row("labels.layer.weight", "unet.emb_label.weight")
    yield Row("uncertainty_head.layer.weight", "logvar_linear.weight")
    yield Row("stem.layer.weight", f"unet.enc.{side}x{side}_conv.weight", CONV)
    yield Row("head.layer.weight", "unet.out_conv.weight", CONV)
    yield Row("head.gain", "unet.out_gain")
    last = len(config.widths) - 1
    for i, width in enumerate(config.widths):
        here, heads = f"{side >> i}x{side >> i}", width // config.head_dim
        down = [f"enc.{here}_down"] if i else []
        down += [f"enc.{here}_block{j}" for j in range(config.blocks)]
        up = [f"dec.{here}_up"] if i < last else []
        up += [f"dec.{here}_block{j}" for j in range(config.blocks + 1)]
        for j, name in enumerate(down):
            yield from _block(f"downs.{i}.{j}", f"unet.{name}", heads)
        for j, name in enumerate(up):
            yield from _block(f"ups.{last - i}.{j}", f"unet.{name}", heads)
    small, heads = f"{side >> last}x{side >> last}", config.widths[-1] // config.head_dim
    for i in (0, 1):
        yield from _block(f"middle.{i}", f"unet.dec.{small}_in{i}", heads)


def _block(ours: str, theirs: str, heads: int) -> Iterator[Row]:
    for i in (0, 1):
        yield Row(f"{ours}.convs.{i}.layer.weight", f"{theirs}.conv_res{i}.weight", CONV)
    yield Row(f"{ours}.modulation.layer.weight", f"{theirs}.emb_linear.weight")
    yield Row(f"{ours}.modulation.gain", f"{theirs}.emb_gain")
    yield Row(f"{ours}.shortcut.layer.weight", f"{theirs}.conv_skip.weight", CONV)
    yield Row(f"{ours}.qkv.layer.weight", f"{theirs}.attn_qkv.weight", then(POINTWISE, parts_last(max(1, heads))))
    yield Row(f"{ours}.out.layer.weight", f"{theirs}.attn_proj.weight", POINTWISE)


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], EDM2UNet], Table]:
    """The model of a constructor's arguments, and its table."""
    if unknown := set(values) - SIZES - set(DEFAULTS):
        raise Unsupported(f"the config must have arguments of EDM2's nets alone: got {sorted(unknown)}")
    given = DEFAULTS | dict(values)
    fixed = {"channel_mult_noise": None, "channel_mult_emb": None, "logvar_channels": 128}
    for name, wanted in fixed.items():
        if given[name] != wanted:
            raise Unsupported(f"{name} must be {wanted}: got {given[name]!r}")
    side, multipliers = int(given["img_resolution"]), tuple(given["channel_mult"])
    shares: dict[str, Any] = {ours: float(given[theirs]) for ours, theirs in BALANCES.items()}
    config = EDM2Config(
        width=int(given["model_channels"]),
        multipliers=multipliers,
        blocks=int(given["num_blocks"]),
        attention=tuple(i for i in range(len(multipliers)) if side >> i in given["attn_resolutions"]),
        head_dim=int(given["channels_per_head"]),
        dropout=float(given["dropout"]),
        clip=float(given["clip_act"]),
        **shares,
    )
    channels, classes = int(given["img_channels"]), int(given["label_dim"]) or None
    return lambda key: EDM2UNet(channels, classes, config, key=key), table(config, side)


def describe(model: EDM2UNet) -> tuple[dict[str, Any], Table]:
    """Not possible without the side of the images, which is in the published names.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "EDM2's names hold the side of the images: use eqxgen.pretrained.denoisers.edm2.state_dict(model, side)"
    )


def state_dict(model: EDM2UNet, side: int) -> dict[str, np.ndarray]:
    """The published state dictionary of a net, for images of that side.

    Raises:
        ValueError: the model is not of EDM2's architecture.
    """
    return {name: np.asarray(array.read(...)) for name, array in written(table(model.config, side), model).items()}


EDM2 = Family("EDM2's U-Net", (), build, describe)
from_pretrained = EDM2.from_pretrained

__all__ = ["from_pretrained", "state_dict"]
