"""Exact match of captioned digits by guidance and by the candidates of each picture, on a run of `train.parti`:
`python -m bench.models.caption_guidance --run runs/parti-captioned_digits --matcher runs/clip-captioned_digits`.

Cells of 1,000 pictures as the run's own evaluation counts them, of scenes that were in training and of others.
Candidates are kept by the model's own likelihood or by a run of `train.clip`. Writes
bench/results/cpu/caption_guidance.json with Wilson's intervals of 95 % of the share of pictures without a wrong cell.
"""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from bench.models.decoding_orders import opened, wilson
from train.data import load
from train.evaluators.captions import captions
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.tasks.captions import encoded, padded
from train.tasks.clip.opened import matcher_of, texts_of_run
from train.tasks.clip.ranking import Best
from train.tasks.clip.words import encode_query
from train.tasks.draw import drawn_by_text
from train.tasks.language import vocabulary_of_run
from train.tasks.one_by_one import draw_one_by_one
from train.tasks.tokenizers import tokenizer_of_run

RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "caption_guidance.json"
CELLS = [(guidance, 1, "") for guidance in (1.0, 1.5, 2.0, 3.0, 5.0)]
CELLS += [(guidance, 4, "likelihood") for guidance in (1.0, 2.0, 3.0)] + [
    (guidance, 4, "clip") for guidance in (2.0, 3.0)
]
"""Guidance, candidates, and what keeps one of them."""


class Ranked(eqx.Module):
    """The candidate that a run of `train.clip` finds nearest to the caption. The tree has the ids of every caption in
    both vocabularies, the model's and that run's, row by row.
    """

    best: Best = eqx.field(static=True)

    def __call__(self, tree: Any, example: dict[str, Any]) -> Any:
        parts, matcher, (own, theirs) = tree
        row = jnp.argmax(jnp.all(own == example["text"][None], axis=1))
        return self.best((parts, matcher), {**example, "wanted": theirs[row]})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", default="runs/parti-captioned_digits")
    parser.add_argument("--matcher", default=None)
    parser.add_argument("--n", type=int, default=1000)
    asked = parser.parse_args()
    run, mesh = opened(asked.run), make_mesh("")
    dataset, stream, model = load(run.config.data, captions=True), Stream(mesh), run.model(mesh)
    tokenizer = tokenizer_of_run(run.folder, run.config.tokenizer, run.facts)
    test = dataset.captioned().test
    vocabulary = vocabulary_of_run(run.folder, run.facts)
    own = padded((encoded(vocabulary, text, run.facts.text, "it") for text in test), run.facts.text, run.facts.end)
    matcher = None if asked.matcher is None else matcher_of(asked.matcher, run.facts.shape)
    rows: list[dict[str, Any]] = []
    for guidance, candidates, by in CELLS:
        decode = dataclasses.replace(run.config.decode, guidance=guidance, candidates=candidates)
        sampler = draw_one_by_one(dataclasses.replace(run.config, decode=decode), run.facts)
        parts, draw = (model, tokenizer, sampler, jr.key(1)), drawn_by_text
        if by == "clip":
            if matcher is None:
                continue
            words = texts_of_run(matcher)
            theirs = np.stack([encode_query(words, text, matcher.facts.text, "--matcher") for text in test])
            parts, draw = (parts, matcher.model(mesh), (own, theirs)), Ranked(Best("text"))
        found = captions(dataset, draw, own, asked.n, lambda model, frozen, parts=parts: parts).run(model, None, stream)
        row: dict[str, Any] = {"guidance": guidance, "candidates": candidates, "kept_by": by, **found}
        for name in ("seen", "held_out", "real"):
            share = found[f"caption_images_{name}"]
            row[f"caption_images_{name}_interval"] = wilson(share, asked.n // (1 if name == "real" else 2))
        rows.append(row)
        print(json.dumps(row), flush=True)
        RESULT.write_text(json.dumps({"pictures": asked.n, "steps": run.config.steps, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
