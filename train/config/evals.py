"""`--evals`: evaluators by name, each with its period."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from .._errors import UsageError
from .options import nearest

NONE = "none"


class Evaluation(NamedTuple):
    """An evaluator that a recipe offers.

    Attributes:
        name: in `--evals`.
        gives: names of its numbers in metrics.jsonl and summary.json.
        asked: runs only where `--evals` names it.
    """

    name: str
    gives: tuple[str, ...]
    asked: bool = False


HELD_OUT = Evaluation("held_out", ("eval_loss",))
VALIDATION = Evaluation("held_out", ("val_loss", "val_perplexity"))
MASKED = Evaluation("held_out", ("masked_loss", "masked_accuracy", "masked_perplexity"))
_SCORES = ("loss", "accuracy", "f1", "mcc", "pearson", "spearman")
DEV = Evaluation("dev", tuple(f"eval_{score}" for score in _SCORES))
TEST = Evaluation("test", tuple(f"test_{score}" for score in _SCORES))
CLASSIFIER = Evaluation("classifier", ("sample_accuracy", "sample_frechet", "classifier_accuracy", "judge_seconds"))
LABELS = Evaluation("labels", ("eval_loss", "eval_accuracy"))
SEGMENTATION = Evaluation("segmentation", ("eval_loss", "eval_accuracy", "eval_dice", "eval_iou"))
JUDGES = ("judge", "judge_vit")
"""Networks of `fidelity`, which its numbers are named after: convolutions, and a transformer of another seed."""
_FIDELITY = (
    *("fd_{}", "fd_{}_low", "fd_{}_high", "fd_{}_infinity", "fd_{}_infinity_low", "fd_{}_infinity_high"),
    *("kid_{}", "kid_{}_error", "precision_{}", "recall_{}", "density_{}", "coverage_{}"),
    *("memorisation_{}", "memorisation_near_{}", "memorisation_authentic_{}", "memorisation_flagged_{}"),
    "accuracy_{}",
)
FIDELITY = Evaluation("fidelity", tuple(name.format(judge) for judge in JUDGES for name in _FIDELITY), asked=True)
CAPTIONS = Evaluation(
    "captions",
    tuple(f"caption_{part}_{scenes}" for scenes in ("seen", "held_out", "real") for part in ("cells", "images")),
)
ZERO_SHOT = Evaluation("zero_shot", ("zero_shot_accuracy",))
RETRIEVAL = Evaluation(
    "retrieval",
    tuple(f"{found}_recall_{most}" for found in ("text", "image", "twin") for most in (1, 5)),
)
CHOICES = Evaluation(
    "choices",
    tuple(f"{part}_{scenes}" for scenes in ("seen", "held_out") for part in ("chosen_cells", "chosen_images", "cells")),
)
TRAINED_ON_SAMPLES = Evaluation("cas", ("cas_accuracy", "cas_accuracy_of_real"), asked=True)
RECONSTRUCTION = Evaluation("reconstruction", ("eval_loss", "psnr", "codebook_usage", "codebook_perplexity"))
LATENTS = Evaluation("reconstruction", ("eval_loss", "psnr", "eval_divergence"))
PHONEMES = Evaluation("phonemes", ("phoneme_error", "word_error", "phoneme_error_near", "word_error_near"))
ANSWERS = Evaluation("answers", ("word_error", "exact_match"))
PROBE = Evaluation("probe", ("probe_accuracy", "probe_train_accuracy"))
FINE_TUNING = Evaluation("fine_tuning", ("fine_tuned_accuracy",), asked=True)
BITS = Evaluation("bits", ("eval_loss", "eval_bits"))
RESYNTHESIS = Evaluation("resynthesis", ("mel_distance",))
ELBO = Evaluation("elbo", ("eval_loss", "eval_divergence", "psnr"))


def likelihood_of(samples: int) -> Evaluation:
    """The importance-weighted likelihood of so many draws, which its number's name states."""
    return Evaluation("likelihood", (f"nll_iw{samples}",))


def periods(words: Sequence[str], offered: Sequence[Evaluation]) -> dict[str, int]:
    """Steps between runs of each evaluator that `--evals` names; 0 where it gives none.

    Args:
        words: `name` or `name:steps`; none of them means all that are offered and not `asked` for alone, `none` alone
            means no evaluator.
        offered: those of the recipe.

    Raises:
        ValueError: a word is of another form, or its evaluator is not offered or named twice.
    """
    names = [evaluation.name for evaluation in offered]
    if not words:
        return {evaluation.name: 0 for evaluation in offered if not evaluation.asked}
    if list(words) == [NONE]:
        return {}
    found: dict[str, int] = {}
    for word in words:
        name, colon, steps = word.partition(":")
        if name not in names:
            choice = ", ".join([*names, NONE])
            raise ValueError(f"evals must be of {choice}: got {word!r}{nearest(name, names)}")
        if colon and not re.fullmatch("[1-9][0-9]*", steps):
            raise ValueError(f"evals must be NAME or NAME:STEPS, such as {name}:500: got {word!r}")
        if name in found:
            raise ValueError(f"evals must name an evaluator once: got {name} twice")
        found[name] = int(steps or 0)
    return found


def check_names(words: Sequence[str], offered: Sequence[Evaluation]) -> None:
    """Raises `UsageError` where `periods` raises `ValueError`."""
    try:
        periods(words, offered)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
