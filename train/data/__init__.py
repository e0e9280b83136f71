"""Images and texts: where they come from, how they are checked, and which of them a step sees. NumPy only."""

from .config import AugmentConfig, DataConfig, SourceConfig, TextConfig
from .dataset import Dataset
from .draws import uniforms
from .errors import DataError, DataStalled
from .images import image_grid, save_png
from .order import Order, Part, batch_indices
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
