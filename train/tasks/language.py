"""What the recipes of language models share: windows of a text, their loss, validation, samples."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UserError, require
from .._files import write_atomically
from ..config.base import TrainConfig
from ..config.data import TextConfig
from ..config.evals import VALIDATION
from ..config.options import option

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data.text.vocabulary import Vocabulary
    from ..engine.loop import Task
    from ..engine.recipe import Program
    from ..evaluators.examples import Examples
    from ..evaluators.stream import Stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig(TrainConfig):
    """What every language model's recipe has. A recipe's own `Config` adds its model."""

    EVALS = (VALIDATION,)

    data: TextConfig = option(factory=TextConfig)
    """The text."""
    eval_batches: int = 200
    """Batches that the validation loss is of, drawn from the held-out text, always the same; 0: every token of it once,
    in order.
    """
    prompt: str | None = option(None, first=True)
    """What samples begin with; by default the first token of the held-out text."""
    sample_tokens: int = 500
    """Tokens of each sample."""

    def __post_init__(self):
        super().__post_init__()
        require(self.eval_batches >= 0, f"eval_batches must be at least 0: got {self.eval_batches}")
        require(
            self.prompt != "",
            "prompt must be one or more characters: got ''; leave it out for the first of the held-out text",
        )
        require(self.sample_tokens >= 1, f"sample_tokens must be at least 1: got {self.sample_tokens}")


def main(recipe: str, config: LanguageConfig, context: int, make: Callable[[int], Callable[[Any], Any]]) -> int:
    """Trains, or says on paper what would be trained; gives the exit status. The arguments are those of `task`."""
    if not config.on_paper:
        from ..engine.loop import fit

        return fit(config, recipe, lambda: task(recipe, config, context, make))
    from ..engine.dryrun import dry_run

    return dry_run(config, program(context, make(vocab_on_paper(config))))


def program(context: int, make: Callable[[Any], Any]) -> "Program":
    """A language model and its loss: the mean cross-entropy in nats of each token of a window but the first.

    Args:
        context: a window is one token longer.
        make: makes the model from a key.
    """
    import jax
    import jax.numpy as jnp

    from ..engine.recipe import Context, Program, Sums

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, _: Context) -> Sums:
        ids = batch["ids"]
        losses = jax.vmap(lambda ids, key: jnp.sum(model.losses(ids[:-1], ids[1:], key=key)))(ids, keys)
        return Sums(batch["weight"] @ losses, jnp.sum(batch["weight"]) * context, {})

    return Program.of(make, loss, {"ids": ((context + 1,), "int32")})


def task(recipe: str, config: LanguageConfig, context: int, make: Callable[[int], Callable[[Any], Any]]) -> "Task":
    """The program with its text, samples and evaluation.

    Args:
        recipe: its name.
        context: tokens that the model sees in training.
        make: from the size of the vocabulary to what makes the model from a key.
    """
    import jax.random as jr
    import numpy as np

    from ..data import Part
    from ..data.text.corpus import load_text
    from ..engine.loop import Task
    from ..evaluators.held_out import validation
    from ..evaluators.stream import Stream
    from ..parallel.processes import is_first

    corpus = load_text(config.data, context)
    vocabulary = corpus.vocabulary
    prompt = corpus.held_out.windows(np.zeros(1, np.int64))[0, :1]
    if config.prompt is not None and vocabulary is not None:
        prompt = encode_prompt(vocabulary, config.prompt, "--prompt", context)

    def batch(part: Part) -> dict[str, np.ndarray]:
        return {"ids": corpus.train.windows(corpus.train.drawn(config.seed, part))}

    def show(model: Any, frozen: Any, stream: Stream, path: Path) -> None:
        if vocabulary is None:
            return
        ids = continued(model, prompt, config.sample_tokens, jr.key(config.seed), stream)
        if is_first():
            text = vocabulary.decode(np.concatenate([prompt, ids]))
            write_atomically(path.with_suffix(".txt"), lambda part: part.write_text(text, encoding="utf-8"))

    evaluators = (validation(held_out_windows(corpus.held_out, config.batch_size, config.eval_batches)),)
    facts = {"vocab": corpus.vocab, "vocabulary": None if vocabulary is None else vocabulary.sha256, "context": context}
    prepare = lambda folder: keep_vocabulary(folder, vocabulary)
    core = program(context, make(corpus.vocab))
    return Task(
        recipe,
        facts,
        core,
        corpus.train,
        batch,
        show,
        evaluators,
        prepare,
        tokens=context,
        fingerprint=corpus.fingerprint,
    )


def vocab_on_paper(config: LanguageConfig) -> int:
    """The size of the vocabulary without reading the text, where it can be told so: --data.vocab, or 256 bytes; else
    the text is read.
    """
    from ..data.text.corpus import load_text

    data = config.data
    if data.vocab is not None or data.tokenizer == "bytes":
        return data.vocab or 256
    return load_text(config.data, 1).vocab


def held_out_windows(tokens: Any, batch_size: int, batches: int) -> "Examples":
    """Windows of the held-out ids, `ids`, for `train.evaluators.held_out.validation`.

    Args:
        tokens: the held-out ids, a `train.data.text.tokens.Tokens`.
        batch_size: windows at a time.
        batches: number of batches, drawn with replacement and always the same; 0: each token once, in windows that
            follow one another.
    """
    import numpy as np

    from ..data import Part
    from ..evaluators.examples import Examples

    if batches:
        part = Part(0, np.arange(batches * batch_size, dtype=np.int32), np.zeros(batches * batch_size, np.int64))
        starts = tokens.drawn(0, part)
    else:
        starts = np.arange(len(tokens)) * tokens.context
    return Examples(len(starts), lambda numbers: {"ids": tokens.windows(starts[numbers])}, batch_size)


def continued(model: Any, prompt: Any, length: int, key: Any, stream: "Stream") -> Any:
    """So many ids that follow a prompt; the model may be in parts over the stream's mesh."""
    import numpy as np

    from eqxgen.decoding import autoregressive

    from ..parallel.decoder import decoder

    tokens, ids = autoregressive.stream(decoder(model, stream.mesh), [prompt], key=key), []
    for number in range(length):
        if number % 64 == 0:
            stream.check()
        ids.append(next(tokens)[0])
    return np.array(ids)


def keep_vocabulary(folder: Path, vocabulary: "Vocabulary | None") -> None:
    """Writes the vocabulary beside the run, unless it is there."""
    from ..data.text.vocabulary import NAME

    if vocabulary is not None and not (folder / NAME).exists():
        vocabulary.save(folder / NAME)


def vocabulary_of_run(folder: Path, facts: dict[str, Any]) -> "Vocabulary":
    """The vocabulary that a run was trained with.

    Raises:
        UserError: the run has none.
        DataError: its file is missing, damaged, or of another vocabulary than the model's.
    """
    from ..data.text.vocabulary import NAME
    from ..data.text.vocabulary_file import load_vocabulary

    if facts.get("vocabulary") is None:
        raise UserError(f"--run {folder}: was trained on ids without a vocabulary, so it can write no text")
    return load_vocabulary(folder / NAME, facts["vocabulary"])


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
