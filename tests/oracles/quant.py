"""Activations and reparametrisations of torch, and the quantisers of vector-quantize-pytorch."""

import numpy as np

from tests.oracles import Cases


def cases() -> Cases:
    import torch

    torch.manual_seed(0)
    activations = {f"activation {name}": case for name, case in _activations(torch).items()}
    return {**activations, **_numpy(_reparametrised(torch)), **_numpy(_quantised(torch))}


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


def _reparametrised(torch):
    """Layers with what they give; of spectral normalisation, the vectors at the start and after two calls of three
    iterations each.
    """
    from copy import deepcopy

    from torch.nn.utils.parametrizations import spectral_norm, weight_norm

    found = {}
    layers = {
        "projection": (torch.nn.Linear(5, 3), (4, 5)),
        "convolution": (torch.nn.Conv2d(3, 4, 3, padding=1), (1, 3, 5, 6)),
    }
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
    return found


def _quantised(torch):
    """In training, of vectors (1, 9, 4): what comes out, the ids, the losses, and the gradient of `sum(y * weight)` to
    the vectors.
    """
    import vector_quantize_pytorch as library

    x, weight = torch.randn(1, 9, 4), torch.randn(1, 9, 4)
    plain = {"dim": 4, "codebook_size": 8, "commitment_weight": 0.25, "ema_update": False, "rotation_trick": False}
    quantizers = {
        "straight through": library.VectorQuantize(**plain),
        "rotation": library.VectorQuantize(**plain | {"rotation_trick": True}),
        "cosine": library.VectorQuantize(**plain, use_cosine_sim=True),
        "FSQ": library.FSQ([5, 4, 3, 8]),
        "FSQ, symmetric levels": library.FSQ([3, 5, 7, 9]),
        "residual": library.ResidualVQ(num_quantizers=3, **plain),
    }
    found = {}
    for name, quantizer in quantizers.items():
        z = x.clone().requires_grad_()
        y, ids, *losses = quantizer(z)
        gradient = torch.autograd.grad((y * weight).sum(), z)[0]
        found[name] = {"x": x, "weight": weight, "y": y, "ids": ids, "gradient": gradient}
        found[name] |= {"loss": losses[0]} if losses else {}
        found[name] |= (
            {"codebook": getattr(quantizer, "codebooks", getattr(quantizer, "codebook", None))} if losses else {}
        )

    z = x.clone().requires_grad_()
    (y, ids, _), parts = library.LFQ(dim=4, codebook_size=16, commitment_loss_weight=1.0)(
        z, inv_temperature=1.0, return_loss_breakdown=True
    )
    gradient = torch.autograd.grad(parts.per_sample_entropy - parts.batch_entropy, z)[0]
    found["LFQ"] = {"x": x, "y": y, "ids": ids, "gradient": gradient} | parts._asdict()

    moving = library.VectorQuantize(dim=4, codebook_size=8, decay=0.8, rotation_trick=False, commitment_weight=0.25)
    found["EMA"] = {"x": x, "codebook": moving.codebook.clone()}
    for call in (1, 2):
        y, ids, loss = moving(x * call)
        averages = {
            "counts": moving._codebook.cluster_size[0],
            "sums": moving._codebook.embed_avg[0],
            "codebook": moving.codebook,
        }
        kept = {"y": y, "ids": ids, "loss": loss, **averages}
        found["EMA"] |= {f"{name}_{call}": value.clone() for name, value in kept.items()}
    return found


def _numpy(cases) -> Cases:
    return {case: {name: array.detach().numpy() for name, array in parts.items()} for case, parts in cases.items()}
