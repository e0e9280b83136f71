"""Texts as the conditions of image tokens: vocabulary, ids, pictures and evaluation. Imports nothing heavy."""

import dataclasses
import functools
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import UsageError, UserError, require
from ..engine.recipes import Finished
from .conditions import Asked, Conditions, Given
from .facts import CaptionFacts, TokenFacts
from .sampling import CaptionSample

if TYPE_CHECKING:
    import numpy as np
    from jax.sharding import Mesh

    from ..data import Dataset
    from ..data.text.vocabulary import Vocabulary
    from .encoded.token_data import Source
    from .text_encoders import EncoderTexts

SHOWN = 8
"""Held-out captions in the pictures while training, a row each."""


class Texts(NamedTuple):
    """Captions of a data set as ids."""

    vocabulary: "Vocabulary | EncoderTexts"
    train: "np.ndarray"
    test: "np.ndarray"


def check_text_tokenizer(name: str) -> None:
    """Raises `ValueError` where `--text-tokenizer` cannot be a name or a path."""
    wrong = not name.strip() or "\0" in name
    require(not wrong, f"text_tokenizer must be chars, bytes, bpe-SIZE, or a path: got {name!r}")


def check_text_encoder(name: str) -> None:
    """Raises `ValueError` where `--text-encoder` cannot be a path."""
    wrong = name != "" and (not name.strip() or "\0" in name)
    require(not wrong, f"text_encoder must be the folder of an encoder of texts: got {name!r}")


def check_tokenizer_given(config: Any, given: Collection[str]) -> None:
    """Raises `UsageError` where a flag names a tokenizer beside that of the frozen encoder."""
    if config.text_encoder and "text_tokenizer" in given:
        raise UsageError(
            f"--text-tokenizer {config.text_tokenizer}: must be left out with --text-encoder {config.text_encoder}, "
            "whose own tokenizer is used"
        )


def padded(ids: "Iterable[np.ndarray]", length: int, end: int) -> "np.ndarray":
    """Texts (n, length) of ids, filled up with the end."""
    import numpy as np

    rows = [np.pad(np.asarray(row, np.int32), (0, length - len(row)), constant_values=end) for row in ids]
    return np.stack(rows)


def read_texts(config: Any, folder: Path, dataset: "Dataset") -> Texts:
    """The captions, in a vocabulary of them all or by the tokenizer of a frozen encoder.

    Raises:
        UserError: the vocabulary lacks characters of one, or it is longer than a text.
    """
    captions, name, context = dataset.captioned(), dataset.name, config.model.context
    if config.text_encoder:
        from .text_encoders import FLAG, open_texts

        vocabulary = open_texts(config.text_encoder)
        end, source = vocabulary.end, FLAG
    else:
        vocabulary = vocabulary_of(config.text_tokenizer, (*captions.train, *captions.test))
        end, source = vocabulary.size, "--text-tokenizer"
    one = functools.cache(lambda caption: encoded(vocabulary, caption, context, name, source=source))
    return Texts(vocabulary, *(padded(map(one, texts), context, end) for texts in captions))


def vocabulary_of(name: str, captions: tuple[str, ...]) -> "Vocabulary":
    """The vocabulary that `--text-tokenizer` names, see `train.data.text.vocabulary_file`."""
    from ..data.text.vocabulary_file import open_vocabulary

    return open_vocabulary(name, ("" if name == "chars" else "\n").join(captions), "--text-tokenizer")


def encoded(
    vocabulary: Any,
    caption: str,
    context: int,
    name: str,
    flag: str = "--model.context",
    source: str = "--text-tokenizer",
) -> "np.ndarray":
    """Ids of a caption of the data `name`.

    Args:
        flag: of the context.
        source: flag of the vocabulary.

    Raises:
        UserError: it has as many tokens as `context`, or more, or characters that the vocabulary lacks.
    """
    try:
        ids = vocabulary.encode(caption)
    except ValueError as error:
        raise UserError(f"{source}: caption {caption!r:.60} of {name}: {error}") from None
    if len(ids) >= context:
        raise UserError(
            f"{flag} must be more than the tokens of every caption of {name}: got {context}, and {len(ids)} "
            f"of {caption!r:.60}"
        )
    return ids


def _on_paper(config: Any, facts: TokenFacts) -> CaptionFacts:
    """Facts with the vocabulary's size: of bytes and of bpe-SIZE by name, of a frozen encoder by the name of its
    folder, otherwise from the captions.
    """
    name = config.text_tokenizer
    if config.text_encoder:
        import equinox as eqx

        from .text_encoders import text_encoder_on_paper

        make, vocab = text_encoder_on_paper(config.text_encoder, config.model.context)
        shapes = eqx.filter_eval_shape(make)
        return dataclasses.replace(_with_texts(config, facts, vocab), text_dim=shapes.dim, text_end=shapes.end)
    if name == "bytes":
        vocab = 256
    elif name.startswith("bpe-") and name[4:].isdecimal():
        vocab = int(name[4:])
    else:
        from ..data import load

        captions = load(config.data, captions=True).captioned()
        vocab = vocabulary_of(name, (*captions.train, *captions.test)).size
    return _with_texts(config, facts, vocab)


def _with_texts(config: Any, facts: TokenFacts, vocab: int, sha256: str | None = None) -> CaptionFacts:
    shapes = facts.shape, facts.classes, facts.tokens, facts.codes, facts.tokenizer
    return CaptionFacts(*shapes, vocab=vocab, text=config.model.context, vocabulary=sha256)


def captioned_facts(config: Any, source: "Source", facts: TokenFacts) -> CaptionFacts:
    """Facts of the tokens with those of the texts, and of the frozen encoder where there is one.

    Raises:
        UserError: the encoder cannot be opened, or the run was begun with another.
    """
    vocabulary = source.texts.vocabulary
    if not config.text_encoder:
        return _with_texts(config, facts, vocabulary.size, vocabulary.sha256)
    from ..parallel import make_mesh
    from ..run.weights import digest
    from .text_encoders import open_text_encoder, refuse_another

    where = config.text_encoder
    refuse_another(where, source.folder, {"vocabulary": vocabulary.sha256})
    encoder = open_text_encoder(where, config.model.context, make_mesh(config.mesh))
    sha256 = digest(encoder)
    refuse_another(where, source.folder, {"text_encoder": sha256})
    found = _with_texts(config, facts, encoder.vocab, vocabulary.sha256)
    return dataclasses.replace(found, text_encoder=sha256, text_dim=encoder.dim, text_end=encoder.end)


def _opened(config: Any, source: "Source", facts: TokenFacts) -> Given:
    return given_texts(config, source, captioned_facts(config, source, facts), source.texts)


def given_texts(config: Any, source: "Source", facts: CaptionFacts, texts: Texts) -> Given:
    """The conditions of a run.

    Args:
        texts: the vocabulary, and a row of each example that begins with its text.
    """
    import numpy as np

    from ..data.text.vocabulary import Vocabulary
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

    def prepare(folder: Path) -> None:
        if isinstance(texts.vocabulary, Vocabulary):
            keep_vocabulary(Path(folder), texts.vocabulary)

    spread = np.linspace(0, len(texts.test) - 1, SHOWN).astype(int)
    return Given(
        facts,
        texts.train,
        texts.test,
        np.repeat(texts.test[spread], 8, axis=0),
        drawn_by_text,
        evaluators,
        prepare,
    )


def texts_asked(run: Finished, asked: CaptionSample) -> Asked:
    """A row of ids for each image of each text."""
    import numpy as np

    from .draw import drawn_by_text
    from .texts import encode_prompt

    facts, vocabulary = run.facts, _vocabulary_of_run(run)
    ids = [encode_prompt(vocabulary, text, "--text", facts.text - 1) for text in asked.text]
    rows, labels = padded(ids, facts.text, facts.end), np.arange(len(ids), dtype=np.int32)
    count = asked.n or 8
    return Asked(np.repeat(rows, count, axis=0), np.repeat(labels, count), drawn_by_text)


def _vocabulary_of_run(run: Finished) -> Any:
    if run.config.text_encoder:
        from .text_encoders import texts_of

        return texts_of(run.config.text_encoder, run.facts)
    from .language import vocabulary_of_run

    return vocabulary_of_run(run.folder, run.facts)


def _frozen(config: Any, facts: CaptionFacts, mesh: "Mesh | None", tokenizer: Any) -> Any:
    """The frozen encoder, of random weights on paper; None where the model has its own."""
    if not config.text_encoder:
        return None
    from .text_encoders import text_encoder_of, text_encoder_on_paper

    if config.on_paper:
        return text_encoder_on_paper(config.text_encoder, facts.text)[0]()
    return text_encoder_of(config, facts, mesh)


TEXTS = Conditions(
    name="text",
    dropout="text_dropout",
    facts=CaptionFacts,
    sample=CaptionSample,
    on_paper=_on_paper,
    shape=lambda facts: (facts.text,),
    opened=_opened,
    asked=texts_asked,
    read=read_texts,
    frozen=_frozen,
    bound=lambda model, frozen: model if frozen is None else model.reading(frozen),
)
