"""Families of published models that are read: a line each, and its module of the same name."""

import fnmatch
from collections.abc import Iterable
from typing import NamedTuple


class Known(NamedTuple):
    """A family.

    Attributes:
        module: in this folder, and the name of its `Family` in upper case.
        types: `model_type` or `_class_name` in config.json.
        signs: patterns of published names by each of which a file without a config is recognised.
        folder: of the module in this folder, with a dot at its end.
    """

    module: str
    types: tuple[str, ...]
    signs: tuple[str, ...]
    folder: str = ""


FAMILIES = (  # a name that two families have is the sign of the first
    Known("autoencoder_vq", ("VQModel",), ("*quantize.embedding.weight",)),
    Known(
        "autoencoder_kl",
        ("AutoencoderKL",),
        ("*encoder.mid_block.resnets.0.conv1.weight", "*encoder.down.0.block.0.conv1.weight"),
    ),
    Known("bert", ("bert",), ("*encoder.layer.0.attention.self.query.weight",)),
    Known("lightning_dit", (), ("*blocks.0.mlp.w12.weight",), "denoisers."),
    Known(
        "dit",
        ("DiTTransformer2DModel", "Transformer2DModel"),
        ("*blocks.0.adaLN_modulation.1.weight", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight"),
    ),
    Known("unet", ("UNet2DModel",), ("*down_blocks.0.resnets.0.time_emb_proj.weight",), "denoisers."),
    Known("gpt2", ("gpt2",), ("*h.0.attn.c_attn.weight",)),
    Known("siglip", ("siglip",), ("vision_model.head.attention.in_proj_weight",)),
    Known(
        "clip",
        ("clip", "openclip"),
        ("*resblocks.0.attn.in_proj_weight", "text_model.encoder.layers.0.self_attn.q_proj.weight"),
    ),
    Known("llama", ("llama",), ("*layers.0.mlp.gate_proj.weight",)),
    Known("t5", ("t5",), ("*encoder.block.0.layer.0.SelfAttention.q.weight",)),
    Known("dinov2", ("dinov2", "dinov2_with_registers"), ("*.0.layer_scale1.lambda1", "*blocks.0.ls1.gamma")),
    Known("mae", ("vit_mae",), ("decoder.decoder_embed.weight",)),
    Known(
        "resnet",
        ("resnet",),
        ("*encoder.stages.0.layers.0.layer.0.convolution.weight", "layer1.0.bn1.running_mean"),
    ),
    Known("mage", ("mage",), ("*token_emb.word_embeddings.weight",)),
    Known("uvit", (), ("in_blocks.0.attn.qkv.weight",), "denoisers."),
    Known("vit", ("vit", "timm"), ("*encoder.layer.0.layernorm_before.weight", "blocks.0.attn.qkv.weight")),
    Known("maskgit", ("maskgit",), ("*Embed_0/word_embeddings/embedding",)),
    Known("vqgan", ("maskgit_vqgan",), ("*quantizer/codebook",)),
    Known("vit_vqgan", ("vit_vqgan",), ("*encoder.transformer.layers.0.0.fn.to_qkv.weight",), "images."),
    Known("inception", (), ("Mixed_7c.branch3x3dbl_3a.conv.weight",)),
    Known("adm", (), ("input_blocks.0.0.weight",), "denoisers."),
    Known("edm2", (), ("unet.emb_noise.weight",), "denoisers."),
    Known("edm", (), ("*map_layer0.weight",), "denoisers."),
    Known("lpips_net", (), ("lin0.model.1.weight",)),
)


def recognised(names: Iterable[str]) -> str | None:
    """The first family of which a sign is among the names of arrays."""
    names = list(names)
    has = lambda known: any(fnmatch.filter(names, sign) for sign in known.signs)
    return next((known.module for known in FAMILIES if has(known)), None)
