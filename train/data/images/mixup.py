"""Examples mixed with each other: mixup, arXiv:1710.09412, and CutMix, arXiv:1905.04899.

Targets are weights of classes `(n, classes)` that sum to 1. Each example is mixed with its mirror place in the batch,
the first with the last, so one share and one window serve a whole batch; draw them with `mix_share` and `uniforms` of
the step.
"""

import numpy as np
from jaxtyping import Float, Float32, Int32


def one_hot(labels: Int32[np.ndarray, " n"], classes: int) -> Float32[np.ndarray, "n classes"]:
    """All the weight on the label."""
    return (labels[:, None] == np.arange(classes)).astype(np.float32)


def mix_share(seed: int, step: int, alpha: float) -> float:
    """The first example's share in the mixture, of Beta(alpha, alpha), the same for every process of a step; 1 where
    `alpha` is 0.
    """
    if alpha == 0:
        return 1.0
    # The high counter word keeps these apart from the words of `uniforms`.
    philox = np.random.Philox(key=np.array([seed, step], np.uint64), counter=np.array([0, 0, 1, 0], np.uint64))
    return float(np.random.Generator(philox).beta(alpha, alpha))


def mixup(
    images: Float32[np.ndarray, "n height width channels"], targets: Float32[np.ndarray, "n classes"], share: float
) -> tuple[Float32[np.ndarray, "n height width channels"], Float32[np.ndarray, "n classes"]]:
    """`share` of each example and the rest of its partner, in pixels and in targets."""
    blend = lambda array: (share * array + (1 - share) * array[::-1]).astype(np.float32)
    return blend(images), blend(targets)


def cutmix(
    images: Float32[np.ndarray, "n height width channels"],
    targets: Float32[np.ndarray, "n classes"],
    share: float,
    centre: Float[np.ndarray, "2"],
) -> tuple[Float32[np.ndarray, "n height width channels"], Float32[np.ndarray, "n classes"]]:
    """Each example with a window of its partner: of `1 - share` of the area, around `centre` in [0, 1), cut off at the
    border.

    Targets are mixed by the area that the window then has.
    """
    height, width = images.shape[1:3]
    sides = np.sqrt(1 - share) * np.array([height, width])
    middle = np.floor(centre * [height, width])
    top, left = np.maximum(np.rint(middle - sides / 2), 0).astype(int)
    bottom, right = np.minimum(np.rint(middle + sides / 2), [height, width]).astype(int)
    mixed = images.copy()
    mixed[:, top:bottom, left:right] = images[::-1, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, (kept * targets + (1 - kept) * targets[::-1]).astype(np.float32)
