"""VAR's multi-scale quantiser (FoundationVision/VAR, models/quant.py), small and with drawn weights.

Written anew from the published code's arithmetic, with its checkpoint's names, on torch's interpolations. In float64.
"""

import numpy as np

SIZES = {
    "every side": ((1, 2, 3, 4), 6, 4),
    "uneven": ((1, 3, 4, 5, 7), 5, 4),
    "two": ((2, 5), 4, 2),
    "one": ((3,), 4, 1),
}
"""Sides of the maps, channels, number of convolutions."""
CODES, IMAGES = 11, 2


def make(sides, channels, phis, codes=CODES):
    import torch
    from torch import nn

    class Phi(nn.Conv2d):
        def forward(self, h):
            return h * 0.5 + super().forward(h) * 0.5

    class Quantizer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(codes, channels)
            self.quant_resi = nn.Module()
            self.quant_resi.qresi_ls = nn.ModuleList(Phi(channels, channels, 3, padding=1) for _ in range(phis))
            margin = 1 / (3 * phis) if phis == 4 else 1 / (2 * phis)
            self.ticks = np.linspace(margin, 1 - margin, phis)

        def down(self, f, side):
            return nn.functional.interpolate(f, size=(side, side), mode="area")

        def up(self, ids, scale):
            h = self.embedding(ids).permute(0, 3, 1, 2)
            if scale < len(sides) - 1:
                h = nn.functional.interpolate(h, size=(sides[-1], sides[-1]), mode="bicubic")
            place = scale / max(len(sides) - 1, 1)
            return self.quant_resi.qresi_ls[int(np.argmin(np.abs(self.ticks - place)))](h)

        def forward(self, f):
            fixed, rest, total, loss, found, inputs = f.detach(), f.detach().clone(), torch.zeros_like(f), 0, [], []
            for scale, side in enumerate(sides):
                z = (rest if side == sides[-1] else self.down(rest, side)).permute(0, 2, 3, 1)
                distances = torch.cdist(z.reshape(-1, channels), self.embedding.weight.detach())
                ids = distances.argmin(1).reshape(len(f), side, side)
                h = self.up(ids, scale)
                total, rest = total + h, rest - h.detach()
                loss = loss + 0.25 * nn.functional.mse_loss(total.detach(), f) + nn.functional.mse_loss(total, fixed)
                found.append(ids.flatten(1))
                if scale < len(sides) - 1:
                    inputs.append(self.down(total, sides[scale + 1]).flatten(2).transpose(1, 2))
            inputs = torch.cat(inputs, 1) if inputs else torch.zeros(len(f), 0, channels)
            return torch.cat(found, 1), total, loss / len(sides), inputs

    return Quantizer().double()


def cases():
    import torch

    found = {}
    for number, (case, (sides, channels, phis)) in enumerate(SIZES.items()):
        torch.manual_seed(number)
        net = make(sides, channels, phis)
        f = torch.randn(IMAGES, channels, sides[-1], sides[-1], dtype=torch.float64, requires_grad=True)
        ids, total, loss, inputs = net(f)
        loss.backward()
        arrays = {"f": f, "ids": ids, "total": total, "loss": loss, "inputs": inputs, "slope of f": f.grad}
        for name, parameter in net.named_parameters():
            arrays |= {name: parameter, f"slope of {name}": parameter.grad}
        kept = {name: array.detach().numpy() for name, array in arrays.items()}
        found[case] = kept
    return found
