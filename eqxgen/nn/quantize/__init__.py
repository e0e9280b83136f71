"""Vector quantisation: vectors to ids of codes and back.

Every quantiser has `quantizer(z) -> Quantized`, `nearest(z)`, which returns the ids only, `lookup(ids)`, the vectors of
ids, and `codes`, their number, so that quantisers are interchangeable. `CosineQuantizer` and `FactorisedQuantizer` wrap
another quantiser, `ResidualVQ` several, `MultiScaleVQ` one for maps of several scales. The gradient estimator is an
argument: `straight_through` or `rotate`. ViT-VQGAN's quantiser (arXiv:2110.04627, section 3.2) is

>>> FactorisedQuantizer(CosineQuantizer(VectorQuantizer(8192, 32, key=code_key)), 768, key=key)
"""

from eqxgen.nn.quantize.codebook import count_codes as count_codes
from eqxgen.nn.quantize.codebook import data_start as data_start
from eqxgen.nn.quantize.codebook import entropy_of as entropy_of
from eqxgen.nn.quantize.codebook import kmeans as kmeans
from eqxgen.nn.quantize.codebook import perplexity as perplexity
from eqxgen.nn.quantize.codebook import restart_dead_codes as restart_dead_codes
from eqxgen.nn.quantize.codebook import usage as usage
from eqxgen.nn.quantize.codebooks import has_codebook as has_codebook
from eqxgen.nn.quantize.codebooks import with_codebooks as with_codebooks
from eqxgen.nn.quantize.ema import Averages as Averages
from eqxgen.nn.quantize.ema import EMAQuantizer as EMAQuantizer
from eqxgen.nn.quantize.ema import restart_rare_codes as restart_rare_codes
from eqxgen.nn.quantize.estimator import rotate as rotate
from eqxgen.nn.quantize.estimator import straight_through as straight_through
from eqxgen.nn.quantize.finite import FSQ as FSQ
from eqxgen.nn.quantize.gumbel import GumbelQuantizer as GumbelQuantizer
from eqxgen.nn.quantize.lookup_free import LFQ as LFQ
from eqxgen.nn.quantize.multiscale import MultiScaleVQ as MultiScaleVQ
from eqxgen.nn.quantize.quantized import Quantized as Quantized
from eqxgen.nn.quantize.residual import ResidualVQ as ResidualVQ
from eqxgen.nn.quantize.vector import VectorQuantizer as VectorQuantizer
from eqxgen.nn.quantize.wrapped import CosineQuantizer as CosineQuantizer
from eqxgen.nn.quantize.wrapped import FactorisedQuantizer as FactorisedQuantizer
