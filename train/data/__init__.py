"""Images and texts: their sources, their checks, and their order in training. NumPy only."""

import importlib
from typing import TYPE_CHECKING, Any

from .._errors import DataError, DataStalled
from ..config.data import AugmentConfig, DataConfig, SourceConfig, TextConfig

if TYPE_CHECKING:
    from .feed.draws import uniforms
    from .feed.order import Order, Part, batch_indices
    from .images.dataset import Dataset
    from .images.grid import image_grid, save_picture
    from .sources import load

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "DataError",
    "DataStalled",
    "Dataset",
    "Order",
    "Part",
    "SourceConfig",
    "TextConfig",
    "batch_indices",
    "image_grid",
    "load",
    "save_picture",
    "uniforms",
]

_HOMES = {
    "feed.draws": ("uniforms",),
    "feed.order": ("Order", "Part", "batch_indices"),
    "images.dataset": ("Dataset",),
    "images.grid": ("image_grid", "save_picture"),
    "sources": ("load",),
}


def __getattr__(name: str) -> Any:
    # Imported on first use: `--help` must not wait for NumPy.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
