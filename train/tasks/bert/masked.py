"""The recipe of masked words: rows of texts with dynamic masks, their loss and evaluation, filled gaps."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._files import write_text
from ...engine.recipes import Recipe
from ..facts import TextFacts
from ..language import keep_vocabulary
from . import texts
from .asked import GapSample, fill_gaps

if TYPE_CHECKING:
    from ...data.tables.rows import Rows
    from ...engine.recipe import Program
    from ...engine.task import Task

EVAL_SEED = 20181011
"""Seed of the masks of held-out texts, the same for every run."""
SHOWN = 16
"""Held-out texts whose gaps are filled while training."""


def masked_recipe(config: type, presets: Mapping[str, Any]) -> Recipe:
    """The recipe `bert`."""
    return Recipe(
        name="bert",
        title="BERT",
        config=config,
        presets=presets,
        facts=TextFacts,
        on_paper=_on_paper,
        model=model,
        program=program,
        task=_task,
        sample=GapSample,
        draw=fill_gaps,
    )


def model(config: Any, facts: TextFacts) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import BERTMaskedLM

    return lambda key: BERTMaskedLM(facts.vocab, config.model, key=key)


def _on_paper(config: Any) -> TextFacts:
    from ...data.tables.tasks import load_texts

    vocab = texts.vocab_on_paper(config, lambda: load_texts(config.data, say=lambda line: None)[0])
    return TextFacts(vocab, config.model.context)


def program(config: Any, facts: TextFacts) -> "Program":
    """The model, and the mean cross-entropy in nats of the chosen tokens."""
    import jax
    import jax.numpy as jnp

    from ...engine.recipe import Context, Program, Sums
    from ...evaluators.masked import gap_losses

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, _: Context) -> Sums:
        arrays = {name: array for name, array in batch.items() if name != "weight"}
        losses, hits = jax.vmap(functools.partial(gap_losses, model))(arrays, keys)
        weight = batch["weight"][:, None] * batch["chosen"]
        return Sums(jnp.sum(weight * losses), jnp.sum(weight), {"accuracy": jnp.sum(weight * hits)})

    context, most = facts.context, max(1, round(config.masked * (facts.context - 2)))
    shapes = {"ids": ((context,), "int32"), "types": ((context,), "int32"), "length": ((), "int32")}
    shapes |= {"places": ((most,), "int32"), "targets": ((most,), "int32"), "chosen": ((most,), "float32")}
    return Program.of(model(config, facts), loss, shapes)


def _task(config: Any, folder: Path) -> "Task":
    import numpy as np

    from ...data import Part
    from ...data.feed.draws import uniforms
    from ...data.files.lazy import fingerprint_of
    from ...data.tables.rows import Masking
    from ...data.tables.tasks import load_texts
    from ...engine.task import Task
    from ...evaluators.examples import Examples
    from ...evaluators.masked import masked
    from ...evaluators.stream import Stream
    from ...parallel.processes import is_first

    say = print if is_first() else lambda line: None
    train, dev = load_texts(config.data, say=say)
    vocabulary = texts.vocabulary_for(config, folder, train)
    context = config.model.context
    rows, held_out = (_rows(config, vocabulary, part) for part in (train, dev))
    say(f"{config.data.name}: {_told(rows, config.data.packed)}; held out: {_told(held_out, config.data.packed)}")
    rule = Masking(vocabulary, config.masked, config.whole_words)

    def batch(part: Part) -> dict[str, np.ndarray]:
        return rule.masked(rows.of(part.example), uniforms(config.seed, part.step, part.index, rule.draws(context)))

    numbers = np.arange(len(held_out.ids))
    draws = uniforms(EVAL_SEED, 0, numbers, rule.draws(context))
    judged = Examples.of(min(config.batch_size, 500), **rule.masked(held_out.of(numbers), draws))

    def show(model: Any, frozen: Any, stream: Stream, path: Path) -> None:
        lines = _shown(vocabulary, model, judged.first(SHOWN), stream)
        if is_first():
            write_text(path.with_suffix(".txt"), "\n".join([*lines, ""]))

    return Task(
        TextFacts(vocabulary.size, context, vocabulary.sha256),
        program(config, TextFacts(vocabulary.size, context)),
        rows.length,
        batch,
        show,
        (masked(judged),),
        lambda folder: keep_vocabulary(folder, vocabulary),
        tokens=context,
        fingerprint=fingerprint_of(*rows[:3], *held_out[:3]),
    )


def _rows(config: Any, vocabulary: Any, part: Any) -> "Rows":
    from ...data.tables.rows import packed_rows, rows_of

    return (packed_rows if config.data.packed else rows_of)(vocabulary, part, config.model.context)


def _told(rows: "Rows", packed: bool) -> str:
    filled = rows.length.sum() / rows.ids.size
    kind = "rows packed across lines" if packed else "rows of a text each"
    return f"{len(rows.ids):,} {kind}, {filled:.0%} of their places filled" + (
        f", {rows.cut:,} texts cut to the context" if rows.cut else ""
    )


def _shown(vocabulary: Any, model: Any, examples: Any, stream: Any) -> list[str]:
    """Texts with their gaps as `[right > guess]`, or `[right]` where the guess is right."""
    import numpy as np

    from ...evaluators.masked import guesses_of

    guesses = stream.gather(guesses_of, model, examples)
    batch, lines = examples.read(np.arange(examples.size)), []
    for number in range(examples.size):
        pieces = [vocabulary.pieces[id] for id in batch["ids"][number, : batch["length"][number]]]
        for place, target, chosen, guess in zip(*(batch[n][number] for n in _GAPS), guesses[number]):
            if chosen:
                right, found = vocabulary.pieces[target], vocabulary.pieces[guess]
                pieces[place] = f"[{right}]" if target == guess else f"[{right} > {found}]"
        lines.append(" ".join(pieces[1:-1]))
    return lines


_GAPS = ("places", "targets", "chosen")
