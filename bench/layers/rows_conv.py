"""Convolutions, pools, resampling, norms of a batch, recurrent layers and modulation against equinox.nn and torch."""

import equinox as eqx
import jax
import jax.random as jr

from bench.layers.contenders import Race, batched, first, normal, tensor, torch_layers
from eqxgen import nn

KEY = jr.key(0)
IMAGES = (8, 32, 32, 64)
SEQUENCES = (16, 64, 128)


def images(ours, equinox=None, torch=None, shape=IMAGES) -> Race:
    """Layers from functions without arguments, on the same images."""
    return Race(
        lambda: (batched, ours(), normal(*shape)),
        equinox and (lambda: (batched, equinox(), first(normal(*shape)))),
        torch and (lambda: (torch(torch_layers()), tensor(normal(*shape)))),
    )


def batch_norm_of_equinox():
    layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(64, "batch", mode="batch")
    run = jax.vmap(
        lambda layer, x, state: layer(x, state), in_axes=(None, 0, None), out_axes=(0, None), axis_name="batch"
    )
    return lambda layer, x: run(layer, x, state)[0], layer, first(normal(*IMAGES))


def batch_norm():
    layer = nn.BatchNorm(64)
    run = jax.vmap(
        lambda layer, x, state: layer(x, state), in_axes=(None, 0, None), out_axes=(0, None), axis_name="batch"
    )
    return lambda layer, x: run(layer, x, layer.init_state())[0], layer, normal(*IMAGES)


def torch_batch_norm():
    import torch

    return torch.nn.BatchNorm2d(64), tensor(normal(*IMAGES))


def outputs(layer, x):
    return jax.vmap(lambda x: layer(x)[0])(x)


def over_time(cell, state):
    """A cell of `equinox.nn` by scan."""

    def run(cell, x):
        def one(x):
            step = lambda state, x: (cell(x, state),) * 2
            y = jax.lax.scan(step, state, x)[1]
            return y[0] if isinstance(y, tuple) else y

        return jax.vmap(one)(x)

    return run, cell, normal(*SEQUENCES)


def recurrent(ours, equinox, torch) -> Race:
    return Race(
        lambda: (outputs, ours(128, 128, key=KEY), normal(*SEQUENCES)),
        equinox,
        lambda: (getattr(torch_layers(), torch)(128, 128, batch_first=True), tensor(normal(*SEQUENCES))),
    )


def focal_net():
    from transformers.models.focalnet.configuration_focalnet import FocalNetConfig
    from transformers.models.focalnet.modeling_focalnet import FocalNetModulation

    layer = FocalNetModulation(FocalNetConfig(focal_windows=[3], focal_levels=[2]), 0, 64)
    return layer, tensor(normal(*IMAGES)).movedim(1, -1).contiguous()


def squeeze_of_torch():
    import torch

    class Squeeze(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = torch.nn.Sequential(
                torch.nn.Linear(64, 4), torch.nn.ReLU(), torch.nn.Linear(4, 64), torch.nn.Sigmoid()
            )

        def forward(self, x):
            return x * self.gate(x.mean((2, 3)))[:, :, None, None]

    return Squeeze(), tensor(normal(*IMAGES))


ZEROS = jax.numpy.zeros(128)

RACES: dict[str, Race] = {
    "Convolution 3x3": images(
        lambda: nn.Convolution(64, 64, key=KEY),
        lambda: eqx.nn.Conv2d(64, 64, 3, padding=1, key=KEY),
        lambda torch: torch.Conv2d(64, 64, 3, padding=1),
    ),
    "Convolution 3x3, circular": images(
        lambda: nn.Convolution(64, 64, padding_mode="circular", key=KEY),
        lambda: eqx.nn.Conv2d(64, 64, 3, padding=1, padding_mode="CIRCULAR", key=KEY),
        lambda torch: torch.Conv2d(64, 64, 3, padding=1, padding_mode="circular"),
    ),
    "Convolution 5x5, depthwise": images(
        lambda: nn.Convolution(64, 64, kernel=5, groups=64, key=KEY),
        lambda: eqx.nn.Conv2d(64, 64, 5, padding=2, groups=64, key=KEY),
        lambda torch: torch.Conv2d(64, 64, 5, padding=2, groups=64),
    ),
    "Convolution1D 5": Race(
        lambda: (batched, nn.Convolution1D(128, 128, kernel=5, key=KEY), normal(*SEQUENCES)),
        lambda: (batched, eqx.nn.Conv1d(128, 128, 5, padding=2, key=KEY), first(normal(*SEQUENCES))),
        lambda: (torch_layers().Conv1d(128, 128, 5, padding=2), tensor(first(normal(*SEQUENCES)))),
    ),
    "ConvolutionTranspose 4x4, stride 2": images(
        lambda: nn.ConvolutionTranspose(64, 64, kernel=4, stride=2, key=KEY),
        lambda: eqx.nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1, key=KEY),
        lambda torch: torch.ConvTranspose2d(64, 64, 4, stride=2, padding=1),
        (8, 16, 16, 64),
    ),
    "MaxPool 2": images(lambda: nn.MaxPool(2), lambda: eqx.nn.MaxPool2d(2, 2), lambda torch: torch.MaxPool2d(2)),
    "MaxPool 3, stride 2": images(
        lambda: nn.MaxPool(3, stride=2, padding=1),
        lambda: eqx.nn.MaxPool2d(3, 2, padding=1),
        lambda torch: torch.MaxPool2d(3, 2, padding=1),
    ),
    "AvgPool 2": images(lambda: nn.AvgPool(2), lambda: eqx.nn.AvgPool2d(2, 2), lambda torch: torch.AvgPool2d(2)),
    "AdaptiveAvgPool 7": images(
        lambda: nn.AdaptiveAvgPool(7), lambda: eqx.nn.AdaptiveAvgPool2d(7), lambda torch: torch.AdaptiveAvgPool2d(7)
    ),
    "AdaptiveMaxPool 7": images(
        lambda: nn.AdaptiveMaxPool(7), lambda: eqx.nn.AdaptiveMaxPool2d(7), lambda torch: torch.AdaptiveMaxPool2d(7)
    ),
    "Upsample 2": images(lambda: nn.Upsample(2), None, lambda torch: torch.Upsample(scale_factor=2)),
    "Upsample 2, bilinear": images(
        lambda: nn.Upsample(2, "bilinear"), None, lambda torch: torch.Upsample(scale_factor=2, mode="bilinear")
    ),
    "BlurPool": images(
        lambda: nn.BlurPool(), None, lambda torch: torch.Conv2d(64, 64, 4, stride=2, padding=1, groups=64, bias=False)
    ),
    "PixelShuffle 2": images(lambda: nn.PixelShuffle(2), None, lambda torch: torch.PixelShuffle(2)),
    "PixelUnshuffle 2": images(lambda: nn.PixelUnshuffle(2), None, lambda torch: torch.PixelUnshuffle(2)),
    "RMSNorm": Race(
        lambda: (batched, nn.RMSNorm(128), normal(*SEQUENCES)),
        lambda: (lambda layer, x: jax.vmap(jax.vmap(layer))(x), eqx.nn.RMSNorm(128), normal(*SEQUENCES)),
        lambda: (torch_layers().RMSNorm(128), tensor(normal(*SEQUENCES))),
    ),
    "LayerScale": Race(lambda: (batched, nn.LayerScale(128), normal(*SEQUENCES))),
    "BatchNorm": Race(batch_norm, batch_norm_of_equinox, torch_batch_norm),
    "VanillaRNN": recurrent(nn.VanillaRNN, None, "RNN"),
    "GRU": recurrent(nn.GRU, lambda: over_time(eqx.nn.GRUCell(128, 128, key=KEY), ZEROS), "GRU"),
    "LSTM": recurrent(nn.LSTM, lambda: over_time(eqx.nn.LSTMCell(128, 128, key=KEY), (ZEROS, ZEROS)), "LSTM"),
    "FocalModulation": Race(lambda: (batched, nn.FocalModulation(64, key=KEY), normal(*IMAGES)), None, focal_net),
    "SqueezeExcitation": Race(
        lambda: (batched, nn.SqueezeExcitation(64, key=KEY), normal(*IMAGES)), None, squeeze_of_torch
    ),
}
