"""Recipes of language models: windows of a text, their loss, validation, texts."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UserError, require
from .._files import write_atomically
from ..config.base import TrainConfig
from ..config.data import TextConfig
from ..config.evals import VALIDATION
from ..config.options import option
from ..engine.recipes import Recipe
from .facts import CaptionFacts, PairFacts, TextFacts, TextPairFacts
from .texts import TextSample, encode_prompt, write_texts

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data.text.vocabulary import Vocabulary
    from ..engine.recipe import Program
    from ..engine.task import Task
    from ..evaluators.examples import Examples
    from ..evaluators.stream import Stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig(TrainConfig):
    """Flags of every recipe of language models. A recipe's own `Config` adds its model."""

    EVALS = (VALIDATION,)

    data: TextConfig = option(factory=TextConfig)
    """The text."""
    eval_batches: int = 200
    """Batches of the validation loss, drawn from the held-out text, always the same; 0: every token of it once, in
    order.
    """
    prompt: str | None = option(None, first=True)
    """Start of the samples; by default the first token of the held-out text."""
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


def language_recipe(
    name: str,
    title: str,
    config: type[LanguageConfig],
    presets: Mapping[str, LanguageConfig],
    model: Callable[[Any, TextFacts], Any],
    *,
    context: Callable[[Any], int],
    router: Callable[[Any], tuple[float, float] | None] = lambda _: None,
    recurrent: bool = False,
) -> Recipe:
    """A recipe of this kind, with the mean cross-entropy of the next token as its loss.

    Args:
        model: (config, facts) -> what makes the model from a key; see `eqxgen.protocols.TokenModel` and
            `eqxgen.protocols.LanguageModel`.
        context: config -> tokens of a window.
        router: config -> weights of the balance loss and the z-loss of a model with experts; None for one without.
        recurrent: the model reads a window from its start, so that `--mesh context` cannot split it.
    """
    make = lambda config, facts: _program(model(config, facts), facts.context, router(config), recurrent)
    return Recipe(
        name=name,
        title=title,
        config=config,
        presets=presets,
        facts=TextFacts,
        on_paper=lambda config: TextFacts(_vocab_on_paper(config), context(config)),
        model=model,
        program=make,
        task=lambda config, _: _task(config, context(config), make),
        sample=TextSample,
        draw=lambda run, asked: write_texts(run, vocabulary_of_run(run.folder, run.facts), asked),
    )


def _program(
    init: Callable[[Any], Any], context: int, router: tuple[float, float] | None, recurrent: bool
) -> "Program":
    """A language model and its loss: the mean cross-entropy in nats of each token of a window but the first.

    Args:
        init: makes the model from a key.
        context: tokens of a window, which has one more as the last target.
        router, recurrent: see `language_recipe`.
    """
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.tokens import next_token_losses, routed_losses

    from ..engine.recipe import Context, Program, Sums

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, asked: Context) -> Sums:
        ids, targets = asked.tokens(batch["ids"][:, :-1]), asked.tokens(batch["ids"][:, 1:])
        of = lambda ids, targets, key: jnp.sum(next_token_losses(model, ids, targets, key=key))
        losses = jax.vmap(of)(ids, targets, keys)
        return Sums(batch["weight"] @ losses, jnp.sum(batch["weight"]) * ids.shape[1], {})

    def loss_with_experts(model: Any, batch: dict[str, jax.Array], keys: jax.Array, asked: Context) -> Sums:
        ids, targets = asked.tokens(batch["ids"][:, :-1]), asked.tokens(batch["ids"][:, 1:])
        of = lambda ids, targets, key: routed_losses(model, ids, targets, key=key)
        losses, routing = jax.vmap(of)(ids, targets, keys)
        balance, normaliser = router or (0.0, 0.0)
        count, weight = ids.shape[1], batch["weight"]
        means = {name: jnp.mean(x, 1) for name, x in routing.items()}  # over blocks
        total = losses.sum(1) + count * (balance * means["balance_loss"] + normaliser * means["z_loss"])
        metrics = {name: count * (weight @ x) for name, x in means.items()} | {"token_loss": weight @ losses.sum(1)}
        return Sums(weight @ total, jnp.sum(weight) * count, metrics)

    shapes = {"ids": ((context + 1,), "int32")}
    return Program.of(init, loss_with_experts if router else loss, shapes, sequence=None if recurrent else context)


def _task(config: LanguageConfig, context: int, make: Callable[[Any, TextFacts], "Program"]) -> "Task":
    import jax.random as jr
    import numpy as np

    from ..data import Part
    from ..data.text.corpus import load_text
    from ..engine.task import Task
    from ..evaluators.held_out import validation
    from ..evaluators.stream import Stream
    from ..parallel.processes import is_first

    corpus = load_text(config.data, context)
    vocabulary = corpus.vocabulary
    facts = TextFacts(corpus.vocab, context, None if vocabulary is None else vocabulary.sha256)
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
    prepare = lambda folder: keep_vocabulary(folder, vocabulary)
    return Task(
        facts,
        make(config, facts),
        corpus.train,
        batch,
        show,
        evaluators,
        prepare,
        tokens=context,
        fingerprint=corpus.fingerprint,
    )


def _vocab_on_paper(config: LanguageConfig) -> int:
    """Size of the vocabulary without reading the text where it is known: --data.vocab, or 256 bytes."""
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
    """Writes the vocabulary into the run's folder, unless it is there."""
    from ..data.text.vocabulary import NAME

    if vocabulary is not None and not (folder / NAME).exists():
        vocabulary.save(folder / NAME)


def vocabulary_of_run(folder: Path, facts: TextFacts | CaptionFacts | PairFacts | TextPairFacts) -> "Vocabulary":
    """The vocabulary that a run was trained with.

    Raises:
        UserError: the run has none.
        DataError: its file is missing, damaged, or of another vocabulary than the model's.
    """
    from ..data.text.vocabulary import NAME
    from ..data.text.vocabulary_file import load_vocabulary

    if facts.vocabulary is None:
        raise UserError(f"--run {folder}: was trained on ids without a vocabulary, so it can write no text")
    return load_vocabulary(folder / NAME, facts.vocabulary)
