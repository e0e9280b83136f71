"""MAGE's published weights (Li et al. 2022, arXiv:2211.09117), torch checkpoints such as `mage-vitb-1600.pth` with the
state dictionary under `model`.

Their table has the codes, 1,000 labels of which only number 76 is used, and the mask; ours has the codes, the mask,
that label as the null one, and the others as spare rows. They come without config.json: the sizes are seen in the
arrays, but not the heads, unless the width is that of a published size.

    model = from_pretrained("mage-vitb-1600.pth")
    model = from_pretrained("other.pth", config={"num_heads": 6, "decoder_num_heads": 6})

The checkpoints also hold the tokenizer, under `vqgan`, and arrays of ViT-MAE that the forward pass does not use. Those
are not read, and not written.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from eqxgen.configs import MAGEConfig
from eqxgen.models.mage import MAGE as Model
from eqxgen.pretrained import encoders as enc
from eqxgen.pretrained.family import Family, Unsupported, require_parts, require_same
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import Transform, layout, then

NULL = 76
"""Row of the null label among the published labels."""
HEADS = {768: (12, 16), 1024: (16, 16)}
"""Heads of the encoder and the decoder by width."""
SIZES = {
    "dim": "embed_dim",
    "depth": "depth",
    "heads": "num_heads",
    "hidden_dim": "intermediate_size",
    "decoder_dim": "decoder_embed_dim",
    "decoder_depth": "decoder_depth",
    "decoder_heads": "decoder_num_heads",
    "decoder_hidden_dim": "decoder_intermediate_size",
}
UNUSED = "array of ViT-MAE that MAGE does not use"
IGNORED: dict[str, str] = dict.fromkeys(
    ("cls_token", "pos_embed", "mask_token", "decoder_pos_embed", "patch_embed.*", "decoder_pred.*"), UNUSED
)
IGNORED |= {"token_emb.position_ids": "numbers of the positions", "vqgan.*": "tokenizer"}


def table(codes: int, heads: int, decoder_heads: int) -> Table:
    """Names of `MaskedGenerativeEncoderViT`."""
    order = _rows_of(codes)
    rows = [
        Row("encoder.embedding.weight", "token_emb.word_embeddings.weight", order),
        Row("encoder.positions", "token_emb.position_embeddings.weight"),
        *enc.norm_rows("encoder.embedding_norm", "token_emb.LayerNorm"),
        *enc.block_rows("encoder.stack.blocks.{}.", "blocks.{}.", heads, enc.TIMM),
        *enc.norm_rows("encoder.norm", "norm"),
        *enc.linear_rows("embedding", "decoder_embed"),
        Row("positions", "decoder_pos_embed_learned", enc.FIRST),
        *enc.block_rows("stack.blocks.{}.", "decoder_blocks.{}.", decoder_heads, enc.TIMM),
        *enc.norm_rows("norm", "decoder_norm"),
        *enc.linear_rows("head", "mlm_layer.fc"),
        *enc.norm_rows("head_norm", "mlm_layer.ln"),
        Row("head_bias", "mlm_layer.bias", then(layout("1 1 entries -> entries"), order)),
    ]
    return Table("MAGE", tuple(rows), ignored=IGNORED)


def _rows_of(codes: int) -> Transform:
    """Codes, labels and the mask as codes, the mask, the null label and the other labels."""
    null, mask = codes + NULL, codes + 1

    def read(arrays: tuple[Any, ...]) -> Any:
        (x,) = arrays
        return np.concatenate([x[:codes], x[-1:], x[null : null + 1], x[codes:null], x[null + 1 : -1]])

    def write(x: Any) -> tuple[Any, ...]:
        parts = [x[:codes], x[mask + 1 : mask + 1 + NULL], x[mask : mask + 1], x[mask + 1 + NULL :], x[codes:mask]]
        if isinstance(x, np.ndarray):
            return (np.concatenate(parts),)
        import jax.numpy as jnp

        return (jnp.concatenate(parts),)

    return Transform(read, write)


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Model], Table]:
    """The model of a config, and its table."""
    sizes: dict[str, Any] = {ours: int(values[theirs]) for ours, theirs in SIZES.items()}
    tokens, codes, labels = (int(values[name]) for name in ("num_tokens", "codebook_size", "num_labels"))
    if labels <= NULL:
        raise Unsupported(f"num_labels must be above {NULL}, the label of no class: got {labels}")
    config = MAGEConfig(**sizes, dropout=float(values.get("dropout", 0.1)), spare=labels - 1)
    return lambda key: Model(tokens, codes, 0, config, key=key), table(codes, config.heads, config.decoder_heads)


def describe(model: Model) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model has classes, too few spare rows, or a projection.
    """
    config = model.config
    parts = f"classes=0, config.spare of at least {NULL}, config.projection=0"
    require_same(model.classes == 0 and config.spare >= NULL and not config.projection, "MAGE", parts)
    mapping = table(model.codes, config.heads, config.decoder_heads)
    require_parts(model, mapping)
    values = {"model_type": "mage", "num_tokens": model.tokens, "codebook_size": model.codes}
    values |= {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}
    return values | {"num_labels": 1 + config.spare, "dropout": config.dropout}, mapping


def infer(arrays: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of config.json from the shapes of a checkpoint.

    Raises:
        Unsupported: the heads are neither given nor those of a published width, or the sizes do not fit together.
    """
    shapes = {name: stored.shape for name, stored in arrays.items()}
    rows, dim = shapes["token_emb.word_embeddings.weight"]
    labels = int(given.get("num_labels", 1000))
    found: dict[str, Any] = {
        "model_type": "mage",
        "num_tokens": shapes["token_emb.position_embeddings.weight"][0] - 1,
        "codebook_size": rows - 1 - labels,
        "num_labels": labels,
        "embed_dim": dim,
        "decoder_embed_dim": shapes["decoder_embed.weight"][0],
        "intermediate_size": shapes["blocks.0.mlp.fc1.weight"][0],
        "decoder_intermediate_size": shapes["decoder_blocks.0.mlp.fc1.weight"][0],
    }
    if found["codebook_size"] < 1:
        raise Unsupported(
            f'num_labels must leave codes of {rows:,} rows: got {labels:,}; give config={{"num_labels": ...}}'
        )
    for name, prefix in (("depth", "blocks."), ("decoder_depth", "decoder_blocks.")):
        found[name] = sum(each.startswith(prefix) and each.endswith(".attn.qkv.weight") for each in shapes)
    heads = dict(zip(("num_heads", "decoder_num_heads"), HEADS.get(dim, ())))
    if missing := {"num_heads", "decoder_num_heads"} - {*heads, *given}:
        raise Unsupported(
            f'{" and ".join(sorted(missing))} must be given for a width of {dim}, as in config={{"num_heads": 6}}'
        )
    return found | heads | dict(given)


MAGE = Family("MAGE", ("mage",), build, describe, infer=infer)
from_pretrained, to_pretrained = MAGE.from_pretrained, MAGE.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
