"""DiT (Peebles and Xie 2023, arXiv:2212.09748): diffusers' `DiTTransformer2DModel`, and the original checkpoints.

diffusers' files repeat the embeddings of time and label in every block; they must be equal, and the time's frequencies
have a shift of 1, which the original's have not. The fixed positions, which some files hold, are left out.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import DiTConfig
from eqxgen.models.denoisers.dit import DiT
from eqxgen.pretrained.encoders import attention_rows, linear_rows, patches
from eqxgen.pretrained.family import Family, Unsupported, require_fixed, require_parts, require_same
from eqxgen.pretrained.outputs.images import on_noise
from eqxgen.pretrained.table import Row, Table, Tied
from eqxgen.pretrained.transforms import SAME

# Options that `DiT` has no field for: name in config.json, the one supported value, the published default.
FIXED = {
    "activation_fn": ("gelu-approximate", "gelu-approximate"),
    "attention_bias": (True, True),
    "dropout": (0.0, 0.0),
    "norm_elementwise_affine": (False, False),
    "norm_type": ("ada_norm_zero", "ada_norm_zero"),
    "upcast_attention": (False, False),
}
EMBEDDERS = {
    "time.up": "timestep_embedder.linear_1",
    "time.down": "timestep_embedder.linear_2",
}
LABELS = "class_embedder.embedding_table.weight"
HALVES = (("attention_norm", SAME._replace(share=(0, 2))), ("mlp_norm", SAME._replace(share=(1, 2))))
BLOCK, HUB = "stack.blocks.{}.", "transformer_blocks.{}."


def table(depth: int, heads: int, patch: int) -> Table:
    """diffusers' names first, which are written, then the original's."""
    rows = (*_hub(heads, patch), *original(heads, patch))
    first = f"{HUB.format(0)}norm1.emb."
    names = [f"{theirs}.{kind}" for theirs in EMBEDDERS.values() for kind in ("weight", "bias")]
    copies = [
        Tied(f"{HUB.format(block)}norm1.emb.{name}", first + name, written=True)
        for block in range(1, depth)
        for name in (*names, LABELS)
    ]
    ignored = {"pos_embed": "fixed positions", "pos_embed.pos_embed": "fixed positions"}
    return Table("DiT", rows, tied=tuple(copies), ignored=ignored)


def _hub(heads: int, patch: int) -> Iterator[Row]:
    first = f"{HUB.format(0)}norm1.emb."
    yield Row("patches.projection.weight", "pos_embed.proj.weight", patches(patch))
    yield Row("patches.projection.bias", "pos_embed.proj.bias")
    yield Row("labels.weight", first + LABELS)
    for ours, theirs in EMBEDDERS.items():
        yield from linear_rows(ours, first + theirs)
    yield from _halves(f"{HUB}norm1.linear")
    parts = tuple(f"{HUB}attn1.to_{part}." for part in "qkv")
    yield from attention_rows(f"{BLOCK}attention.", parts, f"{HUB}attn1.to_out.0", heads)
    yield from linear_rows(f"{BLOCK}mlp.up", f"{HUB}ff.net.0.proj")
    yield from linear_rows(f"{BLOCK}mlp.down", f"{HUB}ff.net.2")
    yield from linear_rows("norm.modulation", "proj_out_1")
    yield from linear_rows("out.projection", "proj_out_2")


def original(heads: int, patch: int) -> Iterator[Row]:
    """The rows of the original checkpoints."""
    yield Row("patches.projection.weight", "x_embedder.proj.weight", patches(patch))
    yield Row("patches.projection.bias", "x_embedder.proj.bias")
    yield Row("labels.weight", "y_embedder.embedding_table.weight")
    yield from linear_rows("time.up", "t_embedder.mlp.0")
    yield from linear_rows("time.down", "t_embedder.mlp.2")
    yield from _halves("blocks.{}.adaLN_modulation.1")
    yield from attention_rows(f"{BLOCK}attention.", ("blocks.{}.attn.qkv.",), "blocks.{}.attn.proj", heads)
    yield from linear_rows(f"{BLOCK}mlp.up", "blocks.{}.mlp.fc1")
    yield from linear_rows(f"{BLOCK}mlp.down", "blocks.{}.mlp.fc2")
    yield from linear_rows("norm.modulation", "final_layer.adaLN_modulation.1")
    yield from linear_rows("out.projection", "final_layer.linear")


def _halves(theirs: str) -> Iterator[Row]:
    """The modulations of a block's two norms, of one published projection."""
    for norm, half in HALVES:
        for kind in ("weight", "bias"):
            yield Row(f"{BLOCK}{norm}.modulation.{kind}", f"{theirs}.{kind}", half)


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], DiT], Table]:
    """The model of a config, and its table."""
    require_fixed(values, FIXED, "DiT")
    channels, heads = int(values.get("in_channels", 4)), int(values.get("num_attention_heads", 16))
    out = channels if values.get("out_channels") is None else int(values["out_channels"])
    if out not in (channels, 2 * channels):
        raise Unsupported(f"out_channels must be once or twice in_channels={channels}: got {out}")
    dim, side = heads * int(values.get("attention_head_dim", 72)), int(values.get("sample_size", 32))
    config = DiTConfig(
        dim=dim,
        depth=int(values.get("num_layers", 28)),
        heads=heads,
        hidden_dim=4 * dim,
        patch=int(values.get("patch_size", 2)),
        learn_variance=out == 2 * channels,
        mlp_epsilon=float(values.get("norm_eps", 1e-5)),
        time_shift=1,
    )
    classes = int(values.get("num_embeds_ada_norm", 1000))
    make = lambda key: DiT(side, side, channels, classes, config, key=key)
    return make, table(config.depth, heads, config.patch)


def describe(model: DiT) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not of diffusers' architecture: a square latent, an MLP four times as wide, a shift
            of 1.
    """
    blocks: Any = model.stack.blocks
    dim = model.norm.dim
    depth, hidden, _ = blocks.mlp.up.weight.shape
    heads = blocks.attention.heads
    mapping = table(depth, heads, model.patch)
    require_parts(model, mapping)
    same = model.height == model.width and hidden == 4 * dim and model.time.waves.shift == 1
    require_same(same, "diffusers' DiT", "square latents, an MLP four times as wide, time_shift=1")
    config = {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "in_channels": model.channels,
        "out_channels": model.out.projection.out_dim // model.patch**2,
        "num_layers": depth,
        "sample_size": model.height,
        "patch_size": model.patch,
        "num_embeds_ada_norm": model.classes,
        "norm_eps": blocks.mlp_norm.epsilon,
        **{name: value for name, (value, _) in FIXED.items()},
    }
    return config, mapping


DIT = Family("DiT", ("DiTTransformer2DModel", "Transformer2DModel"), build, describe, on_noise)
from_pretrained, to_pretrained = DIT.from_pretrained, DIT.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
