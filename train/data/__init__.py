"""Images and texts: where they come from, how they are checked, and which of them a step sees. NumPy only."""

from ..config.data import AugmentConfig, DataConfig, SourceConfig, TextConfig
from .errors import DataError, DataStalled
from .feed.draws import uniforms
from .feed.order import Order, Part, batch_indices
from .images.dataset import Dataset
from .images.grid import image_grid, save_png
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
    "save_png",
    "uniforms",
]
