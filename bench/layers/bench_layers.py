"""Layers against their counterparts of `equinox.nn` and PyTorch, each in its library's layout."""

import importlib
import pathlib
from collections.abc import Callable

import pytest

from bench.layers.contenders import Race
from bench.machine import full
from bench.race import PHASES

FEW = ("SelfAttention", "Selformer", "LayerNorm", "Convolution 3x3", "GRU", "Projection", "GLU", "VectorQuantizer")


def races() -> dict[str, Race]:
    """The rows of all files `rows_*.py` by layer."""
    names = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("rows_*.py"))
    return {
        layer: row for name in names for layer, row in importlib.import_module(f"bench.layers.{name}").RACES.items()
    }


RACES = races()


@pytest.mark.parametrize("phase", [PHASES[0], PHASES[2]])
@pytest.mark.parametrize("layer", [layer for layer in RACES if full() or layer in FEW])
def bench_layer(race: Callable, layer: str, phase: str) -> None:
    race(RACES[layer].makers(phase), f"layer {layer}")
