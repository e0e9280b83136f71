"""PyTorch's norms, on random parameters and inputs; the batch norms over three batches in training, then one in
inference.
"""

from typing import Any

from tests.oracles import Cases

# The shape of a batch, channels second, and torch's options.
BATCH_NORMS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "1D of vectors": ((8, 5), {}),
    "1D of sequences": ((4, 5, 6), {"momentum": 0.3, "eps": 1e-3}),
    "2D": ((4, 5, 3, 2), {}),
    "2D, cumulative": ((4, 5, 3, 2), {"momentum": None}),
    "2D, without affine": ((4, 5, 3, 2), {"affine": False}),
}


def cases() -> Cases:
    import torch

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    found: dict[str, dict[str, Any]] = {}
    for name, (shape, options) in BATCH_NORMS.items():
        layer = (torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d)(shape[1], **options)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(draw(*parameter.shape))
        # Away from zero, where a variance as E[x²] - E[x]² would lose digits.
        x = (3 * draw(4, *shape) + 50).requires_grad_()
        dy = draw(*shape)
        y = [layer(batch) for batch in x[:3]]
        dx = torch.autograd.grad(y[0], x, dy)[0][0]
        parts = {
            "mean": layer.running_mean,
            "variance": layer.running_var,
            "dy": dy,
            "dx": dx,
            **dict(layer.named_parameters()),
        }
        layer.eval()
        found[f"batch norm {name}"] = {"x": x.detach(), "y": torch.stack([*y, layer(x[3])]).detach(), **parts}
    x, weight, bias = draw(2, 6, 3, 4), draw(6), draw(6)
    y = torch.nn.functional.group_norm(x, 3, weight, bias)
    found["group norm"] = {"x": x, "weight": weight, "bias": bias, "y": y}
    x, weight, bias = draw(4, 6), draw(6), draw(6)
    y = torch.nn.functional.layer_norm(x, (6,), weight, bias)
    found["layer norm"] = {"x": x, "weight": weight, "bias": bias, "y": y}
    found["RMS norm"] = {"x": x, "weight": weight, "y": torch.nn.functional.rms_norm(x, (6,), weight, 1e-6)}
    return {case: {name: array.detach().numpy() for name, array in parts.items()} for case, parts in found.items()}
