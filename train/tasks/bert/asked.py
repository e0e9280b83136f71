"""Flags of `train.sample` for runs of BERT, and their answers. Imports nothing heavy."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..._errors import UsageError, UserError, require
from ..._files import read_json, write_text
from ...engine.recipes import Finished
from ..sampling import Sample, at_most

NAMES = "classes.json"
"""Names of the classes, in the folder of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Texts(Sample):
    text: tuple[str, ...] = ()
    """Texts, each in quotes."""
    top: int | None = None
    """Answers of each text, the most probable first; 3 by default, or all where there are fewer."""
    out: str | None = None
    """File to write, in place of the screen: .jsonl, a line for each text."""

    def __post_init__(self):
        super().__post_init__()
        require(bool(self.text), 'text must be given, as in --text "a text"')
        require(all(text.strip() for text in self.text), "text must be one or more words: got ''")
        require(self.top is None or self.top >= 1, f"top must be at least 1: got {self.top}")
        require(self.out is None or self.out.lower().endswith(".jsonl"), f"out must be a .jsonl file: got {self.out!r}")

    def write(self, lines: list[str], records: list[dict[str, Any]]) -> int:
        """Writes the answers; gives the exit status."""
        if self.out is None:
            print("\n".join(lines))
            return 0
        write_text(Path(self.out), "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        print(f"{len(records):,} texts in {self.out}")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapSample(_Texts):
    """Words for the gaps of texts, which are written [MASK]."""

    def __post_init__(self):
        super().__post_init__()
        without = next((text for text in self.text if "[MASK]" not in text), None)
        require(without is None, f"text must have a gap, written [MASK]: got {without!r:.60}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSample(_Texts):
    """Classes of texts with their probabilities, or grades."""

    second: tuple[str, ...] = ()
    """Second texts of pairs, one for each of --text."""

    def __post_init__(self):
        super().__post_init__()
        require(
            len(self.second) in (0, len(self.text)),
            f"second must be a text for each of --text: got {len(self.second)} for {len(self.text)}",
        )


def fill_gaps(run: Finished, asked: GapSample) -> int:
    """Prints the likeliest words of each gap."""
    import numpy as np

    batch, vocabulary = _batch(run, [(text,) for text in asked.text], "--text")
    gaps = [np.flatnonzero(ids == vocabulary.special.mask) for ids in batch["ids"]]
    if short := next((text for text, found in zip(asked.text, gaps) if not len(found)), None):
        raise UserError(f"--text: must have its gap within the model's {run.facts.context} tokens: got {short!r:.60}")
    top = at_most("--top", asked.top, len(vocabulary.pieces), "words of the vocabulary", usual=3)
    wide = max(map(len, gaps))
    places = np.stack([np.pad(found, (0, wide - len(found)), mode="edge") for found in gaps]).astype(np.int32)
    logits = _logits(run, asked, batch | {"places": places}, _gap_logits)
    lines, records = [], []
    for text, found, rows in zip(asked.text, gaps, logits):
        answers = [_best(row, vocabulary.pieces, top) for row in rows[: len(found)]]
        lines += [text, *(f"  {_told(answer)}" for answer in answers)]
        records.append({"text": text, "gaps": answers})
    return asked.write(lines, records)


def label_texts(run: Finished, asked: LabelSample) -> int:
    """Prints the class of each text with its probability, or its grade."""
    classes = read_json(run.folder / NAMES)
    if not classes and asked.top is not None:
        raise UsageError(f"--top must be left out, as the run gives grades: got {asked.top}")
    top = at_most("--top", asked.top, len(classes), "classes of the run", usual=3)
    texts: list[tuple[str, ...]] = [*zip(asked.text, asked.second)] if asked.second else [(t,) for t in asked.text]
    batch, _ = _batch(run, texts, "--text")
    logits = _logits(run, asked, batch, _label_logits)
    lines, records = [], []
    for text, row in zip(texts, logits):
        answer = _best(row, classes, top) if classes else {"grade": float(row[0])}
        told = _told(answer) if classes else f"{answer['grade']:.4g}"
        lines.append(f"{told}\t{' | '.join(text)}")
        records.append({"text": text[0], **({"second": text[1]} if asked.second else {}), **_record(answer, classes)})
    return asked.write(lines, records)


def _record(answer: dict[str, float], classes: list[str]) -> dict[str, Any]:
    return {"label": next(iter(answer)), "probabilities": answer} if classes else answer


def _told(answer: dict[str, float]) -> str:
    return ", ".join(f"{name} {probability:.3f}" for name, probability in answer.items())


def _best(row: Any, names: Any, top: int) -> dict[str, float]:
    """The most probable names with their probabilities."""
    import numpy as np

    shares = np.exp(row - row.max())
    shares /= shares.sum()
    return {names[place]: float(shares[place]) for place in np.argsort(-shares, kind="stable")[:top].tolist()}


def _batch(run: Finished, texts: list[tuple[str, ...]], flag: str) -> tuple[dict[str, Any], Any]:
    import numpy as np

    from ...data.tables.rows import rows_of
    from ...data.text.vocabulary import NAME
    from ...data.text.vocabulary_file import load_vocabulary

    vocabulary: Any = load_vocabulary(run.folder / NAME, run.facts.vocabulary)
    rows = rows_of(vocabulary, texts, run.facts.context)
    if rows.cut:
        print(f"{flag}: {rows.cut:,} of {len(texts):,} are cut to the model's {run.facts.context} tokens")
    return rows.of(np.arange(len(texts))), vocabulary


def _logits(run: Finished, asked: Any, batch: dict[str, Any], function: Any) -> Any:
    import equinox as eqx
    import numpy as np

    from ...evaluators.examples import Examples
    from ...evaluators.stream import Stream
    from ...parallel import make_mesh

    stream = Stream(make_mesh(asked.mesh))
    model = eqx.nn.inference_mode(run.model(stream.mesh))
    logits = np.asarray(stream.gather(function, model, Examples.of(100, **batch)), np.float64)
    if not np.isfinite(logits).all():
        raise UserError(f"--run {asked.run}: the model's logits are not numbers: its weights are damaged")
    return logits


def _gap_logits(model: Any, example: dict[str, Any]) -> Any:
    from ...evaluators.masked import logits_of

    return logits_of(model, example)


def _label_logits(model: Any, example: dict[str, Any]) -> Any:
    from ...evaluators.scores import logits_of

    return logits_of(model, example)
