"""Each layer is in every table: a new one that is missing somewhere is told where."""

import inspect
import re
from pathlib import Path

import equinox as eqx
import pytest

from bench.layers.bench_layers import RACES
from eqxgen import nn
from tests.nn.layer_rows import of_each_class

HERE = Path(__file__).parent
LAYERS = sorted(
    name for name in nn.__all__ if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), eqx.Module)
)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


# Layers of before: a new one has a race, and one that gets its race leaves the list.
UNRACED = words(
    """
    ActNorm AdaLN AdaLNZero AxialRoPE ClassToken ConvolutionTranspose1D CosineQuantizer DecoderBlock Downsample
    DropPath EMA EMAQuantizer FSQ FactorisedQuantizer FiLM FourierEmbedding GumbelQuantizer Identity KVCache LFQ
    Lambda LatentAttention LearnedPositions LinearAttention LoRA LongSkipStack MagnitudePreserving
    ParallelAttention PatchEmbed RandomFourier Registers Residual ResidualBlock ResidualVQ Sequential Stack
    T5Bias Timeformer TimestepEmbedding TokenDrop TransformerBlock Unpatch WithState
    """
)
NO_ROW = {"KVCache", "WithState"}  # a layer's memory; a model with its state
UNTESTED = {
    "DecoderBlock",
    "Downsample",
    "Lambda",
    "Residual",
    "ResidualBlock",
    "WithState",
}  # parts of models that are tested


CATALOGUE = (HERE.parents[1] / "docs" / "layers.md").read_text(encoding="utf-8").partition("## Catalogue")[2]
SOURCES = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted(HERE.glob("test_*.py")) if path.stem != Path(__file__).stem
)
PLACES = {
    "a row in a table tests/nn/layers_*.py": (set(of_each_class()), NO_ROW),
    "a row in the catalogue of docs/layers.md": (words(CATALOGUE), set()),
    "a race in bench/layers/rows_*.py": ({words.split(",")[0].split(" ")[0] for words in RACES}, UNRACED),
    "a test in tests/nn/test_*.py against its formula or published answers": (words(SOURCES), UNTESTED),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_layer_has(place):
    found, exempt = PLACES[place]
    missing = [name for name in LAYERS if name not in found | exempt]
    assert not missing, f"{', '.join(missing)}: add {place}"


@pytest.mark.parametrize("place", PLACES)
def test_no_layer_is_exempt_that_has(place):
    found, exempt = PLACES[place]
    assert exempt <= set(LAYERS)
    assert not exempt & found, "take them off the list"
