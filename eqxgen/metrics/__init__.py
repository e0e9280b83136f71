"""Numbers about images, computed from arrays."""

from eqxgen.metrics.frechet import frechet_distance
from eqxgen.metrics.psnr import psnr

__all__ = ["frechet_distance", "psnr"]
