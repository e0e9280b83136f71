"""Vectors to ids of codes and back.

Every quantiser has `quantizer(z) -> Quantized`, `nearest(z)`, the ids alone, `lookup(ids)`, the vectors of ids, and
`codes`, how many there are; so one can stand for another. `CosineQuantizer` and `FactorisedQuantizer` wrap another,
`ResidualVQ` several, and how the gradient passes is a function given to the quantiser: `straight_through` or `rotate`.
ViT-VQGAN's (arXiv:2110.04627, section 3.2) is

>>> FactorisedQuantizer(CosineQuantizer(VectorQuantizer(8192, 32, key=code_key)), 768, key=key)
"""

from eqxgen.nn.quantize.codebook import (
    count_codes,
    data_start,
    entropy_of,
    kmeans,
    perplexity,
    restart_dead_codes,
    usage,
)
from eqxgen.nn.quantize.ema import Averages, EMAQuantizer, restart_rare_codes
from eqxgen.nn.quantize.estimator import rotate, straight_through
from eqxgen.nn.quantize.finite import FSQ
from eqxgen.nn.quantize.gumbel import GumbelQuantizer
from eqxgen.nn.quantize.lookup_free import LFQ
from eqxgen.nn.quantize.quantized import Quantized
from eqxgen.nn.quantize.residual import ResidualVQ
from eqxgen.nn.quantize.vector import VectorQuantizer
from eqxgen.nn.quantize.wrapped import CosineQuantizer, FactorisedQuantizer

__all__ = [
    "FSQ",
    "LFQ",
    "Averages",
    "CosineQuantizer",
    "EMAQuantizer",
    "FactorisedQuantizer",
    "GumbelQuantizer",
    "Quantized",
    "ResidualVQ",
    "VectorQuantizer",
    "count_codes",
    "data_start",
    "entropy_of",
    "kmeans",
    "perplexity",
    "restart_dead_codes",
    "restart_rare_codes",
    "rotate",
    "straight_through",
    "usage",
]
