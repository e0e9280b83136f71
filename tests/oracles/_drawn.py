"""Weights of published models that are drawn by name, so that a file of answers need not hold them."""

import json
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """An array for each name: normal, of a deviation that keeps activations of a few layers near one; vectors about
    0.3, positive variances, and counts that are integers.
    """

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("num_batches_tracked"):
            return np.asarray(7, np.int64)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        fan = max(1, int(np.prod(shape[1:])))
        array = np.asarray(rng.normal(size=shape) / fan**0.5 + 0.3 * (len(shape) == 1), np.float32)
        return np.abs(array) + np.float32(0.5) if name.endswith("running_var") else array

    return {name: draw(name, tuple(shape)) for name, shape in shapes.items()}


def redraw(module) -> np.ndarray:
    """Gives a torch module drawn weights; their names and shapes as JSON, for `published`."""
    import torch

    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    with torch.no_grad():
        for name, array in drawn(shapes).items():
            module.get_parameter(name).copy_(torch.from_numpy(array))
    return np.asarray(json.dumps(shapes))


def published(shapes: np.ndarray) -> dict[str, np.ndarray]:
    """The weights that `redraw` or `redrawn` gave."""
    return drawn(json.loads(str(shapes)))


def redrawn(model) -> tuple[Any, dict[str, np.ndarray]]:
    """A model of the library transformers, read from a file with drawn weights under the names that it has there; and
    its config.json and their shapes as JSON.
    """
    from safetensors.numpy import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        shapes = {name: array.shape for name, array in load_file(path).items()}
        save_file(drawn(shapes), path, metadata={"format": "pt"})
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        again, report = type(model).from_pretrained(folder, output_loading_info=True)
        assert not any(report.values()), report
    config.pop("transformers_version")
    kept = {"config": json.dumps(config, sort_keys=True), "shapes": json.dumps(shapes)}
    return again.eval(), {name: np.asarray(text) for name, text in kept.items()}


def lengths(seed: int, vocab: int, rows: int, seq: int, real: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of some rows, and a mask under which the last row has `real` tokens."""
    ids = np.random.default_rng(seed).integers(3, vocab, (rows, seq))
    mask = np.ones_like(ids)
    mask[-1, real:] = 0
    return ids, mask
