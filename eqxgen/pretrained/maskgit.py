"""MaskGIT's published transformer (Chang et al. 2022, arXiv:2202.04200), flax's checkpoints such as
`maskgit_imagenet256_checkpoint`, renamed to `.msgpack`.

Their table has the codes, the labels, and the mask last; ours has the mask before the labels. They come without
config.json: the sizes are seen in the arrays, but not the number of classes, unless the table is ImageNet's of 1,024
codes, 1,000 classes and the mask.

    model = from_pretrained("other.msgpack", config={"num_class": 10})
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import MaskGITConfig
from eqxgen.models.maskgit import MaskGIT as Model
from eqxgen.pretrained.family import Family, Unsupported, require_parts, require_same
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import SAME, TRANSPOSED, Transform, last_to, layout, qkv, then

SIZES = {
    "dim": "num_embeds",
    "depth": "num_layers",
    "heads": "num_heads",
    "hidden_dim": "intermediate_size",
}
IMAGENET = {2025: 1000}
"""Number of classes by rows of a published table."""


def table(codes: int, heads: int) -> Table:
    """Names of the published modules."""
    order = last_to(codes)
    rows = [
        Row("embedding.weight", "params/Embed_0/word_embeddings/embedding", order),
        Row("positions", "params/Embed_0/position_embeddings/embedding"),
        Row("head_bias", "params/MlmLayer_0/mlm_bias/bias", order),
        *_norm("norm", "params/Embed_0/embeddings_ln"),
        *_dense("head", "params/MlmLayer_0/mlm_dense"),
        *_norm("head_norm", "params/MlmLayer_0/mlm_ln"),
        *_blocks(heads),
    ]
    return Table("MaskGIT", tuple(rows), prefixes=("params/",))


def _blocks(heads: int) -> Iterator[Row]:
    ours, theirs = "stack.blocks.{}.", "params/TransformerLayer_{}/"
    attention = f"{theirs}Attention_0/self_attention/"
    split = layout("inputs heads d -> (heads d) inputs", heads=heads), layout("heads d -> (heads d)", heads=heads)
    for ending, part, how in (("kernel", "weight", split[0]), ("bias", "bias", split[1])):
        names = tuple(f"{attention}{name}/{ending}" for name in ("query", "key", "value"))
        yield Row(f"{ours}attention.qkv.{part}", names, then(how, qkv(heads)))
    joined = layout("heads d outputs -> outputs (heads d)", heads=heads)
    yield from _dense(f"{ours}attention.out", f"{attention}out", joined)
    yield from _norm(f"{ours}attention_norm", f"{theirs}Attention_0/attention_output_ln")
    yield from _dense(f"{ours}mlp.up", f"{theirs}Mlp_0/intermediate_output")
    yield from _dense(f"{ours}mlp.down", f"{theirs}Mlp_0/layer_output")
    yield from _norm(f"{ours}mlp_norm", f"{theirs}Mlp_0/layer_output_ln")


def _dense(ours: str, theirs: str, how: Transform = TRANSPOSED) -> Iterator[Row]:
    yield Row(f"{ours}.weight", f"{theirs}/kernel", how)
    yield Row(f"{ours}.bias", f"{theirs}/bias", SAME)


def _norm(ours: str, theirs: str) -> Iterator[Row]:
    yield from (Row(f"{ours}.{part}", f"{theirs}/{part}") for part in ("scale", "bias"))


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Model], Table]:
    """The model of a config, and its table."""
    sizes: dict[str, Any] = {ours: int(values[theirs]) for ours, theirs in SIZES.items()}
    config = MaskGITConfig(**sizes, dropout=float(values.get("dropout_rate", 0.1)), null=False)
    tokens, codes, classes = (int(values[name]) for name in ("num_tokens", "codebook_size", "num_class"))
    return lambda key: Model(tokens, codes, classes, config, key=key), table(codes, config.heads)


def describe(model: Model) -> tuple[dict[str, Any], Table]:
    """Values of config.json, under the names of the published configuration; and the table.

    Raises:
        ValueError: the model has a null label, or norms before its layers.
    """
    block: Any = model.stack.blocks
    require_same(not model.null and block.placement == "post", "MaskGIT", 'null=False, placement="post"')
    mapping = table(model.codes, block.attention.heads)
    require_parts(model, mapping)
    depth, hidden, dim = block.mlp.up.weight.shape
    values = {"model_type": "maskgit", "library": "flax", "num_tokens": model.tokens, "codebook_size": model.codes}
    values |= {"num_class": model.classes, "num_embeds": dim, "num_layers": depth, "intermediate_size": hidden}
    return values | {"num_heads": block.attention.heads, "dropout_rate": model.dropout.rate}, mapping


def infer(arrays: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of config.json from the shapes of a file.

    Raises:
        Unsupported: the number of classes is neither given nor that of a published table.
    """
    shapes = {name.removeprefix("params/"): stored.shape for name, stored in arrays.items()}
    rows, dim = shapes["Embed_0/word_embeddings/embedding"]
    if (classes := given.get("num_class", IMAGENET.get(rows))) is None:
        raise Unsupported(
            f"num_class must be given, as {rows:,} rows are of codes, classes and the mask in unknown shares: give "
            'config={"num_class": ...}, or config.json'
        )
    if not 0 < int(classes) < rows - 1:
        raise Unsupported(f"num_class must be in [1, {rows - 1}), the rows without the mask: got {classes}")
    name = "TransformerLayer_0/Attention_0/self_attention/query/kernel"
    found = {
        "num_tokens": shapes["Embed_0/position_embeddings/embedding"][0] - 1,
        "codebook_size": rows - 1 - int(classes),
        "num_class": int(classes),
        "num_embeds": dim,
        "num_layers": sum(each.endswith("/self_attention/query/kernel") for each in shapes),
        "num_heads": shapes[name][1],
        "intermediate_size": shapes["TransformerLayer_0/Mlp_0/intermediate_output/kernel"][1],
    }
    return {"model_type": "maskgit", **found, **given}


MASKGIT = Family("MaskGIT", ("maskgit",), build, describe, infer=infer)
from_pretrained, to_pretrained = MASKGIT.from_pretrained, MASKGIT.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
