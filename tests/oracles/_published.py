"""Small models of the library transformers with drawn weights, as files that it writes."""

import json
import tempfile
from pathlib import Path

import numpy as np


def drawn(model):
    """The model with every parameter moved by noise, for inference; in 8 bits of precision, which files pack well."""
    import torch

    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_((parameter + 0.15 * torch.randn_like(parameter)).bfloat16())
    return model.eval()


def files(model) -> dict[str, np.ndarray]:
    """The arrays of a model's file by published name, and its config.json as text, without the library's version."""
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        arrays = load_file(Path(folder) / "model.safetensors")
    config.pop("transformers_version")
    return {**arrays, "config": np.asarray(json.dumps(config, sort_keys=True))}


def lengths(seed: int, vocab: int, rows: int, seq: int, real: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of some rows, and a mask under which the last row has `real` tokens."""
    ids = np.random.default_rng(seed).integers(3, vocab, (rows, seq))
    mask = np.ones_like(ids)
    mask[-1, real:] = 0
    return ids, mask
