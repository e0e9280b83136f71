"""Halton's published sampler (valeoai/Halton-MaskGIT): its order of a square grid and the tokens placed at each step.

The arithmetic is written anew from that code: a generator of fractions, float32 coordinates, and float32 arccos.
Counts that are whole by an exact arccos are left out, as float32 rounds 192 of 576 down.
"""

import math

import numpy as np

SIDES = (3, 4, 5, 7, 8, 9, 12, 16, 24, 27, 32)
COUNTS = ((8, 4), (8, 8), (8, 16), (16, 12), (16, 32), (16, 64), (24, 25), (32, 32), (32, 64))


def fractions(base, count):
    """Naive van der Corput numbers: the numerator and denominator of each from those of the one before."""
    numerator, denominator, found = 0, 1, []
    for _ in range(count):
        rest = denominator - numerator
        if rest == 1:
            numerator, denominator = 1, denominator * base
        else:
            unit = denominator // base
            while unit >= rest:
                unit //= base
            numerator = (base + 1) * unit - rest
        found.append(numerator / denominator)
    return found


def order(side):
    points = np.stack([np.asarray(fractions(base, 10_000), np.float32) for base in (2, 3)], axis=1)
    cells = np.floor(points * np.float32(side)).astype(int)
    seen = dict.fromkeys(map(tuple, cells.tolist()))
    return np.asarray([row * side + column for row, column in seen], np.int16)


def placed(side, steps):
    import torch

    found = []
    for index in range(steps):
        ratio = 1 - torch.arccos(torch.tensor((index + 1) / steps)) / (math.pi * 0.5)
        found.append(max(index + 1, int(ratio * side**2)))
    return np.asarray(found, np.int16)


def cases():
    orders = {f"side {side}": {"order": order(side)} for side in SIDES}
    return orders | {f"{side} in {steps}": {"placed": placed(side, steps)} for side, steps in COUNTS}
