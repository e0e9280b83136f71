"""Numbers about images, samples, labels and tokens.

Streams are immutable and hold running sums in float64 on the host: `state = state.update(batch)`, `state.result()`, and
`merge` of two that saw different parts. Scores of features are functions of arrays; a `Score` says which features.
"""

from eqxgen.metrics.classes import ClassScore, class_score
from eqxgen.metrics.codes import CodeCounts
from eqxgen.metrics.confusion import Confusion
from eqxgen.metrics.correlation import Pearson, Spearman
from eqxgen.metrics.edits import EditRate, edit_distance
from eqxgen.metrics.features import FeatureRows, Features, weights_sha256
from eqxgen.metrics.frechet import Extrapolation, frechet_distance, frechet_infinity, frechet_interval
from eqxgen.metrics.gaussian import Statistics, read_statistics, write_statistics
from eqxgen.metrics.kernel import KernelDistance, kernel_distance, polynomial_mmd
from eqxgen.metrics.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from eqxgen.metrics.mean import Accuracy, CrossEntropy, Mean
from eqxgen.metrics.memorisation import Memorisation, memorisation
from eqxgen.metrics.moments import Moments
from eqxgen.metrics.neighbours import nearest
from eqxgen.metrics.perceptual import PathLength, path_length, path_points, perceptual_distance
from eqxgen.metrics.psnr import PSNR, psnr
from eqxgen.metrics.retrieval import Recall
from eqxgen.metrics.scores import Score, fidelity, frechet
from eqxgen.metrics.ssim import SSIM, ssim

__all__ = [
    "PSNR",
    "SSIM",
    "Accuracy",
    "ClassScore",
    "CodeCounts",
    "Confusion",
    "CrossEntropy",
    "DensityCoverage",
    "EditRate",
    "Extrapolation",
    "FeatureRows",
    "Features",
    "KernelDistance",
    "Mean",
    "Memorisation",
    "Moments",
    "PathLength",
    "Pearson",
    "PrecisionRecall",
    "Recall",
    "Score",
    "Spearman",
    "Statistics",
    "class_score",
    "density_coverage",
    "edit_distance",
    "fidelity",
    "frechet",
    "frechet_distance",
    "frechet_infinity",
    "frechet_interval",
    "kernel_distance",
    "memorisation",
    "nearest",
    "path_length",
    "path_points",
    "perceptual_distance",
    "polynomial_mmd",
    "precision_recall",
    "psnr",
    "read_statistics",
    "ssim",
    "weights_sha256",
    "write_statistics",
]
