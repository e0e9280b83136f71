"""Activations and reparametrisations of torch, and the quantisers of vector-quantize-pytorch."""

import numpy as np

from tests.oracles import Cases


def cases() -> Cases:
    import torch

    torch.manual_seed(0)
    activations = {f"activation {name}": case for name, case in _activations(torch).items()}
    return {**activations, **_reparametrised(torch)}


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


def _reparametrised(torch) -> Cases:
    """Layers with what they give; of spectral normalisation, the vectors at the start and after two calls of three iterations each."""
    from copy import deepcopy

    from torch.nn.utils.parametrizations import spectral_norm, weight_norm

    found = {}
    layers = {"projection": (torch.nn.Linear(5, 3), (4, 5)), "convolution": (torch.nn.Conv2d(3, 4, 3, padding=1), (1, 3, 5, 6))}
    for name, (layer, shape) in layers.items():
        x = torch.randn(shape)
        case = {"x": x, "weight": layer.weight, "bias": layer.bias}
        normed = weight_norm(deepcopy(layer))
        gain, weight = normed.parametrizations.weight.parameters()
        gain.data *= torch.linspace(0.5, 2, len(gain)).reshape(gain.shape)
        y = normed(x)
        to_gain, to_weight = torch.autograd.grad((y**2).sum(), (gain, weight))
        found[f"weight norm {name}"] = case | {"gain": gain, "y": y, "to_gain": to_gain, "to_weight": to_weight}

        normed = spectral_norm(deepcopy(layer), n_power_iterations=3)
        vectors = normed.parametrizations.weight[0]
        case |= {"left": vectors._u.clone(), "right": vectors._v.clone()}
        normed(x)
        y = normed(x)
        to_weight = torch.autograd.grad((y**2).sum(), normed.parametrizations.weight.original)[0]
        after = {"left_after": vectors._u, "right_after": vectors._v, "y_inference": normed.eval()(x)}
        found[f"spectral norm {name}"] = case | {"y": y, "to_weight": to_weight} | after
    return {case: {name: array.detach().numpy() for name, array in parts.items()} for case, parts in found.items()}
