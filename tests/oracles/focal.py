"""transformers' focal modulation on random weights."""

from typing import Any

from tests.oracles import Cases

# dim, window, level, factor, bias
FOCAL: dict[str, tuple[int, int, int, int, bool]] = {
    "two levels": (4, 3, 2, 2, True),
    "three levels without bias": (6, 3, 3, 2, False),
}


def cases() -> Cases:
    import torch
    from transformers.models.focalnet.configuration_focalnet import FocalNetConfig
    from transformers.models.focalnet.modeling_focalnet import FocalNetModulation

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    found: dict[str, dict[str, Any]] = {}
    for name, (dim, window, level, factor, bias) in FOCAL.items():
        config = FocalNetConfig(focal_windows=[window], focal_levels=[level])
        layer = FocalNetModulation(config, 0, dim, focal_factor=factor, bias=bias).eval()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(0.5 * draw(*parameter.shape))
            x = draw(2, 6, 5, dim)
            found[name] = {"x": x, "y": layer(x), **dict(layer.named_parameters())}
    return {case: {name: array.detach().numpy() for name, array in parts.items()} for case, parts in found.items()}
