"""Hints about codebooks of which few codes are used: while a tokenizer is trained, and before a second stage."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LEAST = 0.05
"""Share of the codes that a perplexity should reach."""


def low_usage(codes: int, places: int, steps: int, done: int, values: Mapping[str, Any]) -> str:
    """A line where the perplexity of a batch is low after a tenth of the run; else empty.

    Args:
        codes: of the codebook.
        places: tokens of a batch, which its perplexity cannot exceed.
        steps: of the run.
        done: steps made.
        values: metrics; `perplexity` among them.
    """
    perplexity, least = values.get("perplexity", float("inf")), LEAST * min(codes, places)
    if done < steps / 10 or perplexity >= least:
        return ""
    return (
        f"codebook: a perplexity of {perplexity:.3g} is below 5 % of {min(codes, places):,} codes, most unused: "
        "lower --optim.learning-rate, raise --entropy, restart codes more often, or take --quantizer fsq, cosine or ema"
    )


def tokenizer_usage(where: str, codes: int) -> str:
    """A line about a finished tokenizer whose perplexity is unknown or low; else empty.

    Args:
        where: folder of its run, or its file.
        codes: of the tokenizer.
    """
    found = _summary(Path(where)).get("codebook_perplexity")
    if not isinstance(found, int | float) or isinstance(found, bool):
        said, hint = "has codes of unknown use", "train.evaluate --run measures it"
    elif found >= LEAST * codes:
        return ""
    else:
        said = f"has a perplexity of {found:.3g}, below 5 % of {codes:,} codes"
        hint = "train it anew with --quantizer fsq or more --entropy"
    return f"--tokenizer {where}: {said}: a model of few codes makes images of few kinds; {hint}"


def _summary(where: Path) -> dict[str, Any]:
    path = (where if where.is_dir() else where.parent) / "summary.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
