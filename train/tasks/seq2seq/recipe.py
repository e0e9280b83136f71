"""Recipes of models of a target text by a source."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._errors import require
from ..._files import write_atomically
from ...config.base import TrainConfig
from ...config.evals import ANSWERS, HELD_OUT, PHONEMES
from ...config.options import option
from ...config.text_pairs import TextPairConfig
from ...engine.recipes import Recipe
from ..facts import TextPairFacts
from ..language import keep_vocabulary
from .sample import PairSample, write_answers

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ...engine.recipe import Program
    from ...engine.task import Task
    from ...evaluators.stream import Stream

SHOWN = 12
"""Held-out sources in the samples while training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How evaluators and samples write a target."""

    beams: int = 1
    """Candidates of the search that evaluators and samples write by; 1 is greedy."""
    length_penalty: float = 0.0
    """Exponent of the length by which the search compares candidates: 0 compares log probabilities."""

    def __post_init__(self):
        require(1 <= self.beams <= 1024, f"beams must be between 1 and 1024: got {self.beams}")
        require(
            0 <= self.length_penalty < float("inf"),
            f"length_penalty must be at least 0 and finite: got {self.length_penalty}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig(Search, TrainConfig):
    """Flags of every recipe of pairs. A recipe's own `Config` adds its model."""

    EVALS = (HELD_OUT, PHONEMES, ANSWERS)

    data: TextPairConfig = option(factory=TextPairConfig, first=())
    """The pairs, or the text with hidden spans."""
    z_loss: float = 0.0
    """Weight of the squared log of each softmax's sum, which keeps logits small; T5's is 0.0001."""
    eval_samples: int = 1000
    """Held-out sources that the evaluators write a target of; all, where there are fewer."""

    def __post_init__(self):
        TrainConfig.__post_init__(self)
        Search.__post_init__(self)
        require(0 <= self.z_loss < float("inf"), f"z_loss must be at least 0 and finite: got {self.z_loss}")
        require(self.eval_samples >= 2, f"eval_samples must be at least 2: got {self.eval_samples}")


def pairs_recipe(
    name: str,
    title: str,
    config: type[PairsConfig],
    presets: Mapping[str, PairsConfig],
    model: Callable[[Any, TextPairFacts], Any],
) -> Recipe:
    """A recipe of this kind.

    Args:
        model: (config, facts) -> what makes the model from a key: a call `(source, target, mask=, key=)` that gives
            logits, and `conditioned(source, mask=)` that gives a `eqxgen.protocols.LanguageModel`.
    """
    make = lambda config, facts: _program(config, facts, model(config, facts))
    return Recipe(
        name=name,
        title=title,
        config=config,
        presets=presets,
        facts=TextPairFacts,
        on_paper=_on_paper,
        model=model,
        program=make,
        task=lambda config, _: _task(config, make),
        sample=PairSample,
        draw=write_answers,
        options=Search,
    )


def _on_paper(config: PairsConfig) -> TextPairFacts:
    from .data import span_lengths, vocab_on_paper

    data, vocab = config.data, vocab_on_paper(config)
    if data.spans:
        spans = span_lengths(data)
        return TextPairFacts(vocab, spans.source, spans.target)
    return TextPairFacts(vocab, data.source_length, data.target_length)


def _program(config: PairsConfig, facts: TextPairFacts, init: Callable[[Any], Any]) -> "Program":
    """A model and its loss: the mean cross-entropy in nats of each token of a target with its end. Padding, 0, is left
    out, and begins the decoder's input.
    """
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.tokens import cross_entropy

    from ...engine.recipe import Context, Program, Sums

    def one(model: Any, source: jax.Array, target: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
        given = jnp.concatenate([jnp.zeros(1, target.dtype), target[:-1]])
        logits = model(source, given, mask=source != 0, key=key)
        total = lambda values: jnp.sum(jnp.where(target != 0, values, 0.0))
        right = jnp.argmax(logits, axis=-1) == target
        large = jax.nn.logsumexp(logits, axis=-1) ** 2
        return total(cross_entropy(logits, target)), total(large), total(right * 1.0), jnp.sum(target != 0)

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, _: Context) -> Sums:
        found = jax.vmap(functools.partial(one, model))(batch["source"], batch["target"], keys)
        nats, large, right, tokens = (batch["weight"] @ values for values in found)
        more = {"cross_entropy": nats} if config.z_loss else {}
        return Sums(nats + config.z_loss * large, tokens, {"token_accuracy": right, **more})

    shapes = {"source": ((facts.source,), "int32"), "target": ((facts.target,), "int32")}
    return Program.of(init, loss, shapes)


def _task(config: PairsConfig, make: Callable[[Any, TextPairFacts], "Program"]) -> "Task":
    from ...engine.task import Task
    from ...evaluators.answers import Written, answers, phonemes, text_of_ids
    from ...evaluators.held_out import held_out
    from ...parallel.processes import is_first
    from .data import read

    found = read(config)
    program = make(config, found.facts)
    written = Written(config.model.context - 1, config.beams, config.length_penalty)  # pyright: ignore[reportAttributeAccessIssue]

    def show(model: Any, frozen: Any, stream: "Stream", path: Path) -> None:
        import equinox as eqx
        import numpy as np

        _, rows = stream.gather(written, eqx.nn.inference_mode(model), found.held_out.first(SHOWN))
        sources = found.held_out.first(SHOWN).read(np.arange(min(SHOWN, found.held_out.size)))["source"]
        texts = [f"{found.vocabulary.decode(a)}\t{text_of_ids(found.vocabulary, b)}\n" for a, b in zip(sources, rows)]
        if is_first():
            write_atomically(path.with_suffix(".tsv"), lambda part: part.write_text("".join(texts), encoding="utf-8"))

    asked = found.asked, found.vocabulary, written
    judged = found.held_out.first(config.eval_samples)
    none = "spans of a text have no answers" if config.data.spans else ""
    spoken = none or ("" if config.data.name == "cmudict" else f"{config.data.name} has no phonemes")
    other = none or ("" if spoken else "cmudict has phonemes in place of words")
    evaluators = (
        held_out(program.loss, found.held_out),
        dataclasses.replace(phonemes(judged, *asked), lacks=spoken),
        dataclasses.replace(answers(judged, *asked), lacks=other),
    )
    return Task(
        found.facts,
        program,
        found.source,
        found.batch,
        show,
        evaluators,
        lambda folder: keep_vocabulary(folder, found.vocabulary),
        tokens=found.facts.source + found.facts.target,
        fingerprint=found.fingerprint,
    )
