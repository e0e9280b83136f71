"""Texts as the conditions of image tokens: vocabulary, ids, pictures and evaluation. Imports nothing heavy."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import UserError, require
from ..engine.recipes import Finished
from .conditions import Asked, Conditions, Given
from .facts import CaptionFacts, TokenFacts
from .sampling import CaptionSample

if TYPE_CHECKING:
    import numpy as np

    from ..data import Dataset
    from ..data.text.vocabulary import Vocabulary
    from .encoded.token_data import Source

SHOWN = 8
"""Held-out captions in the pictures while training, a row each."""


class Texts(NamedTuple):
    """Captions of a data set as ids."""

    vocabulary: "Vocabulary"
    train: "np.ndarray"
    test: "np.ndarray"


def check_text_tokenizer(name: str) -> None:
    """Raises `ValueError` where `--text-tokenizer` cannot be a name or a path."""
    wrong = not name.strip() or "\0" in name
    require(not wrong, f"text_tokenizer must be chars, bytes, bpe-SIZE, or a path: got {name!r}")


def padded(ids: "Iterable[np.ndarray]", length: int, end: int) -> "np.ndarray":
    """Texts (n, length) of ids, filled up with the end."""
    import numpy as np

    rows = [np.pad(np.asarray(row, np.int32), (0, length - len(row)), constant_values=end) for row in ids]
    return np.stack(rows)


def _read(config: Any, dataset: "Dataset") -> Texts:
    """The captions, in a vocabulary of them all.

    Raises:
        UserError: the vocabulary lacks characters of one, or it is longer than a text.
    """
    captions, name = dataset.captioned(), dataset.name
    vocabulary = vocabulary_of(config.text_tokenizer, (*captions.train, *captions.test))
    one = functools.cache(lambda caption: encoded(vocabulary, caption, config.model.context, name))
    ids = (padded(map(one, texts), config.model.context, vocabulary.size) for texts in captions)
    return Texts(vocabulary, *ids)


def vocabulary_of(name: str, captions: tuple[str, ...]) -> "Vocabulary":
    """The vocabulary that `--text-tokenizer` names, see `train.data.text.vocabulary_file`."""
    from ..data.text.vocabulary_file import open_vocabulary

    return open_vocabulary(name, ("" if name == "chars" else "\n").join(captions), "--text-tokenizer")


def encoded(vocabulary: Any, caption: str, context: int, name: str, flag: str = "--model.context") -> "np.ndarray":
    """Ids of a caption of the data `name`.

    Raises:
        UserError: it has as many tokens as `context`, or more, or characters that the vocabulary lacks.
    """
    try:
        ids = vocabulary.encode(caption)
    except ValueError as error:
        raise UserError(f"--text-tokenizer: caption {caption!r:.60} of {name}: {error}") from None
    if len(ids) >= context:
        raise UserError(
            f"{flag} must be more than the tokens of every caption of {name}: got {context}, and {len(ids)} "
            f"of {caption!r:.60}"
        )
    return ids


def _on_paper(config: Any, facts: TokenFacts) -> CaptionFacts:
    """Facts with the vocabulary's size: of bytes and of bpe-SIZE by name, otherwise from the captions."""
    name = config.text_tokenizer
    if name == "bytes":
        vocab = 256
    elif name.startswith("bpe-") and name[4:].isdecimal():
        vocab = int(name[4:])
    else:
        from ..data import load

        captions = load(config.data, captions=True).captioned()
        vocab = vocabulary_of(name, (*captions.train, *captions.test)).size
    return captioned_facts(config, facts, vocab, None)


def captioned_facts(config: Any, facts: TokenFacts, vocab: int, sha256: str | None) -> CaptionFacts:
    """Facts of the tokens with those of the texts."""
    shapes = facts.shape, facts.classes, facts.tokens, facts.codes, facts.tokenizer
    return CaptionFacts(*shapes, vocab=vocab, text=config.model.context, vocabulary=sha256)


def _opened(config: Any, source: "Source", facts: TokenFacts) -> Given:
    texts = source.texts
    return given_texts(
        config, source, captioned_facts(config, facts, texts.vocabulary.size, texts.vocabulary.sha256), texts
    )


def given_texts(config: Any, source: "Source", facts: CaptionFacts, texts: Texts) -> Given:
    """The conditions of a run.

    Args:
        texts: the vocabulary, and a row of each example that begins with its text.
    """
    import numpy as np

    from ..evaluators.base import Evaluator
    from ..evaluators.captions import captions
    from ..evaluators.examples import Examples
    from ..evaluators.fidelity import fidelity
    from .draw import drawn_by_text
    from .language import keep_vocabulary

    dataset = source.images
    assert dataset is not None  # prepared tokens have no captions
    chosen = np.arange(config.eval_samples) % len(texts.test)
    judged = Examples.of(250, text=texts.test[chosen], label=dataset.test_labels[chosen])

    def evaluators(parts: Any) -> tuple[Evaluator, Evaluator]:
        return (
            captions(dataset, drawn_by_text, texts.test, config.eval_samples, parts),
            fidelity(dataset, drawn_by_text, judged, parts),
        )

    spread = np.linspace(0, len(texts.test) - 1, SHOWN).astype(int)
    return Given(
        facts,
        texts.train,
        texts.test,
        np.repeat(texts.test[spread], 8, axis=0),
        drawn_by_text,
        evaluators,
        lambda folder: keep_vocabulary(Path(folder), texts.vocabulary),
    )


def texts_asked(run: Finished, asked: CaptionSample) -> Asked:
    """A row of ids for each image of each text."""
    import numpy as np

    from .draw import drawn_by_text
    from .language import vocabulary_of_run
    from .texts import encode_prompt

    facts, vocabulary = run.facts, vocabulary_of_run(run.folder, run.facts)
    ids = [encode_prompt(vocabulary, text, "--text", facts.text - 1) for text in asked.text]
    rows, labels = padded(ids, facts.text, facts.vocab), np.arange(len(ids), dtype=np.int32)
    return Asked(np.repeat(rows, asked.n, axis=0), np.repeat(labels, asked.n), drawn_by_text)


TEXTS = Conditions(
    name="text",
    dropout="text_dropout",
    facts=CaptionFacts,
    sample=CaptionSample,
    on_paper=_on_paper,
    shape=lambda facts: (facts.text,),
    opened=_opened,
    asked=texts_asked,
    read=_read,
)
