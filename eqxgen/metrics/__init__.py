"""Numbers about images and tokens.

Streams are immutable and hold running sums in float64 on the host: `state = state.update(batch)`, `state.result()`, and
`merge` of two that saw different parts.
"""

from eqxgen.metrics.codes import CodeCounts
from eqxgen.metrics.frechet import frechet_distance
from eqxgen.metrics.mean import Accuracy, CrossEntropy, Mean
from eqxgen.metrics.moments import Moments
from eqxgen.metrics.psnr import PSNR, psnr

__all__ = [
    "PSNR",
    "Accuracy",
    "CodeCounts",
    "CrossEntropy",
    "Mean",
    "Moments",
    "frechet_distance",
    "psnr",
]
