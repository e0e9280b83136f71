"""Texts of a run of a language model, for `train.sample`. Imports nothing heavy."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.configs import Sampling

from .._errors import UsageError, UserError, require
from ..engine.recipes import Finished
from .sampling import Sample

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
    out: str | None = None
    """Text file to write, in place of the screen."""

    def __post_init__(self):
        Sample.__post_init__(self)
        Sampling.__post_init__(self)
        for name in ("chars", "n"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        require("" not in self.prompt, "prompt must be one or more characters: got ''")
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
    given = asked.prompt or (vocabulary.start,)
    prompts = [encode_prompt(vocabulary, prompt, "--prompt", model.context) for prompt in given for _ in range(asked.n)]
    if len(prompts) == 1 and asked.out is None and asked.beams is None:
        print(given[0], end="", flush=True)
        for (piece,) in _pieces(model, vocabulary, prompts, asked):
            print(piece, end="", flush=True)
        print()
        return 0
    if asked.beams is None:
        texts = ["".join(parts) for parts in zip(*_pieces(model, vocabulary, prompts, asked))]
    else:
        texts = [_searched(model, vocabulary, prompt, asked) for prompt in prompts]
    starts = [prompt for prompt in given for _ in range(asked.n)]
    whole = "\n---\n".join(start + text for start, text in zip(starts, texts)) + "\n"
    if asked.out is None:
        print(whole, end="", flush=True)
        return 0
    try:
        Path(asked.out).write_text(whole, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {asked.out}: cannot be written: {error.strerror}") from None
    print(f"{len(texts)} texts in {asked.out}")
    return 0


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


def _pieces(model: Any, vocabulary: Any, prompts: list[Any], asked: TextSample) -> Iterator[list[str]]:
    """Pieces of the text after each prompt, to `asked.chars` characters; a complete text gives empty pieces."""
    import jax.random as jr

    from eqxgen.decoding.autoregressive import stream

    decoders, left = [vocabulary.decoder() for _ in prompts], [asked.chars] * len(prompts)
    try:
        for ids in stream(model, prompts, asked.sampling, key=jr.key(asked.seed)):
            pieces = [decode(id)[:room] for decode, id, room in zip(decoders, ids.tolist(), left)]
            left = [room - len(piece) for room, piece in zip(left, pieces)]
            yield pieces
            if not any(left):
                return
    except FloatingPointError as error:
        raise UserError(f"--run {asked.run}: {error}") from None


def _searched(model: Any, vocabulary: Any, prompt: Any, asked: TextSample) -> str:
    from eqxgen.decoding.beam import beam_search

    if model.context is not None and len(prompt) + asked.chars > model.context:
        room = model.context - len(prompt)
        raise UsageError(
            f"--chars must be at most {room} with --beams and this prompt, as the model's context is {model.context} "
            f"tokens: got {asked.chars}"
        )
    if asked.beams is None or asked.beams > model.vocab:
        raise UsageError(f"--beams must be at most the vocabulary's {model.vocab}: got {asked.beams}")
    return vocabulary.decode(beam_search(model, prompt, asked.chars, asked.beams)[0])[: asked.chars]
