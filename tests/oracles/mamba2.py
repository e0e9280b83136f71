"""transformers' `Mamba2Mixer` on random weights: outputs, gradients, and the states of its cache."""

from typing import Any

from tests.oracles import Cases

SIZES: dict[str, dict[str, int]] = {
    "one group": {"state_size": 4, "n_groups": 1, "head_dim": 4, "chunk_size": 5},
    "two groups": {"state_size": 3, "n_groups": 2, "head_dim": 2, "chunk_size": 8},
}


def cases() -> Cases:
    import torch
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    found: dict[str, dict[str, Any]] = {}
    for name, sizes in SIZES.items():
        config = Mamba2Config(
            hidden_size=6, num_heads=12 // sizes["head_dim"], expand=2, conv_kernel=4, num_hidden_layers=1, **sizes
        )
        layer = Mamba2Mixer(config, 0)
        with torch.no_grad():
            for path, parameter in layer.named_parameters():
                parameter.copy_(0.3 * draw(*parameter.shape) + (path == "norm.weight"))
        x, dy = draw(2, 11, 6).requires_grad_(), draw(2, 11, 6)
        y = layer(x)
        parameters = dict(layer.named_parameters())
        grads = torch.autograd.grad(y, (x, *parameters.values()), dy)
        given = {"x": x, "dy": dy, "y": y, "dx": grads[0], **parameters}
        found[name] = given | {f"d {path}": grad for path, grad in zip(parameters, grads[1:])}
    return {case: {name: array.detach().numpy() for name, array in parts.items()} for case, parts in found.items()}
