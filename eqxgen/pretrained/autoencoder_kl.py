"""diffusers' `AutoencoderKL`, the autoencoder of Stable Diffusion, and checkpoints of latent diffusion.

Latents are those of the net: `scaling_factor` of the config is the caller's.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.models.autoencoder import KLAutoencoder
from eqxgen.pretrained.autoencoder import described, inferred, sizes, table
from eqxgen.pretrained.family import Family, Unsupported, require_fixed
from eqxgen.pretrained.outputs.images import on_latents
from eqxgen.pretrained.table import Table

# Options that the model has no field for: name in config.json, the one supported value, the published default.
FIXED = {
    "act_fn": ("silu", "silu"),
    "latents_mean": (None, None),
    "latents_std": (None, None),
    "shift_factor": (None, None),
}
SCALING = 0.18215


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], KLAutoencoder], Table]:
    """The model of a config, and its table."""
    require_fixed(values, FIXED, "AutoencoderKL")
    channels, config = sizes(values)
    if bool(values.get("use_post_quant_conv", True)) != config.projected:
        raise Unsupported("use_post_quant_conv must equal use_quant_conv: got the other")
    return lambda key: KLAutoencoder(channels, config, key=key), table(len(config.widths))


def describe(model: KLAutoencoder) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table."""
    config, mapping = described(model, "AutoencoderKL")
    projected = model.after is not None
    more = {"use_quant_conv": projected, "use_post_quant_conv": projected, "scaling_factor": SCALING}
    return config | more, mapping


def infer(arrays: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of config.json from the shapes of a checkpoint of the original repositories."""
    return inferred(arrays, given, "AutoencoderKL")


AUTOENCODER_KL = Family("AutoencoderKL", ("AutoencoderKL",), build, describe, on_latents, infer)
from_pretrained, to_pretrained = AUTOENCODER_KL.from_pretrained, AUTOENCODER_KL.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
