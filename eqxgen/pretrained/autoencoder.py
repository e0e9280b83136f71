"""Autoencoders of latent diffusion and taming transformers: diffusers' `AutoencoderKL` and `VQModel`, and the names of
the original repositories' checkpoints.

Attention of older hub files (`query`, `key`, `value`, `proj_attn`) is read under its newer names; the original
checkpoints keep it as 1x1 convolutions, count the decoder's levels from the largest size, and hold the losses' nets
too, which are left out.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import AutoencoderConfig
from eqxgen.models.autoencoder import KLAutoencoder, VQAutoencoder
from eqxgen.pretrained.family import Family, Unsupported, require_fixed
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import CONV, POINTWISE, qkv, then

# Options that the models have no field for: name in config.json, the one supported value, the published default.
FIXED = {"act_fn": ("silu", "silu"), "out_channels": (None, None), "latents_mean": (None, None)}
OLDER = {
    f".{old}.{part}": f".{new}.{part}"
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items()
    for part in ("weight", "bias")
}


def conv(ours: str, theirs: str) -> tuple[Row, Row]:
    """A convolution with its bias."""
    return Row(f"{ours}.weight", f"{theirs}.weight", CONV), Row(f"{ours}.bias", f"{theirs}.bias")


def norm(ours: str, theirs: str) -> tuple[Row, Row]:
    """A norm with its bias."""
    return Row(f"{ours}.scale", f"{theirs}.weight"), Row(f"{ours}.bias", f"{theirs}.bias")


def block(ours: str, theirs: str, shortcut: str) -> Iterator[Row]:
    """A residual block, whose projection of the input is named so."""
    for i in (0, 1):
        yield from norm(f"{ours}.norms.{i}", f"{theirs}.norm{i + 1}")
        yield from conv(f"{ours}.convs.{i}", f"{theirs}.conv{i + 1}")
    yield from conv(f"{ours}.shortcut", f"{theirs}.{shortcut}")
