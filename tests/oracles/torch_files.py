"""Files that torch writes, as bytes: tensors of every kind of storage, strides, shared and empty ones, nested."""

import io

import numpy as np

VARYING = {("old", "file")}
"""What no two runs write alike: keys of the older format are addresses in memory."""


def cases():
    import torch

    torch.manual_seed(0)
    base = torch.randn(4, 6)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    tensors = {
        "float32": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[0]),
        "bfloat16": base[:2].bfloat16(),
        "float16": base[:2].half(),
        "float64": base[:2].double(),
        "int64": torch.arange(-3, 3),
        "uint16": torch.arange(5).to(torch.uint16),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "float8_e4m3fn": base[0].to(torch.float8_e4m3fn),
    }
    state = {name: array.detach() for name, array in layer.state_dict().items()}
    old = {name: tensors[name] for name in ("float32", "transposed", "part", "scalar", "bfloat16", "int64")}
    return {
        "old": {**{name: bits(array) for name, array in old.items()}, "file": saved(old, new=False)},
        "tensors": {**{name: bits(array.detach()) for name, array in tensors.items()}, "file": saved(tensors)},
        "module": {**{name: bits(array) for name, array in state.items()}, "file": saved(layer.state_dict())},
        "nested": {
            **{name: bits(array) for name, array in state.items()},
            "file": saved({"epoch": 3, "state_dict": layer.state_dict(), "args": {"rate": 1e-3, "names": ("a", None)}}),
        },
    }


def saved(value, new=True):
    """The bytes of the file, in the format since torch 1.6 or the one before."""
    import torch

    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=new)
    return np.frombuffer(file.getvalue(), np.uint8)


def bits(array):
    """The values, of types that NumPy is without as integers."""
    import torch

    kinds = {torch.bfloat16: torch.int16, torch.float8_e4m3fn: torch.uint8}
    return (array.contiguous().view(kinds[array.dtype]) if array.dtype in kinds else array).numpy()
