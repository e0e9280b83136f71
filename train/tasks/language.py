"""Recipes of language models: windows of a text, their loss, validation, texts."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UserError, require
from .._files import write_atomically
from ..config.base import TrainConfig
from ..config.data import TextConfig
from ..config.options import option
from ..engine.recipes import Recipe
from .facts import TextFacts
from .texts import TextSample, encode_prompt, write_texts

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data.text.vocabulary import Vocabulary
    from ..engine.loop import Task
    from ..engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig(TrainConfig):
    """Flags of every recipe of language models. A recipe's own `Config` adds its model."""

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
) -> Recipe:
    """A recipe of this kind, with the mean cross-entropy of the next token as its loss.

    Args:
        model: (config, facts) -> what makes the model from a key; see `eqxgen.losses.tokens.TokenModel` and
            `eqxgen.decoding.memory.LanguageModel`.
        context: config -> tokens of a window.
    """
    make = lambda config, facts: _program(model(config, facts), facts.context)
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


def _program(init: Callable[[Any], Any], context: int) -> "Program":
    """A language model and its loss: the mean cross-entropy in nats of each token of a window but the first.

    Args:
        init: makes the model from a key.
        context: tokens of a window, which has one more as the last target.
    """
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.tokens import next_token_losses

    from ..engine.recipe import Context, Program, Sums

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, _: Context) -> Sums:
        ids = batch["ids"]
        losses = jax.vmap(lambda ids, key: jnp.sum(next_token_losses(model, ids[:-1], ids[1:], key=key)))(ids, keys)
        return Sums(batch["weight"] @ losses, jnp.sum(batch["weight"]) * context, {})

    return Program.of(init, loss, {"ids": ((context + 1,), "int32")})


def _task(config: LanguageConfig, context: int, make: Callable[[Any, TextFacts], "Program"]) -> "Task":
    import jax.random as jr
    import numpy as np

    from eqxgen.decoding.autoregressive import generate

    from ..data import Part
    from ..data.text.corpus import load_text
    from ..engine.loop import Task

    corpus = load_text(config.data, context)
    vocabulary = corpus.vocabulary
    facts = TextFacts(corpus.vocab, context, None if vocabulary is None else vocabulary.sha256)
    prompt = corpus.held_out.windows(np.zeros(1, np.int64))[0, :1]
    if config.prompt is not None and vocabulary is not None:
        prompt = encode_prompt(vocabulary, config.prompt, "--prompt", context)

    def batch(part: Part) -> dict[str, np.ndarray]:
        return {"ids": corpus.train.windows(corpus.train.drawn(config.seed, part))}

    def evaluate(model: Any) -> dict[str, float]:
        loss = validation_loss(model, corpus.held_out, config.batch_size, config.eval_batches)
        return {"val_loss": loss, "val_perplexity": float(np.exp(loss))}

    def show(model: Any, path: Path) -> None:
        if vocabulary is None:
            return
        ids = generate(model, [prompt], config.sample_tokens, key=jr.key(config.seed))[0]
        text = vocabulary.decode(np.concatenate([prompt, ids]))
        write_atomically(path.with_suffix(".txt"), lambda part: part.write_text(text, encoding="utf-8"))

    prepare = lambda folder: keep_vocabulary(folder, vocabulary)
    return Task(
        facts,
        make(config, facts),
        corpus.train,
        batch,
        show,
        evaluate,
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


def validation_loss(model: Any, tokens: Any, batch_size: int, batches: int) -> float:
    """Mean cross-entropy in nats over held-out windows, without dropout.

    Args:
        model: an `eqxgen.losses.tokens.TokenModel`.
        tokens: the held-out ids, a `train.data.text.tokens.Tokens`.
        batch_size: windows at a time.
        batches: number of batches, drawn with replacement and always the same; 0: each token once, in consecutive
            windows.
    """
    import equinox as eqx
    import numpy as np

    from eqxgen.losses.tokens import next_token_losses

    from ..data import Part
    from ..evaluators.batched import batched

    losses = eqx.Partial(next_token_losses, eqx.nn.inference_mode(model))
    if batches:
        part = Part(0, np.arange(batches * batch_size, dtype=np.int32), np.zeros(batches * batch_size, np.int64))
        starts = tokens.drawn(0, part)
    else:
        starts = np.arange(len(tokens)) * tokens.context
    found = [
        batched(losses, windows[:, :-1], windows[:, 1:], batch_size=batch_size)
        for windows in (tokens.windows(starts[i : i + 64 * batch_size]) for i in range(0, len(starts), 64 * batch_size))
    ]
    return float(np.mean(np.concatenate(found), dtype=np.float64))


def keep_vocabulary(folder: Path, vocabulary: "Vocabulary | None") -> None:
    """Writes the vocabulary into the run's folder, unless it is there."""
    from ..data.text.vocabulary import NAME

    if vocabulary is not None and not (folder / NAME).exists():
        vocabulary.save(folder / NAME)


def vocabulary_of_run(folder: Path, facts: TextFacts) -> "Vocabulary":
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
