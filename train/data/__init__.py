"""Labelled images: where they come from, how they are checked, and which of them a step sees. NumPy only."""

from .config import DataConfig
from .dataset import Dataset
from .errors import DataError
from .images import image_grid, save_png
from .order import batch_indices
from .sources import load

__all__ = ["DataConfig", "DataError", "Dataset", "batch_indices", "image_grid", "load", "save_png"]
