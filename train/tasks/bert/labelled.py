"""The recipe of labelled texts: a task's parts as rows, the loss of classes or grades, scores, guesses."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._files import write_json, write_text
from ...config.evals import DEV, TEST
from ...config.tasks import TASKS
from ...engine.recipes import Recipe
from ..facts import LabelFacts
from ..language import keep_vocabulary
from . import texts
from .asked import NAMES, LabelSample, label_texts

if TYPE_CHECKING:
    import numpy as np

    from ...data.tables.rows import Rows
    from ...engine.recipe import Program
    from ...engine.task import Task
    from ...evaluators.examples import Examples

SHOWN = 64
"""Texts of the development part whose guesses are written while training."""


def labelled_recipe(config: type, presets: Mapping[str, Any]) -> Recipe:
    """The recipe `glue`."""
    return Recipe(
        name="glue",
        title="Classifier of texts",
        config=config,
        presets=presets,
        facts=LabelFacts,
        on_paper=_on_paper,
        model=model,
        program=program,
        task=_task,
        sample=LabelSample,
        draw=label_texts,
    )


def model(config: Any, facts: LabelFacts) -> Any:
    """Initialiser of the model."""
    from eqxgen.models import BERTClassifier

    return lambda key: BERTClassifier(facts.vocab, facts.classes, config.model, key=key)


def _on_paper(config: Any) -> LabelFacts:
    from ...data.tables.tasks import load_task

    load = functools.cache(lambda: load_task(config.data, say=lambda line: None))
    vocab = texts.vocab_on_paper(config, lambda: load().train.texts)
    classes = TASKS[config.data.name].classes if config.data.name in TASKS else load().classes
    return LabelFacts(vocab, config.model.context, classes=max(1, len(classes)))


def program(config: Any, facts: LabelFacts) -> "Program":
    """The model, and the cross-entropy of classes with label smoothing, or the square of the error of grades."""
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.labels import smoothed_cross_entropy

    from ...engine.recipe import Context, Program, Sums
    from ...evaluators.scores import logits_of

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, _: Context) -> Sums:
        weight, labels = batch["weight"], batch["label"]
        arrays = {name: batch[name] for name in ("ids", "types", "length")}
        logits = jax.vmap(functools.partial(logits_of, model))(arrays, keys)
        if facts.classes == 1:
            return Sums(weight @ jnp.square(logits[:, 0] - labels), jnp.sum(weight), {})
        losses = smoothed_cross_entropy(logits, labels, config.label_smoothing)
        hits = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
        return Sums(weight @ losses, jnp.sum(weight), {"accuracy": weight @ hits})

    context = facts.context
    shapes = {"ids": ((context,), "int32"), "types": ((context,), "int32"), "length": ((), "int32")}
    shapes["label"] = ((), "float32" if facts.classes == 1 else "int32")
    # A model of masked words has neither a head of classes nor, as a rule, the projection before it.
    lacking = ("head", "bert.pooler")
    return Program.of(model(config, facts), loss, shapes, head=("head",), new_head=config.new_head, lacking=lacking)


def _task(config: Any, folder: Path) -> "Task":
    import numpy as np

    from ...data import Part
    from ...data.feed.draws import uniforms
    from ...data.files.lazy import fingerprint_of
    from ...data.tables.rows import dropped_words, rows_of
    from ...data.tables.tasks import load_task
    from ...engine.task import Task
    from ...evaluators.scores import scores
    from ...evaluators.stream import Stream
    from ...parallel.processes import is_first

    say = print if is_first() else lambda line: None
    task = load_task(config.data, say=say)
    texts.check_overlap(config, task, say)
    vocabulary = texts.vocabulary_for(config, folder, task.train.texts)
    context = config.model.context
    parts = {name: rows_of(vocabulary, getattr(task, name).texts, context) for name in ("train", "dev", "test")}
    for name, rows in parts.items():
        say(f"{task.name}, {name}: {_told(rows)}")
    train, dev, test = (_examples(parts[name], getattr(task, name).labels, config) for name in parts)
    facts = LabelFacts(vocabulary.size, context, vocabulary.sha256, classes=max(1, len(task.classes)))

    def batch(part: Part) -> dict[str, np.ndarray]:
        found = dict(train.read(part.example))
        if config.word_dropout:
            draws = uniforms(config.seed, part.step, part.index, context)
            found["ids"] = dropped_words(vocabulary, found["ids"], config.word_dropout, draws)
        return found

    def show(model: Any, frozen: Any, stream: Stream, path: Path) -> None:
        lines = _guesses(model, task.dev.texts, task.classes, dev.first(SHOWN), stream)
        if is_first():
            write_text(path.with_suffix(".tsv"), "\n".join([*lines, ""]))

    def prepare(folder: Path) -> None:
        keep_vocabulary(folder, vocabulary)
        write_json(folder / NAMES, list(task.classes))

    arrays = [array for name in parts for array in (*parts[name][:3], getattr(task, name).labels)]
    return Task(
        facts,
        program(config, facts),
        parts["train"].length,
        batch,
        show,
        (scores(dev, facts.classes, DEV), scores(test, facts.classes, TEST)),
        prepare,
        fingerprint=fingerprint_of(*arrays),
    )


def _examples(rows: "Rows", labels: "np.ndarray", config: Any) -> "Examples":
    from ...evaluators.examples import Examples

    return Examples.of(min(config.batch_size, 500), ids=rows.ids, types=rows.types, length=rows.length, label=labels)


def _told(rows: "Rows") -> str:
    mean, many = rows.length.mean(), f", {rows.cut:,} of them cut to the context" if rows.cut else ""
    return f"{len(rows.ids):,} texts of {mean:.1f} tokens on average{many}"


def _guesses(model: Any, given: Any, classes: Any, examples: Any, stream: Any) -> list[str]:
    """A table of texts with their labels and those that the model gives them."""
    import equinox as eqx
    import numpy as np

    from ...evaluators.scores import logits_of

    logits = stream.gather(logits_of, eqx.nn.inference_mode(model), examples)
    labels = examples.read(np.arange(examples.size))["label"]
    lines = ["label\tguess\ttext"]
    for text, label, row in zip(given, labels, logits):
        pair = (classes[label], classes[int(np.argmax(row))]) if classes else (f"{label:.3f}", f"{row[0]:.3f}")
        lines.append("\t".join([*pair, *text]))
    return lines
