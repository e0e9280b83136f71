"""ViT-VQGAN's checkpoints of the repository enhancing-transformers, such as `imagenet_vitvq_base.ckpt`, which come
without config.json: all sizes but the sides of the image, square by default, are seen in the arrays.

    model = from_pretrained("imagenet_vitvq_base.ckpt")
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import ViTVQGANConfig
from eqxgen.models.tokenizers.vit_vqgan import ViTVQGAN as Model
from eqxgen.nn import CosineQuantizer
from eqxgen.pretrained.encoders import linear_rows, norm_rows, patches, published_size, sides
from eqxgen.pretrained.family import Family, require_parts, require_same
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import layout, qkv

HEAD_DIM = 64
TRANSPOSED = layout("inputs outputs height width -> height width inputs outputs")
IGNORED = {
    "encoder.en_pos_embedding": "fixed sines and cosines",
    "decoder.de_pos_embedding": "fixed sines and cosines",
    "loss.*": "nets of the training losses",
}
SIZES = ("dim", "depth", "heads", "mlp_dim")


def table(config: ViTVQGANConfig) -> Table:
    """Names of the published modules."""
    rows = [
        *linear_rows("encoder.patches.projection", "encoder.to_patch_embedding.0", patches(config.patch)),
        *_blocks("encoder", config.heads),
        *linear_rows("encoder.down", "pre_quant"),
        Row("quantizer.quantizer.codebook", "quantizer.embedding.weight"),
        *linear_rows("decoder.up", "post_quant"),
        *_blocks("decoder", config.decoder[2]),
        *linear_rows("decoder.head", "decoder.to_pixel.1", TRANSPOSED),
    ]
    return Table("ViT-VQGAN", tuple(rows), ignored=IGNORED)


def _blocks(half: str, heads: int) -> Iterator[Row]:
    ours, theirs = f"{half}.stack.blocks.{{}}.", f"{half}.transformer.layers.{{}}."
    yield from norm_rows(f"{ours}attention_norm", f"{theirs}0.norm")
    yield Row(f"{ours}attention.qkv.weight", (f"{theirs}0.fn.to_qkv.weight",), qkv(heads, parts=1))
    yield from linear_rows(f"{ours}attention.out", f"{theirs}0.fn.to_out")
    yield from norm_rows(f"{ours}mlp_norm", f"{theirs}1.norm")
    yield from linear_rows(f"{ours}mlp.up", f"{theirs}1.fn.net.0")
    yield from linear_rows(f"{ours}mlp.down", f"{theirs}1.fn.net.2")
    yield from norm_rows(f"{half}.norm", f"{half}.transformer.norm")


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Model], Table]:
    """The model of a config, and its table."""
    encoder, decoder = ([int(values[half][name]) for name in SIZES] for half in ("encoder", "decoder"))
    halves = zip(("dim", "depth", "heads", "hidden_dim"), encoder, decoder)
    sizes: dict[str, Any] = {
        name: size for part, *both in halves for name, size in zip((part, f"decoder_{part}"), both)
    }
    config = ViTVQGANConfig(
        patch=int(values["patch_size"]),
        **sizes,
        head_dim=int(values.get("dim_head", HEAD_DIM)),
        codes=int(values["n_embed"]),
        code_dim=int(values["embed_dim"]),
        unit=True,
    )
    height, width = sides(values, 256)
    return lambda key: Model(height, width, int(values.get("channels", 3)), config, key=key), table(config)


def describe(model: Model) -> tuple[dict[str, Any], Table]:
    """Values of config.json, under the names of the published configuration; and the table.

    Raises:
        ValueError: the model has another quantiser, or images in [-1, 1] inside.
    """
    require_same(model.unit, "the published ViT-VQGAN", "unit=True")
    require_same(isinstance(model.quantizer, CosineQuantizer), "the published ViT-VQGAN", "quantizer cosine")
    halves = {half: _sizes(getattr(model, half).stack) for half in ("encoder", "decoder")}
    patch, attention = model.encoder.patches.patch, model.encoder.stack.blocks.attention
    head_dim = attention.out.weight.shape[-1] // attention.heads
    values: dict[str, Any] = {
        "model_type": "vit_vqgan",
        "image_size": published_size(model.height, model.width),
        "patch_size": patch,
        "channels": model.channels,
        "dim_head": head_dim,
        "n_embed": model.codes,
        "embed_dim": model.quantizer.dim,
        **halves,
    }
    mapping = build(values)[1]
    require_parts(model, mapping)
    return values, mapping


def _sizes(stack: Any) -> dict[str, int]:
    hidden, dim = stack.blocks.mlp.up.weight.shape[1:]
    return dict(zip(SIZES, (dim, stack.depth, stack.blocks.attention.heads, hidden)))


def infer(arrays: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of config.json from the shapes of a checkpoint, with heads of 64."""
    shapes = {name: stored.shape for name, stored in arrays.items()}
    dim, channels, patch, _ = shapes["encoder.to_patch_embedding.0.weight"]
    head_dim = int(given.get("dim_head", HEAD_DIM))
    found: dict[str, Any] = {"model_type": "vit_vqgan", "patch_size": patch, "channels": channels}
    for half in ("encoder", "decoder"):
        within = f"{half}.transformer.layers."
        depth = len({name.split(".")[3] for name in shapes if name.startswith(within)})
        inner, dim = shapes[f"{within}0.0.fn.to_qkv.weight"]
        hidden = shapes[f"{within}0.1.fn.net.0.weight"][0]
        found[half] = dict(zip(SIZES, (dim, depth, inner // 3 // head_dim, hidden)))
    side = round(shapes["encoder.en_pos_embedding"][1] ** 0.5) * patch
    codes, code_dim = shapes["quantizer.embedding.weight"]
    return {**found, "image_size": side, "n_embed": codes, "embed_dim": code_dim, **given}


VIT_VQGAN = Family("ViT-VQGAN", ("vit_vqgan",), build, describe, infer=infer)
from_pretrained, to_pretrained = VIT_VQGAN.from_pretrained, VIT_VQGAN.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
