"""ResNet's published weights with batch norm (He et al. 2016): Hugging Face's layout, such as a snapshot of
`microsoft/resnet-50`, and torchvision's names, which timm has too.

The result is `WithState(net, state)`, with the statistics of the file: `logits = model(image)`; training goes on with
`model.model` and `model.state`. torchvision's files come without a config: pass `config=torchvision(50)`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import ResNetConfig
from eqxgen.models.resnet import ResNet
from eqxgen.nn import WithState
from eqxgen.pretrained import encoders as enc
from eqxgen.pretrained.family import Family, Unsupported, require_fixed, require_same
from eqxgen.pretrained.outputs.images import image_outputs
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import CONV, COUNT, constant

# Options that `ResNet` has no field for: name in config.json, the one supported value, the published default.
FIXED = {"hidden_act": ("relu", "relu")}
ARCHITECTURE = "ResNetForImageClassification"


def torchvision(depth: int, classes: int = 1000) -> dict[str, Any]:
    """Values of config.json for torchvision's files of resnet18, 34, 50, 101 and 152."""
    config = ResNetConfig.imagenet(depth)
    return {"model_type": "resnet", "num_labels": classes, "embedding_size": config.stem, **_sizes(config)}


def table(config: ResNetConfig) -> Table:
    """Names of `transformers.ResNetForImageClassification`, and of torchvision's."""
    rows: list[Row] = []
    for state, (ours, theirs, others) in enumerate(_layers(config)):
        for conv, norm in (theirs, others):
            rows += [Row(f"model.{ours}.conv.weight", f"{conv}.weight", CONV)]
            rows += enc.norm_rows(f"model.{ours}.norm", norm)
            rows += [Row(f"state.{state}.mean", f"{norm}.running_mean")]
            rows += [Row(f"state.{state}.variance", f"{norm}.running_var")]
            rows += [Row(f"state.{state}.batches", f"{norm}.num_batches_tracked", COUNT)]
        rows += [Row(f"state.{state}.batches", (), constant(0.0))]  # old files do not count
    rows += [*enc.linear_rows("model.head", "classifier.1"), *enc.linear_rows("model.head", "fc")]
    return Table("ResNet", tuple(rows))


def _layers(config: ResNetConfig) -> Iterator[tuple[str, tuple[str, str], tuple[str, str]]]:
    """Our path, and convolution and norm under both names, of each batch norm in the order in which they run."""
    names, start = ["first", "second", "third"], "resnet.embedder.embedder"
    yield "stem", (f"{start}.convolution", f"{start}.normalization"), ("conv1", "bn1")
    old = config.stem
    for level, (new, count) in enumerate(zip(config.widths, config.counts)):
        for place in range(count):
            ours, theirs = f"levels.{level}.{place}.", f"resnet.encoder.stages.{level}.layers.{place}."
            other = f"layer{level + 1}.{place}."
            for i, name in enumerate(names[: 2 if config.block == "basic" else 3]):
                each = f"{theirs}layer.{i}."
                yield (
                    ours + name,
                    (f"{each}convolution", f"{each}normalization"),
                    (f"{other}conv{i + 1}", f"{other}bn{i + 1}"),
                )
            if not place and (old != new or level or config.halve_first):
                each = f"{theirs}shortcut."
                yield (
                    f"{ours}shortcut",
                    (f"{each}convolution", f"{each}normalization"),
                    (f"{other}downsample.0", f"{other}downsample.1"),
                )
        old = new


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], WithState], Table]:
    """The model of a config, and its table."""
    require_fixed(values, FIXED, "ResNet")
    if (architecture := (values.get("architectures") or [ARCHITECTURE])[0]) != ARCHITECTURE:
        raise Unsupported(f"architectures must be {ARCHITECTURE}: got {architecture!r}")
    widths = tuple(map(int, values.get("hidden_sizes", (256, 512, 1024, 2048))))
    width = widths[0] if all(wide % widths[0] == 0 for wide in widths) else 1
    config = ResNetConfig(
        width,
        tuple(wide // width for wide in widths),
        depths=tuple(map(int, values.get("depths", (3, 4, 6, 3)))),
        block=str(values.get("layer_type", "bottleneck")),
        stem=int(values.get("embedding_size", 64)),
        halve_first=bool(values.get("downsample_in_first_stage", False)),
        stride_first=bool(values.get("downsample_in_bottleneck", False)),
    )
    channels, classes = int(values.get("num_channels", 3)), enc.labels(values)

    def make(key: PRNGKeyArray) -> WithState:
        net = ResNet(channels, classes, config, key=key)
        return WithState(net, net.init_state())

    return make, table(config)


def _sizes(config: ResNetConfig) -> dict[str, Any]:
    return {"hidden_sizes": list(config.widths), "depths": list(config.counts), "layer_type": config.block}


def describe(model: WithState) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not `WithState` of a ResNet for large images.
    """
    net = model.model
    large = isinstance(net, ResNet) and net.config.stem > 0
    require_same(large, "ResNet", "WithState(net, state) of a net with model.stem")
    config = net.config
    return {
        "model_type": "resnet",
        "architectures": [ARCHITECTURE],
        "num_channels": net.stem.conv.weight.shape[2],
        "embedding_size": config.stem,
        **_sizes(config),
        "downsample_in_first_stage": config.halve_first,
        "downsample_in_bottleneck": config.stride_first,
        **enc.published_labels(net.head.out_dim),
        "dtype": str(net.head.weight.dtype),
        **{name: value for name, (value, _) in FIXED.items()},
    }, table(config)


def outputs(model: WithState, original: Any) -> dict[str, tuple[Any, Any]]:
    """Logits of both on an image of a fixed seed."""
    return image_outputs(model, original, 64, 48, model.model.stem.conv.weight.shape[2])


RESNET = Family("ResNet", ("resnet",), build, describe, outputs)
from_pretrained, to_pretrained = RESNET.from_pretrained, RESNET.to_pretrained

__all__ = ["from_pretrained", "to_pretrained", "torchvision"]
