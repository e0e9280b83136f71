"""ViT-MAE's published weights (He et al. 2022) in Hugging Face's layout, such as a snapshot of
`facebook/vit-mae-base`, with their decoder.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from eqxgen.configs import MAEConfig, ViTConfig
from eqxgen.models.mae import MAE as Model
from eqxgen.pretrained import encoders as enc
from eqxgen.pretrained import vit
from eqxgen.pretrained.family import Family, Unsupported, integers, require_fixed, require_same
from eqxgen.pretrained.outputs.images import drawn_image, original_outputs
from eqxgen.pretrained.table import Row, Table

SIZES = {
    "dim": ("decoder_hidden_size", 512),
    "depth": ("decoder_num_hidden_layers", 8),
    "heads": ("decoder_num_attention_heads", 16),
    "hidden_dim": ("decoder_intermediate_size", 2048),
}
FIXED = {"qkv_bias": (True, True)}
ARCHITECTURE = "ViTMAEForPreTraining"


def table(config: MAEConfig) -> Table:
    """Names of `transformers.ViTMAEForPreTraining`; its version 5 writes the decoder's blocks under another."""
    decoder, blocks = "decoder.decoder_", "stack.blocks.{}."
    rows = [
        *vit.embedding_rows("encoder.", "vit.embeddings.", config.encoder.patch),
        *enc.norm_rows("encoder.norm", "vit.layernorm"),
        *enc.block_rows("encoder.stack.blocks.{}.", "vit.encoder.layer.{}.", config.encoder.heads, enc.VIT),
        *enc.linear_rows("embedding", f"{decoder}embed"),
        Row("mask_token", "decoder.mask_token", enc.FIRST),
        Row("positions", f"{decoder}pos_embed", enc.FIRST),
        *enc.block_rows(blocks, f"{decoder}layers.{{}}.", config.heads, enc.VIT),
        *enc.block_rows(blocks, f"{decoder}encoder.layer.{{}}.", config.heads, enc.VIT),
        *enc.norm_rows("norm", f"{decoder}norm"),
        *enc.linear_rows("head", f"{decoder}pred"),
    ]
    return Table("ViT-MAE", tuple(rows))


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Model], Table]:
    """The model of a config, and its table."""
    require_fixed(values, FIXED, "ViT-MAE")
    if (architecture := (values.get("architectures") or [ARCHITECTURE])[0]) != ARCHITECTURE:
        raise Unsupported(f"architectures must be {ARCHITECTURE}: got {architecture!r}")
    sizes = integers(values, vit.SIZES)
    decoder = integers(values, SIZES)
    rates: dict[str, Any] = {ours: float(values.get(theirs, 0.0)) for ours, theirs in vit.RATES.items()}
    encoder = ViTConfig(
        **sizes,
        **rates,
        hidden_dim=int(values.get("intermediate_size", 3072)),
        activation=enc.activation(values, "gelu"),
        epsilon=float(values.get("layer_norm_eps", 1e-12)),
    )
    normalised = bool(values.get("norm_pix_loss", False))
    config = MAEConfig(encoder, **decoder, masked=float(values.get("mask_ratio", 0.75)), normalised=normalised)
    height, width = enc.sides(values, 224)
    return lambda key: Model(height, width, int(values.get("num_channels", 3)), config, key=key), table(config)


def describe(model: Model) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the encoder is not of ViT-MAE's architecture: a class token, no registers, no mask token, biases, a
            plain MLP, one size of images.
    """
    config, encoder = model.config, model.config.encoder
    names = (*vit.SIZES, *vit.RATES, "hidden_dim", "activation", "epsilon", "remat")
    plain = ViTConfig(**{name: getattr(encoder, name) for name in names})
    require_same(encoder == plain, "ViT-MAE", "a class token, no registers, no mask token, biases, one size of images")
    decoder = {theirs: getattr(config, ours) for ours, (theirs, _) in SIZES.items()}
    return {
        "model_type": "vit_mae",
        "architectures": [ARCHITECTURE],
        **vit.common_values(model.encoder),
        **{theirs: getattr(encoder, ours) for ours, theirs in vit.RATES.items()},
        "intermediate_size": model.encoder.stack.blocks.mlp.up.out_dim,  # type: ignore[attr-defined]
        **decoder,
        "decoder_intermediate_size": model.stack.blocks.mlp.up.out_dim,  # type: ignore[attr-defined]
        "mask_ratio": config.masked,
        "norm_pix_loss": config.normalised,
        **{name: value for name, (value, _) in FIXED.items()},
    }, table(config)


def outputs(model: Model, original: Any) -> dict[str, tuple[Any, Any]]:
    """Pixels of both on an image and a mask of a fixed seed."""
    net = eqx.nn.inference_mode(model)
    image = drawn_image(net.encoder.height, net.encoder.width, net.encoder.patches.channels)
    noise = np.random.default_rng(1).random((1, len(net.positions) - 1)).astype(np.float32)
    found = original_outputs(original, image, noise=noise)
    return {"pixels": (net(jnp.asarray(image), noise=jnp.asarray(noise[0]))[0], found["logits"][0])}


MAE = Family("ViT-MAE", ("vit_mae",), build, describe, outputs)
from_pretrained, to_pretrained = MAE.from_pretrained, MAE.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
