"""MaskGIT's published tokenizer (Chang et al. 2022, arXiv:2202.04200), flax's checkpoints such as
`tokenizer_imagenet256_checkpoint`, renamed to `.msgpack`.

They come without config.json: all sizes but that of the images, 256 by default, are seen in the arrays.

    model = from_pretrained("tokenizer_imagenet512.msgpack", config={"image_size": 512})
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import VQGANConfig
from eqxgen.models.vqgan import VQGAN as Model
from eqxgen.pretrained.encoders import published_size, sides
from eqxgen.pretrained.family import Family, Unsupported, require_parts, require_same
from eqxgen.pretrained.table import Row, Table

SIZES = {"width": "filters", "blocks": "num_res_blocks", "latent_dim": "embedding_dim", "codes": "codebook_size"}


def table(config: VQGANConfig) -> Table:
    """Names of the published modules, which are counted in the order of their calls."""
    rows = [
        Row("quantizer.codebook", "params/quantizer/codebook"),
        *_half("encoder", config),
        *_half("decoder", config),
    ]
    return Table("VQGAN", tuple(rows), prefixes=("params/",))


def _half(half: str, config: VQGANConfig) -> Iterator[Row]:
    theirs, levels = f"params/{half}/", [f"levels.{i}" for i in range(len(config.multipliers))]
    widths = [config.width * m for m in config.multipliers]
    first, *order = ("middle", *levels) if half == "decoder" else (*levels, "middle")
    widths = [widths[-1], *widths[::-1]] if half == "decoder" else [*widths, widths[-1]]
    channels, number = widths[0] if half == "decoder" else config.width, 0
    for group, width in zip((first, *order), widths):
        for i in range(config.blocks):
            yield from _block(f"{half}.{group}.{i}.", f"{theirs}ResBlock_{number}/", channels != width)
            channels, number = width, number + 1
    ups = [f"ups.{i}" for i in range(len(levels) - 1)] if half == "decoder" else []
    for number, name in enumerate(("stem", *ups, "head")):
        yield Row(f"{half}.{name}.weight", f"{theirs}Conv_{number}/kernel")
        if (half, name) != ("encoder", "stem"):
            yield Row(f"{half}.{name}.bias", f"{theirs}Conv_{number}/bias")
    yield from _norm(f"{half}.norm", f"{theirs}GroupNorm_0")


def _block(ours: str, theirs: str, shortcut: bool) -> Iterator[Row]:
    for i in (0, 1):
        yield from _norm(f"{ours}norms.{i}", f"{theirs}GroupNorm_{i}")
        yield Row(f"{ours}convs.{i}.weight", f"{theirs}Conv_{i}/kernel")
    if shortcut:
        yield Row(f"{ours}shortcut.weight", f"{theirs}Conv_2/kernel")


def _norm(ours: str, theirs: str) -> Iterator[Row]:
    yield from (Row(f"{ours}.{part}", f"{theirs}/{part}") for part in ("scale", "bias"))


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Model], Table]:
    """The model of a config, and its table."""
    sizes: dict[str, Any] = {ours: int(values[theirs]) for ours, theirs in SIZES.items()}
    config = VQGANConfig(**sizes, multipliers=tuple(map(int, values["channel_multipliers"])), form="published")
    height, width = sides(values, 256)
    return lambda key: Model(height, width, int(values.get("num_channels", 3)), config, key=key), table(config)


def describe(model: Model) -> tuple[dict[str, Any], Table]:
    """Values of config.json, under the names of the published configuration; and the table.

    Raises:
        ValueError: the model has another form, or a codebook of averages.
    """
    require_same(model.form == "published", "the published VQGAN", 'form="published"')
    encoder = model.encoder
    width = encoder.stem.weight.shape[-1]
    config = VQGANConfig(
        width=width,
        multipliers=tuple(level[0].convs[0].weight.shape[-1] // width for level in encoder.levels),
        blocks=len(encoder.middle),
        latent_dim=encoder.head.weight.shape[-1],
        codes=model.codes,
        form="published",
    )
    mapping = table(config)
    require_parts(model, mapping)
    values = {"model_type": "maskgit_vqgan", "library": "flax", "image_size": published_size(model.height, model.width)}
    sizes = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}
    more = {"channel_multipliers": list(config.multipliers), "num_channels": model.channels}
    return {**values, **sizes, **more}, mapping


def infer(arrays: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of config.json from the shapes of a file.

    Raises:
        Unsupported: the encoder has another norm, or convolutions between its levels.
    """
    shapes = {name.removeprefix("params/"): stored.shape for name, stored in arrays.items()}
    if "encoder/GroupNorm_0/scale" not in shapes:
        raise Unsupported("norm_type must be 'GN': there is no array encoder/GroupNorm_0/scale")
    if "encoder/Conv_2/kernel" in shapes:
        raise Unsupported("conv_downsample must be False: there is an array encoder/Conv_2/kernel")
    count = lambda pattern: sum(name.startswith(pattern[0]) and name.endswith(pattern[1]) for name in shapes)
    levels = sum(f"decoder/Conv_{i}/kernel" in shapes for i in range(len(shapes))) - 1
    blocks = count(("encoder/ResBlock_", "/Conv_0/kernel")) // (levels + 1)
    width, codebook = shapes["encoder/Conv_0/kernel"][-1], shapes["quantizer/codebook"]
    widths = [shapes[f"encoder/ResBlock_{level * blocks}/Conv_0/kernel"][-1] for level in range(levels)]
    found = {"filters": width, "num_res_blocks": blocks, "channel_multipliers": [each // width for each in widths]}
    found |= {"codebook_size": codebook[0], "embedding_dim": codebook[1]}
    return {"model_type": "maskgit_vqgan", **found, "num_channels": shapes["encoder/Conv_0/kernel"][-2], **given}


VQGAN = Family("MaskGIT's VQGAN", ("maskgit_vqgan",), build, describe, infer=infer)
from_pretrained, to_pretrained = VQGAN.from_pretrained, VQGAN.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
