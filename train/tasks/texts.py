"""Texts of a run of a language model, for `train.sample`. Imports nothing heavy."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.configs import Sampling

from .._errors import UsageError, UserError, require
from ..engine.recipes import Finished
from .sampling import Sample, write_out

if TYPE_CHECKING:
    from ..data.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSample(Sampling, Sample):
    """Flags of texts, written as they are made; those of the draws are `eqxgen.configs.Sampling`."""

    prompt: tuple[str, ...] = ()
    """Start of the text; several, for a text of each. By default a line end."""
    chars: int = 500
    """Characters to write after each prompt."""
    n: int = 1
    """Texts for each prompt."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token (greedy)."""
    beams: int | None = None
    """Write the likeliest text that a search with so many candidates finds, in place of drawing one."""
    stop: tuple[str, ...] = ()
    """Strings before which a text ends, wherever tokens begin and end; such as "<|endoftext|>"."""
    stop_id: tuple[int, ...] = ()
    """Token ids at which a text ends."""
    end: bool = True
    """End a text at the vocabulary's end-of-text token, where it has one, such as <|endoftext|> of byte pairs."""
    out: str | None = None
    """File to write, in place of the screen: .txt, or .jsonl with a line for each text."""

    def __post_init__(self):
        Sample.__post_init__(self)
        Sampling.__post_init__(self)
        for name in ("chars", "n"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        for name in ("prompt", "stop"):
            require("" not in getattr(self, name), f"{name} must be one or more characters: got ''")
        require(min(self.stop_id, default=0) >= 0, f"stop_id must be at least 0: got {min(self.stop_id, default=0)}")
        require(
            self.out is None or Path(self.out).suffix.lower() in (".txt", ".jsonl"),
            f"out must be a .txt or .jsonl file: got {self.out!r}",
        )
        require(self.beams is None or self.beams >= 1, f"beams must be at least 1: got {self.beams}")
        plain = {field.name: field.default for field in dataclasses.fields(TextSample)}
        drawing = [name for name in ("n", *_DRAWING) if getattr(self, name) != plain[name]]
        require(
            self.beams is None or not drawing,
            f"beams goes without {drawing[0] if drawing else ''}: a search draws nothing",
        )

    @property
    def sampling(self) -> Sampling:
        """Options of the draws alone."""
        return Sampling(**{name: getattr(self, name) for name in _DRAWING})


_DRAWING = tuple(field.name for field in dataclasses.fields(Sampling))


def write_texts(run: Finished, vocabulary: "Vocabulary", asked: TextSample) -> int:
    """Texts of a run: a single one as it is made, several when all are complete, with a line of dashes between them.

    Raises:
        UserError: the run has no model, or a prompt cannot be encoded.
    """
    from ..parallel import make_mesh
    from ..parallel.decoder import decoder

    mesh = make_mesh(asked.mesh)
    model = decoder(run.model(mesh), mesh)
    _check_stop(asked, model.vocab)
    asked = with_ends(asked, vocabulary)
    starts = [prompt for prompt in asked.prompt or (vocabulary.start,) for _ in range(asked.n)]
    prompts = [encode_prompt(vocabulary, start, "--prompt", model.context) for start in starts]
    try:
        if len(prompts) == 1 and asked.out is None and asked.beams is None:
            print(starts[0], end="", flush=True)
            for (piece,) in _pieces(model, vocabulary, prompts, asked):
                print(piece, end="", flush=True)
            print()
            return 0
        if asked.beams is None:
            texts = ["".join(parts) for parts in zip(*_pieces(model, vocabulary, prompts, asked))]
        else:
            texts = [_searched(model, vocabulary, prompt, asked) for prompt in prompts]
    except FloatingPointError as error:
        raise UserError(f"--run {asked.run}: {error}") from None
    return _write(asked, starts, texts)


def with_ends(asked: TextSample, vocabulary: "Vocabulary") -> TextSample:
    """The flags with the vocabulary's ends of a text among the ids to stop at, unless --no-end was given."""
    new = (id for id in vocabulary.ends if id not in asked.stop_id) if asked.end else ()
    return dataclasses.replace(asked, stop_id=(*asked.stop_id, *new))


def _check_stop(asked: TextSample, vocab: int) -> None:
    from eqxgen.decoding.stopping import stop_ids

    try:
        stop_ids(asked.stop_id, vocab, "--stop-id")
    except ValueError as error:
        raise UsageError(str(error)) from None


def _write(asked: TextSample, starts: list[str], texts: list[str]) -> int:
    """Complete texts, on the screen or in the file."""
    if asked.out is not None and asked.out.lower().endswith(".jsonl"):
        records = [{"prompt": start, "text": text, "seed": asked.seed} for start, text in zip(starts, texts)]
        whole = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    else:
        whole = "\n---\n".join(start + text for start, text in zip(starts, texts)) + "\n"
    return write_out(asked.out, whole, f"{len(texts)} texts")


def encode_prompt(vocabulary: "Vocabulary", prompt: str, flag: str, context: int | None) -> Any:
    """Ids of a prompt.

    Raises:
        UserError: it is empty, has characters that the vocabulary lacks, or is longer than `context` tokens.
    """
    if not prompt:
        raise UserError(f"{flag} must be one or more characters: got ''")
    try:
        ids = vocabulary.encode(prompt)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from None
    if context is not None and len(ids) > context:
        raise UserError(f"{flag} must be at most the model's {context} tokens: got {len(ids)}; shorten it")
    return ids


class _Text:
    """One text as it is made, from ids: up to so many characters, or a stop."""

    def __init__(self, vocabulary: Any, asked: TextSample):
        from eqxgen.decoding.stopping import Until

        self.decode, self.until = vocabulary.decoder(), Until(asked.stop)
        self.stop_ids, self.room = frozenset(asked.stop_id), asked.chars

    def __call__(self, id: int) -> str:
        """The text that the id completes; no more than is left of the characters."""
        if not self.room:
            return ""
        ended = id in self.stop_ids
        piece = self.until(self.decode(None if ended else id))
        if ended or len(piece) + len(self.until.held) >= self.room:
            piece, ended = piece + self.until.rest(), True
        piece = piece[: self.room]
        self.room = 0 if ended or self.until.ended else self.room - len(piece)
        return piece


def _pieces(model: Any, vocabulary: Any, prompts: list[Any], asked: TextSample) -> Iterator[list[str]]:
    """Pieces of the text after each prompt; a complete text gives empty pieces."""
    import jax.random as jr

    from eqxgen.decoding.autoregressive import stream

    texts = [_Text(vocabulary, asked) for _ in prompts]
    for ids in stream(model, prompts, asked.sampling, stop=asked.stop_id, key=jr.key(asked.seed)):
        yield [text(id) for text, id in zip(texts, ids.tolist())]
        if not any(text.room for text in texts):
            return


def _searched(model: Any, vocabulary: Any, prompt: Any, asked: TextSample) -> str:
    import numpy as np

    from eqxgen.decoding.beam import beam_search
    from eqxgen.decoding.stopping import cut

    if model.context is not None and len(prompt) + asked.chars > model.context:
        room = model.context - len(prompt)
        raise UsageError(
            f"--chars must be at most {room} with --beams and this prompt, as the model's context is {model.context} "
            f"tokens: got {asked.chars}"
        )
    if asked.beams is None or asked.beams > model.vocab:
        raise UsageError(f"--beams must be at most the vocabulary's {model.vocab}: got {asked.beams}")
    ids, _ = beam_search(model, prompt, asked.chars, asked.beams, stop=asked.stop_id)
    kept = [id for id in ids.tolist() if id >= 0 and id not in asked.stop_id]
    return cut(vocabulary.decode(np.asarray(kept, np.int32)), asked.stop)[: asked.chars]
