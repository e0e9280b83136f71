"""Activations and reparametrisations of torch, and the quantisers of vector-quantize-pytorch."""

import numpy as np

from tests.oracles import Cases


def cases() -> Cases:
    import torch

    torch.manual_seed(0)
    return {f"activation {name}": case for name, case in _activations(torch).items()}


def _activations(torch) -> dict[str, dict[str, np.ndarray]]:
    from transformers.activations import ACT2FN

    functional = torch.nn.functional
    published = {
        "gelu": functional.gelu,
        "gelu_tanh": ACT2FN["gelu_new"],
        "quick_gelu": ACT2FN["quick_gelu"],
        "swish": functional.silu,
        "hard_swish": functional.hardswish,
        "mish": functional.mish,
        "relu": functional.relu,
        "relu6": functional.relu6,
        "squared_relu": ACT2FN["relu2"],
        "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
        "elu": functional.elu,
        "selu": functional.selu,
        "softplus": functional.softplus,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "identity": torch.nn.Identity(),
    }
    x = torch.linspace(-8, 8, 81, dtype=torch.float64)
    return {name: {"x": x.numpy(), "y": function(x).numpy()} for name, function in published.items()}
