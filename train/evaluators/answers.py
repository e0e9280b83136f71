"""Texts that a model writes after held-out sources, compared with the right ones."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Int, PyTree

from eqxgen.decoding.beam import searched
from eqxgen.metrics import EditRate

from ..config.evals import ANSWERS, PHONEMES
from ..data.text.pair_vocabulary import END, PAD, PairVocabulary
from ..data.text.pairs import Asked
from .base import Evaluator
from .examples import Examples
from .stream import Stream


class Written(eqx.Module):
    """The likeliest target of an example's source, by a search: ids up to the end, then -1.

    Attributes:
        length: tokens at most.
        beams: candidates; 1 is greedy.
        length_penalty: see `eqxgen.decoding.beam.beam_search`.
    """

    length: int = eqx.field(static=True)
    beams: int = eqx.field(static=True)
    length_penalty: float = eqx.field(static=True)

    def __call__(self, model: Any, example: dict[str, Array]) -> tuple[Int[Array, ""], Int[Array, " length"]]:
        source = example["source"]
        written = model.conditioned(source, mask=source != PAD)
        rules = {"end": END, "length_penalty": self.length_penalty}
        return example["index"], searched(written, PAD, self.length, self.beams, **rules)[0]


def text_of_ids(vocabulary: PairVocabulary, ids: Any) -> str:
    """The text of a row of `Written`."""
    kept = ids[(ids >= 0) & (ids < vocabulary.size)]
    return vocabulary.decode(kept)


def phonemes(examples: Examples, asked: tuple[Asked, ...], vocabulary: PairVocabulary, written: Written) -> Evaluator:
    """Errors of pronunciations: `phoneme_error`, edits per phoneme of the nearest reference, and `word_error`, the
    share of the words without a right one, of the words without a near-copy in training; `..._near` of the others.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        rates = _rates(model, stream, examples, asked, vocabulary, written)
        numbers: dict[str, float] = {}
        for rate, name in zip(rates, ("", "_near")):
            if rate.exact.weight:
                numbers |= {f"phoneme_error{name}": rate.result(), f"word_error{name}": 1 - rate.exact_match()}
        return numbers

    return Evaluator(PHONEMES, run)


def answers(examples: Examples, asked: tuple[Asked, ...], vocabulary: PairVocabulary, written: Written) -> Evaluator:
    """`word_error`, edits per word of the nearest reference, words being what spaces separate, and `exact_match`."""

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        rate = _rates(model, stream, examples, asked, vocabulary, written)[0]
        return {"word_error": rate.result(), "exact_match": rate.exact_match()}

    return Evaluator(ANSWERS, run)


def _rates(
    model: PyTree,
    stream: Stream,
    examples: Examples,
    asked: tuple[Asked, ...],
    vocabulary: PairVocabulary,
    written: Written,
) -> tuple[EditRate, EditRate]:
    """Rates of the sources without and with a near-copy in training."""
    rates = [EditRate(), EditRate()]
    for numbers, rows in stream.map(written, eqx.nn.inference_mode(model), examples):
        for number, ids in zip(numbers.tolist(), rows):
            one = asked[number]
            guess, right = text_of_ids(vocabulary, ids).split(), [text.split() for text in one.references]
            rates[one.near] = rates[one.near].update([guess], [right])
    first, second = stream.total(*rates)
    return first, second
