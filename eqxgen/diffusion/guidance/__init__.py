"""Guidance: denoisers made of denoisers. They compose, and any solver samples them.

cfg              classifier-free, with interval, rescale and channels
apg              adaptive projected guidance
cfg_zero_star    CFG-Zero*
by_rule          those three, by their rule
autoguidance     away from a weaker denoiser
classifier       by a classifier of noised images
matching         by a model that matches images and texts
Clipped          x_0 in the range of the data, plain or by a quantile
"""

from eqxgen.diffusion.guidance.gradients import classifier, matching
from eqxgen.diffusion.guidance.limits import Clipped
from eqxgen.diffusion.guidance.pairs import Pair, apg, autoguidance, by_rule, cfg, cfg_zero_star
from eqxgen.diffusion.guidance.rules import Linear, Projected, Zero

__all__ = [
    "Clipped",
    "Linear",
    "Pair",
    "Projected",
    "Zero",
    "apg",
    "autoguidance",
    "by_rule",
    "cfg",
    "cfg_zero_star",
    "classifier",
    "matching",
]
