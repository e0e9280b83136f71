"""CLIP's published weights (Radford et al. 2021): Hugging Face's layout, such as a snapshot of
`openai/clip-vit-base-patch32` or `laion/CLIP-ViT-B-32-laion2B-s34B-b79K`, and OpenAI's own, which OpenCLIP has too.

OpenAI's files come without a config: pass `config=sizes(arrays)`. Those of OpenCLIP have open_clip_config.json beside
them: pass its values.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from eqxgen.configs import CLIPConfig, TextTowerConfig, ViTConfig
from eqxgen.models.clip import CLIP as Model
from eqxgen.models.vit import ViT
from eqxgen.pretrained import encoders as enc
from eqxgen.pretrained.family import Family, require_same
from eqxgen.pretrained.outputs.images import drawn_image, original_outputs
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import TRANSPOSED, layout

ROW = layout("dim -> 1 dim")
OPENAI_END = 49407
"""Id of the end of a text in the published vocabulary, its largest."""


def vision_of(config: CLIPConfig) -> ViTConfig:
    """Sizes of the image tower, a transformer in every published model."""
    assert isinstance(config.vision, ViTConfig)
    return config.vision


def towers(vision: str, text: str, config: CLIPConfig) -> list[Row]:
    """Rows of both towers that Hugging Face's CLIP and SigLIP share."""
    return [
        *enc.block_rows("vision.stack.blocks.{}.", f"{vision}encoder.layers.{{}}.", vision_of(config).heads, enc.CLIP),
        *enc.block_rows("text.stack.blocks.{}.", f"{text}encoder.layers.{{}}.", config.text.heads, enc.CLIP),
        *enc.norm_rows("vision.norm", f"{vision}post_layernorm"),
        *enc.norm_rows("text.norm", f"{text}final_layer_norm"),
        *enc.linear_rows(
            "vision.patches.projection", f"{vision}embeddings.patch_embedding", enc.patches(vision_of(config).patch)
        ),
        Row("vision.positions", f"{vision}embeddings.position_embedding.weight"),
        Row("text.embedding.weight", f"{text}embeddings.token_embedding.weight"),
        Row("text.positions", f"{text}embeddings.position_embedding.weight"),
    ]


IGNORED = {"*embeddings.position_ids": "positions in order"}


def table(config: CLIPConfig) -> Table:
    """Names of `transformers.CLIPModel`, and of OpenAI's and OpenCLIP's CLIP."""
    published = [
        *towers("vision_model.", "text_model.", config),
        Row("vision.class_token.tokens", "vision_model.embeddings.class_embedding", ROW),
        *enc.norm_rows("vision.embedding_norm", "vision_model.pre_layrnorm"),
        Row("image_head.weight", "visual_projection.weight"),
        Row("text_head.weight", "text_projection.weight"),
        Row("logit_scale", "logit_scale"),
    ]
    heads = vision_of(config).heads
    openai = [
        *enc.block_rows("vision.stack.blocks.{}.", "visual.transformer.resblocks.{}.", heads, enc.OPENAI),
        *enc.block_rows("text.stack.blocks.{}.", "transformer.resblocks.{}.", config.text.heads, enc.OPENAI),
        *enc.norm_rows("vision.embedding_norm", "visual.ln_pre"),
        *enc.norm_rows("vision.norm", "visual.ln_post"),
        *enc.norm_rows("text.norm", "ln_final"),
        Row("vision.patches.projection.weight", "visual.conv1.weight", enc.patches(vision_of(config).patch)),
        Row("vision.class_token.tokens", "visual.class_embedding", ROW),
        Row("vision.positions", "visual.positional_embedding"),
        Row("text.embedding.weight", "token_embedding.weight"),
        Row("text.positions", "positional_embedding"),
        Row("image_head.weight", "visual.proj", TRANSPOSED),
        Row("text_head.weight", "text_projection", TRANSPOSED),
    ]
    sizes = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), "sizes")
    return Table("CLIP", (*published, *openai), ignored=IGNORED | sizes | {"attn_mask": "causal mask"})


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Model], Table]:
    """The model of a config, and its table."""
    values = values.get("model_cfg", values)
    if "vision_cfg" in values:
        values = _openclip(values)
    vision, text = (_tower(values, name) for name in ("vision", "text"))
    end = text.get("eos_token_id", 49407)
    config = CLIPConfig(
        vision_config(vision, patch=32, activation="quick_gelu", epsilon=1e-5, patch_bias=False, embedding_norm=True),
        TextTowerConfig(
            **text_sizes(text, dim=512, heads=8, hidden=2048, context=77),
            activation=enc.activation(text, "quick_gelu"),
            epsilon=float(text.get("layer_norm_eps", 1e-5)),
            pool="largest" if end == 2 else "end",
            end=None if end == 2 else int(end),
        ),
        int(values.get("projection_dim", 512)),
    )
    return maker(config, vision, int(text.get("vocab_size", 49408))), table(config)


def _tower(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Values of a tower. Where old files have them twice, `text_config_dict` is the one that counts."""
    old = values.get(f"{name}_config_dict")
    return values.get(f"{name}_config") or {} if old is None else old


def maker(config: CLIPConfig, vision: Mapping[str, Any], vocab: int) -> Callable[[PRNGKeyArray], Model]:
    """Initialiser of the model for the images of a vision config."""
    height, width = enc.sides(vision, 224)
    channels = int(vision.get("num_channels", 3))
    return lambda key: Model(height, width, channels, vocab, config, key=key)


def vision_config(
    values: Mapping[str, Any], *, patch: int, activation: str, epsilon: float, **options: Any
) -> ViTConfig:
    """An image tower of a config, with the published defaults."""
    return ViTConfig(
        patch=int(values.get("patch_size", patch)),
        dim=int(values.get("hidden_size", 768)),
        depth=int(values.get("num_hidden_layers", 12)),
        heads=int(values.get("num_attention_heads", 12)),
        hidden_dim=int(values.get("intermediate_size", 3072)),
        activation=enc.activation(values, activation),
        epsilon=float(values.get("layer_norm_eps", epsilon)),
        attention_dropout=float(values.get("attention_dropout", 0.0)),
        **options,
    )


def text_sizes(values: Mapping[str, Any], *, dim: int, heads: int, hidden: int, context: int) -> dict[str, Any]:
    """Sizes of a text tower of a config, with the published defaults."""
    return {
        "dim": int(values.get("hidden_size", dim)),
        "depth": int(values.get("num_hidden_layers", 12)),
        "heads": int(values.get("num_attention_heads", heads)),
        "hidden_dim": int(values.get("intermediate_size", hidden)),
        "context": int(values.get("max_position_embeddings", context)),
    }


def sizes(arrays: Mapping[str, Any], activation: str = "quick_gelu") -> dict[str, Any]:
    """Values of config.json from the shapes of a file in OpenAI's layout, whose heads are 64 wide.

    Args:
        arrays: by name, such as `eqxgen.pretrained.files.open_arrays` gives them.
        activation: "quick_gelu" for OpenAI's weights, "gelu" for LAION's.
    """
    shape = lambda name: arrays[name].shape
    patch, positions = shape("visual.conv1.weight")[-1], shape("visual.positional_embedding")[0]

    def tower(prefix: str) -> dict[str, Any]:
        hidden, width = shape(f"{prefix}transformer.resblocks.0.mlp.c_fc.weight")
        end = "attn.in_proj_weight"
        return {
            "hidden_size": width,
            "intermediate_size": hidden,
            "num_hidden_layers": sum(
                n.startswith(f"{prefix}transformer.resblocks.") and n.endswith(end) for n in arrays
            ),
            "num_attention_heads": max(1, width // 64),
            "hidden_act": activation,
        }

    vocab, context = shape("token_embedding.weight")[0], shape("positional_embedding")[0]
    return {
        "model_type": "clip",
        "projection_dim": shape("text_projection")[1],
        "vision_config": {**tower("visual."), "patch_size": patch, "image_size": round((positions - 1) ** 0.5) * patch},
        "text_config": {**tower(""), "vocab_size": vocab, "max_position_embeddings": context, "eos_token_id": 2},
    }


def _openclip(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of Hugging Face's config of OpenCLIP's `model_cfg`."""
    vision, text = values["vision_cfg"], values["text_cfg"]
    same = {"hidden_act": "quick_gelu" if values.get("quick_gelu") else "gelu"}
    ratio = lambda tower: int(tower["width"] * tower.get("mlp_ratio", 4.0))
    return {
        "projection_dim": values["embed_dim"],
        "vision_config": {
            "hidden_size": vision["width"],
            "intermediate_size": ratio(vision),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "patch_size": vision["patch_size"],
            "image_size": vision["image_size"],
            **same,
        },
        "text_config": {
            "hidden_size": text["width"],
            "intermediate_size": ratio(text),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            "eos_token_id": 2,  # OpenCLIP pools at the largest id
            **same,
        },
    }


def tower_values(model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """The vision_config and the text_config of a model."""
    assert isinstance(model.vision, ViT)
    towers = []
    for tower in (model.vision, model.text):
        config, blocks = tower.config, tower.stack.blocks
        towers.append(
            {
                "hidden_size": config.dim,
                "intermediate_size": blocks.mlp.up.out_dim,  # type: ignore[attr-defined]
                "num_hidden_layers": config.depth,
                "num_attention_heads": config.heads,
                "hidden_act": enc.published_activation(config.activation),
                "layer_norm_eps": config.epsilon,
            }
        )
    vision, text = towers
    vision |= {
        "image_size": enc.published_size(model.vision.height, model.vision.width),
        "patch_size": model.vision.config.patch,
        "num_channels": model.vision.patches.channels,
        "attention_dropout": model.vision.config.attention_dropout,
    }
    text |= {"vocab_size": model.text.embedding.vocab, "max_position_embeddings": model.text.config.context}
    return vision, text


def require_towers(config: CLIPConfig, family: str, parts: str, **options: Any) -> None:
    """Raises `ValueError` unless the image tower is a transformer with those options, and otherwise plain."""
    require_same(isinstance(config.vision, ViTConfig), family, parts)
    names = ("patch", "dim", "depth", "heads", "hidden_dim", "activation", "epsilon", "attention_dropout", "remat")
    plain = ViTConfig(**{name: getattr(config.vision, name) for name in names}, **options)
    require_same(config.vision == plain, family, parts)


def describe(model: Model) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not of CLIP's architecture: a class token that is pooled, a norm before the blocks,
            causal text that is pooled at its end.
    """
    config = model.config
    parts = "a pooled class token, a norm before the blocks, no bias of patches, causal text pooled at its end"
    require_towers(config, "CLIP", parts, patch_bias=False, embedding_norm=True)
    require_same(not config.sigmoid and config.text.causal and config.text.pool != "last", "CLIP", parts)
    vision, text = tower_values(model)
    end = 2 if config.text.end is None else config.text.end
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": config.dim,
        "vision_config": {"model_type": "clip_vision_model", "projection_dim": config.dim, **vision},
        "text_config": {"model_type": "clip_text_model", "projection_dim": config.dim, "eos_token_id": end, **text},
        "dtype": str(model.logit_scale.dtype),
    }, table(config)


def outputs(model: Model, original: Any) -> dict[str, tuple[Any, Any]]:
    """Features and logit of both on an image and a text of a fixed seed."""
    net, vision = eqx.nn.inference_mode(model), model.vision
    assert isinstance(vision, ViT)
    image = drawn_image(vision.height, vision.width, vision.patches.channels)
    ids = np.random.default_rng(1).integers(3, net.text.embedding.vocab, (1, net.text.config.context))
    ids[0, -2] = net.text.config.end or ids[0, -2]
    found = original_outputs(original, image, input_ids=ids)
    images, texts = net.image_features(jnp.asarray(image)), net.text_features(jnp.asarray(ids[0]))
    unit = lambda x: x / jnp.linalg.norm(x)
    return {
        "image_embeds": (unit(images), found["image_embeds"][0]),
        "text_embeds": (unit(texts), found["text_embeds"][0]),
        "logits_per_image": (net.similarity(images[None], texts[None]), found["logits_per_image"]),
    }


CLIP = Family("CLIP", ("clip", "openclip"), build, describe, outputs)
from_pretrained, to_pretrained = CLIP.from_pretrained, CLIP.to_pretrained

__all__ = ["from_pretrained", "sizes", "to_pretrained"]
