"""Scores of the classes of held-out pixels, from counts summed over all images."""

from typing import Any

import numpy as np
from jaxtyping import PyTree

from eqxgen.metrics import Confusion, Mean

from ..config.evals import SEGMENTATION
from ..data.pairs.pairs import Pairs
from .base import Evaluator
from .stream import Stream
from .tiles import Tiling, shares_of


def segmentation(pairs: Pairs, tiling: Tiling) -> Evaluator:
    """`eval_loss`, the cross-entropy of a pixel in nats; `eval_accuracy`; `eval_dice` and `eval_iou`, means over the
    classes; and both of each class, as `eval_dice_NAME` and `eval_iou_NAME`.

    Counts are summed over the pixels of all images before a score is taken: no mean over images, in which an image with
    few pixels of a class counts as much as one with many.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        counts, loss = Confusion.of(len(pairs.classes)), Mean()
        for image, mask in zip(pairs.test.images, pairs.test.masks):
            stream.check()
            shares = shares_of(model, pairs.normalise(image), tiling, stream)
            true = np.take_along_axis(shares, mask[..., None].astype(np.int64), axis=-1)
            loss = loss.update(-np.log(np.maximum(true, np.finfo(np.float32).tiny)))
            counts = counts.update(np.argmax(shares, axis=-1).ravel(), mask.ravel().astype(np.int64))
        dice, iou = counts.f1(), counts.iou()
        found = {"eval_loss": loss.result(), "eval_accuracy": counts.accuracy()}
        found |= {"eval_dice": counts.macro_f1(), "eval_iou": float(np.mean(iou))}
        for kind, *scores in zip(pairs.classes, dice, iou):
            found |= {f"eval_{name}_{kind.name}": float(score) for name, score in zip(("dice", "iou"), scores)}
        return found

    return Evaluator(SEGMENTATION, run)
