"""LightningDiT (Yao et al. 2025, arXiv:2501.01423): state dictionaries, which have no config.json.

    model = from_pretrained("lightningdit-xl.pt", config={"hidden_size": 1152, "depth": 28, "use_rope": True, ...})

The config is the constructor's arguments under their published names. Without its options it is the original DiT.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import DiTConfig
from eqxgen.models.denoisers.dit import DiT
from eqxgen.pretrained.dit import BLOCK, original
from eqxgen.pretrained.encoders import GATE_FIRST, linear_rows
from eqxgen.pretrained.family import Family, Unsupported, require_same
from eqxgen.pretrained.table import Row, Table

DEFAULTS: dict[str, Any] = {
    "input_size": 32,
    "patch_size": 2,
    "in_channels": 32,
    "hidden_size": 1152,
    "depth": 28,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "class_dropout_prob": 0.1,
    "num_classes": 1000,
    "learn_sigma": False,
    "use_qknorm": False,
    "use_swiglu": False,
    "use_rope": False,
    "use_rmsnorm": False,
    "wo_shift": False,
    "use_checkpoint": False,
}
"""Arguments and their published defaults."""
IGNORED = {"pos_embed": "fixed positions", "feat_rope.*": "fixed rotary positions"}


def table(heads: int, patch: int) -> Table:
    """The names of the original DiT, then those that it has not."""
    return Table("LightningDiT", (*_rows(), *original(heads, patch)), ignored=IGNORED, prefixes=("model.",))


def _rows() -> Iterator[Row]:
    for part in ("weight", "bias"):
        yield Row(f"{BLOCK}mlp.up.{part}", f"blocks.{{}}.mlp.w12.{part}", GATE_FIRST)
    yield from linear_rows(f"{BLOCK}mlp.down", "blocks.{}.mlp.w3")
    for ours, theirs in (("attention_norm", "norm1"), ("mlp_norm", "norm2")):
        yield Row(f"{BLOCK}{ours}.scale", f"blocks.{{}}.{theirs}.weight")
    for part in "qk":
        yield Row(f"{BLOCK}attention.{part}_norm.scale", f"blocks.{{}}.attn.{part}_norm.weight")
    yield Row("norm.scale", "final_layer.norm_final.weight")


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], DiT], Table]:
    """The model of a constructor's arguments, and its table."""
    if unknown := set(values) - set(DEFAULTS):
        raise Unsupported(f"the config must have arguments of LightningDiT alone: got {sorted(unknown)}")
    given = DEFAULTS | dict(values)
    if given["wo_shift"] or not given["class_dropout_prob"] > 0:
        raise Unsupported("wo_shift must be False and class_dropout_prob above 0: got another")
    if given["use_qknorm"] and not given["use_rmsnorm"]:
        raise Unsupported("use_qknorm must come with use_rmsnorm=True: got False")
    dim, heads, side = int(given["hidden_size"]), int(given["num_heads"]), int(given["input_size"])
    hidden = int(dim * float(given["mlp_ratio"]))
    config = DiTConfig(
        dim=dim,
        depth=int(given["depth"]),
        heads=heads,
        hidden_dim=int(2 / 3 * hidden) if given["use_swiglu"] else hidden,
        patch=int(given["patch_size"]),
        learn_variance=bool(given["learn_sigma"]),
        gated=bool(given["use_swiglu"]),
        rms=bool(given["use_rmsnorm"]),
        rope=bool(given["use_rope"]),
        qk_norm=bool(given["use_qknorm"]),
    )
    channels, classes = int(given["in_channels"]), int(given["num_classes"])
    return lambda key: DiT(side, side, channels, classes, config, key=key), table(heads, config.patch)


def describe(model: DiT) -> tuple[dict[str, Any], Table]:
    """Values for `build`, and the table.

    Raises:
        ValueError: the model is not of LightningDiT's architecture.
    """
    blocks: Any = model.stack.blocks
    dim, heads, hidden = model.norm.dim, blocks.attention.heads, blocks.mlp.down.weight.shape[2]
    gated = blocks.mlp.up.weight.shape[1] != hidden
    ratio = next((r / 2 for r in range(2, 17) if int(2 / 3 * int(dim * r / 2)) == hidden), 0) if gated else hidden / dim
    require_same(model.height == model.width and ratio > 0, "LightningDiT", "square latents, an MLP of its width")
    values = {
        "input_size": model.height,
        "patch_size": model.patch,
        "in_channels": model.channels,
        "hidden_size": dim,
        "depth": model.stack.depth,
        "num_heads": heads,
        "mlp_ratio": ratio,
        "num_classes": model.classes,
        "learn_sigma": model.out.channels != model.channels,
        "use_qknorm": blocks.attention.q_norm is not None,
        "use_swiglu": gated,
        "use_rope": blocks.attention.rope is not None,
        "use_rmsnorm": model.norm.scale is not None,
    }
    names = table(heads, model.patch)
    kept = [row for row in names.rows if gated or "mlp.w" not in row.all_names[0]]
    return values, Table(names.family, tuple(kept), ignored=IGNORED)


LIGHTNING_DIT = Family("LightningDiT", (), build, describe)
from_pretrained, to_pretrained = LIGHTNING_DIT.from_pretrained, LIGHTNING_DIT.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
