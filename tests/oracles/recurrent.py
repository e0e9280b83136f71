"""PyTorch's recurrent layers of one layer, on random weights, from a given first state."""

from typing import Any

from tests.oracles import Cases


def cases() -> Cases:
    import torch

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    found: dict[str, dict[str, Any]] = {}
    for kind in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM):
        layer = kind(3, 5, batch_first=True)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(draw(*parameter.shape))
        x, dy, h, c = draw(2, 7, 3).requires_grad_(), draw(2, 7, 5), draw(1, 2, 5), draw(1, 2, 5)
        lstm = kind is torch.nn.LSTM
        y, last = layer(x, (h, c) if lstm else h)
        grads = dict(
            zip(("dx", "d_input", "d_output"), torch.autograd.grad(y, (x, layer.weight_ih_l0, layer.weight_hh_l0), dy))
        )
        states = {
            "h": h[0],
            "c": c[0],
            "last_h": last[0][0] if lstm else last[0],
            "last_c": last[1][0] if lstm else c[0],
        }
        found[kind.__name__] = {"x": x, "dy": dy, "y": y, **grads, **states, **dict(layer.named_parameters())}
    return {case: {name: array.detach().numpy() for name, array in parts.items()} for case, parts in found.items()}
