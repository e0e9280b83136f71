"""The U-Net of `eqxgen.models.segmentation` with batch norm in PyTorch, and our weights in it."""

from typing import Any

import numpy as np
import torch
from torch import nn


def double(old: int, new: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch norm and a rectifier."""
    layers: list[nn.Module] = []
    for channels in (old, new):
        layers += [nn.Conv2d(channels, new, 3, padding=1, bias=False), nn.BatchNorm2d(new), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Logits `(batch, classes, height, width)` of images `(batch, channels, height, width)`."""

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...]):
        super().__init__()
        pairs = list(zip((channels, *widths), widths))
        self.downs = nn.ModuleList(double(old, new) for old, new in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in pairs[:0:-1])
        self.after = nn.ModuleList(double(2 * narrow, narrow) for narrow, _ in pairs[:0:-1])
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.downs):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, block, skip in zip(self.ups, self.after, skips[-2::-1]):
            x = block(torch.cat([skip, up(x)], dim=1))
        return self.head(x)


def with_weights(model: Any) -> UNet:
    """The net in PyTorch with the weights of ours."""
    first, last = model.downs[0].convs[0].weight, model.head.weight
    net = UNet(first.shape[-2], last.shape[-1], model.config.widths)
    with torch.no_grad():
        for theirs, ours in ((net.downs, model.downs), (net.after, model.after)):
            for block, own in zip(theirs, ours):
                for place, (conv, norm) in enumerate(zip(own.convs, own.norms)):
                    _copy(block[3 * place].weight, conv.weight, (3, 2, 0, 1))
                    _copy(block[3 * place + 1].weight, norm.scale)
                    _copy(block[3 * place + 1].bias, norm.bias)
        for up, own in zip(net.ups, model.ups):
            _copy(up.weight, own.weight, (2, 3, 0, 1))
            _copy(up.bias, own.bias)
        _copy(net.head.weight, last, (3, 2, 0, 1))
        _copy(net.head.bias, model.head.bias)
    return net


def loss_of(logits: torch.Tensor, labels: torch.Tensor, entropy: float, dice: float) -> torch.Tensor:
    """Cross-entropy and Dice loss of each image with these weights, mean over the batch."""
    shares = torch.softmax(logits, dim=1)
    true = nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(shares.dtype)
    shared, pixels = (shares * true).sum((2, 3)), shares.sum((2, 3)) + true.sum((2, 3))
    return entropy * nn.functional.cross_entropy(logits, labels) + dice * (1 - ((2 * shared + 1) / (pixels + 1)).mean())


def _copy(target: torch.Tensor, array: Any, order: tuple[int, ...] | None = None) -> None:
    values = np.asarray(array) if order is None else np.asarray(array).transpose(order)
    target.copy_(torch.from_numpy(values.copy()))
