"""PyTorch's convolutions, pools and resampling, on random weights and inputs."""

from typing import Any

import numpy as np

from tests.oracles import Cases

# Options of our layer. The shapes are of (in_channels, out_channels), and of one input, channels first.
CONVOLUTIONS: dict[str, tuple[int, tuple[int, int], tuple[int, ...], dict[str, Any]]] = {
    "1D": (1, (3, 4), (11,), {"kernel": 3, "padding": 1}),
    "1D, even kernel, strided, circular, grouped": (
        1,
        (4, 6),
        (11,),
        {"kernel": 4, "stride": 2, "padding": 3, "dilation": 2, "groups": 2, "padding_mode": "circular"},
    ),
    "2D": (2, (3, 4), (5, 6), {"kernel": 3, "padding": 1}),
    "2D, even kernel, without padding": (2, (3, 4), (5, 6), {"kernel": 2, "stride": 3, "padding": 0}),
    "2D, grouped, dilated": (2, (4, 6), (7, 6), {"kernel": 3, "padding": 2, "dilation": 2, "groups": 2}),
    "2D, grouped, dilated, circular": (
        2,
        (4, 6),
        (7, 6),
        {"kernel": 3, "padding": 3, "dilation": 2, "groups": 2, "padding_mode": "circular"},
    ),
    "2D, depthwise, even kernel, reflect": (
        2,
        (4, 4),
        (7, 6),
        {"kernel": 4, "padding": 2, "groups": 4, "padding_mode": "reflect"},
    ),
    "2D, strided, dilated, reflect": (
        2,
        (2, 4),
        (7, 9),
        {"kernel": 3, "padding": 4, "stride": 2, "dilation": 2, "padding_mode": "reflect"},
    ),
}
TRANSPOSES: dict[str, tuple[int, tuple[int, int], tuple[int, ...], dict[str, Any]]] = {
    "1D": (1, (3, 4), (5,), {"kernel": 4, "stride": 2, "padding": 1}),
    "1D, more at the end, grouped, dilated": (
        1,
        (4, 6),
        (5,),
        {"kernel": 3, "stride": 3, "padding": 2, "output_padding": 2, "dilation": 2, "groups": 2},
    ),
    "2D": (2, (3, 4), (4, 5), {"kernel": 3, "stride": 2, "padding": 1, "output_padding": 1}),
    "2D, grouped": (2, (4, 6), (3, 4), {"kernel": 2, "stride": 2, "padding": 0, "groups": 2}),
    "2D, cut beyond the kernel": (2, (2, 3), (5, 4), {"kernel": 2, "stride": 2, "padding": 2}),
    "2D, dilated, more at the end than the stride": (
        2,
        (2, 3),
        (4, 4),
        {"kernel": 3, "padding": 1, "output_padding": 1, "dilation": 2},
    ),
}
# Options of torch.nn.functional, the sides of the input.
POOLS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "max": ("max_pool2d", (6, 9), {"kernel_size": 2}),
    "max, 1D": ("max_pool1d", (9,), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "max, overlapping": ("max_pool2d", (6, 9), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "average": ("avg_pool2d", (6, 9), {"kernel_size": 2}),
    "average, 1D": ("avg_pool1d", (9,), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "average, overlapping": ("avg_pool2d", (6, 9), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "adaptive average": ("adaptive_avg_pool2d", (6, 9), {"output_size": (4, 3)}),
    "adaptive average, 1D": ("adaptive_avg_pool1d", (10,), {"output_size": 7}),
    "adaptive average, more windows than entries": ("adaptive_avg_pool2d", (3, 4), {"output_size": (5, 4)}),
    "adaptive max": ("adaptive_max_pool2d", (6, 9), {"output_size": (4, 3)}),
    "adaptive max, 1D": ("adaptive_max_pool1d", (10,), {"output_size": 7}),
}


def cases() -> Cases:
    import torch

    generator = torch.Generator().manual_seed(0)
    functional = torch.nn.functional
    draw = lambda *shape: torch.randn(shape, generator=generator)
    found: dict[str, dict[str, Any]] = {}

    def convolve(
        name: str, kind: type, channels: tuple[int, int], sides: tuple[int, ...], options: dict[str, Any]
    ) -> None:
        options = {"kernel_size": options["kernel"], **{k: v for k, v in options.items() if k != "kernel"}}
        layer, x = kind(*channels, **options), draw(2, channels[0], *sides)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(draw(*parameter.shape))
        found[name] = {"x": x, "weight": layer.weight.detach(), "bias": layer.bias.detach(), "y": layer(x).detach()}

    for name, (rank, channels, sides, options) in CONVOLUTIONS.items():
        convolve(f"convolution {name}", (torch.nn.Conv1d, torch.nn.Conv2d)[rank - 1], channels, sides, options)
    for name, (rank, channels, sides, options) in TRANSPOSES.items():
        convolve(
            f"transpose {name}",
            (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d)[rank - 1],
            channels,
            sides,
            options,
        )
    for name, (function, sides, options) in POOLS.items():
        # Rounded, so that some entries of a window are equal.
        x = torch.round(2 * draw(2, 3, *sides)).requires_grad_()
        y = getattr(functional, function)(x, **options)
        dy = draw(*y.shape)
        found[f"pool {name}"] = {"x": x.detach(), "y": y.detach(), "dy": dy, "dx": torch.autograd.grad(y, x, dy)[0]}
    x = draw(2, 8, 3, 4)
    for factor in (2, 3):
        for method, options in {"nearest": {}, "bilinear": {"align_corners": False}}.items():
            found[f"upsample {method} {factor}"] = {
                "x": x,
                "y": functional.interpolate(x, scale_factor=factor, mode=method, **options),
            }
    found["pixel shuffle"] = {"x": x, "y": functional.pixel_shuffle(x, 2)}
    x = draw(2, 3, 4, 6)
    found["pixel unshuffle"] = {"x": x, "y": functional.pixel_unshuffle(x, 2)}
    return {case: {name: np.asarray(array) for name, array in parts.items()} for case, parts in found.items()}
