"""diffusers' `VQModel`, and checkpoints of taming transformers."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.models.autoencoder import VQAutoencoder
from eqxgen.pretrained.autoencoder import described, inferred, sizes, table
from eqxgen.pretrained.family import Family, require_fixed
from eqxgen.pretrained.outputs.images import on_latents
from eqxgen.pretrained.table import Table

# Options that the model has no field for: name in config.json, the one supported value, the published default.
FIXED = {"act_fn": ("silu", "silu"), "norm_type": ("group", "group"), "lookup_from_codebook": (False, False)}


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], VQAutoencoder], Table]:
    """The model of a config, and its table."""
    require_fixed(values, FIXED, "VQModel")
    channels, config = sizes({"latent_channels": 3, **values})
    codes, dim = int(values.get("num_vq_embeddings", 256)), values.get("vq_embed_dim")
    code_dim = config.latent_dim if dim is None else int(dim)
    return lambda key: VQAutoencoder(channels, codes, config, code_dim=code_dim, key=key), table(len(config.widths))


def describe(model: VQAutoencoder) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table."""
    config, mapping = described(model, "VQModel")
    codes, dim = model.quantizer.codebook.shape
    return config | {"num_vq_embeddings": codes, "vq_embed_dim": dim, "norm_type": "group"}, mapping


def infer(arrays: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of config.json from the shapes of a checkpoint of the original repositories."""
    return inferred(arrays, given, "VQModel")


AUTOENCODER_VQ = Family("VQModel", ("VQModel",), build, describe, on_latents, infer)
from_pretrained, to_pretrained = AUTOENCODER_VQ.from_pretrained, AUTOENCODER_VQ.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
