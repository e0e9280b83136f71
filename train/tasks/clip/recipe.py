"""The recipe of models that match images and texts: data, evaluation, pictures, samples. Imports nothing heavy."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._errors import UserError
from ...engine.recipes import Finished, Recipe
from .. import images
from ..facts import PairFacts, image_facts
from ..sampling import CaptionSample, at_most

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ...data import Part
    from ...engine.recipe import Program
    from ...engine.task import Task
    from ...evaluators.base import Evaluator
    from ...evaluators.stream import Stream
    from .words import Texts

SHOWN, ROW = 10, 8
"""Texts in the pictures while training, and the nearest held-out images of each."""
WORDING = 11
"""Purpose of the draws of a wording, apart from those of augmentation."""


def matching_recipe(
    config: Any,
    presets: Mapping[str, Any],
    model: Callable[[Any, PairFacts], Any],
    program: Callable[[Any, PairFacts], "Program"],
) -> Recipe:
    """The recipe `clip`; see `Recipe` for the arguments."""

    def task(config: Any, folder: Path) -> "Task":
        return _task(config, folder, program)

    return Recipe(
        name="clip",
        title="Image and text model",
        config=config,
        presets=presets,
        facts=PairFacts,
        on_paper=_on_paper,
        model=model,
        program=program,
        task=task,
        sample=CaptionSample,
        draw=_draw,
    )


def _on_paper(config: Any) -> PairFacts:
    """Facts with the vocabulary's size: of bytes and of bpe-SIZE by name, otherwise from the texts."""
    facts, name = image_facts(config.data), config.text_tokenizer
    if name == "bytes":
        vocab = 256
    elif name.startswith("bpe-") and name[4:].isdecimal():
        vocab = int(name[4:])
    else:
        from ...data import load
        from .words import read_texts

        return _facts(config, facts, read_texts(config, load(config.data, captions=config.captions == "data")))
    return PairFacts(facts.shape, facts.classes, facts.levels, vocab=vocab + 1, text=config.text.context, end=vocab)


def _facts(config: Any, facts: Any, texts: "Texts", sha256: str | None = None) -> PairFacts:
    from .published import PublishedTexts
    from .words import end_of

    shown, vocabulary = (facts.shape, facts.classes, facts.levels), texts.vocabulary
    size = vocabulary.size if isinstance(vocabulary, PublishedTexts) else vocabulary.size + 1
    return PairFacts(*shown, vocab=size, text=config.text.context, end=end_of(vocabulary), vocabulary=sha256)


def _task(config: Any, folder: Path, program: Callable[[Any, PairFacts], "Program"]) -> "Task":
    import numpy as np

    from ...data import uniforms
    from ...engine.task import Task
    from . import towers
    from .published import PublishedTexts
    from .words import read_texts

    source = images.pixels(config, folder, captions=config.captions == "data")
    dataset = source.given
    texts = read_texts(config, dataset)
    facts = _facts(config, source.facts, texts, texts.vocabulary.sha256)
    wordings = texts.rows.shape[1]

    def batch(part: "Part") -> dict[str, np.ndarray]:
        rows = texts.rows[texts.train[part.example]]
        drawn = uniforms(config.seed, part.step, part.index, 1, WORDING)[:, 0]
        row = rows[np.arange(len(rows)), (drawn * wordings).astype(int)]
        image = np.asarray(source.arrays(part)["image"])
        return {"image": image, "text": texts.ids[row], "group": texts.groups[row]}

    def show(model: Any, frozen: Any, stream: "Stream", path: Path) -> None:
        rows = texts.rows[:, 0] if config.captions == "classes" else np.unique(texts.rows[texts.test, 0])
        chosen = rows[np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(int)]
        scores = _scores(model, dataset, texts.ids[chosen], stream)
        images.save(_nearest(dataset, scores, ROW), dataset, ROW, path)

    def prepare(folder: Path) -> None:
        from ..language import keep_vocabulary

        kept = texts.vocabulary
        kept.save(folder) if isinstance(kept, PublishedTexts) else keep_vocabulary(folder, kept)

    return Task(
        facts,
        program(config, facts),
        source.examples,
        batch,
        show,
        _evaluators(config, dataset, texts),
        prepare,
        released=lambda net, state: towers.released(config, net),
        fingerprint=source.fingerprint,
    )


def _evaluators(config: Any, dataset: Any, texts: "Texts") -> "tuple[Evaluator, ...]":
    import numpy as np

    from ...evaluators.captions import SCENES
    from ...evaluators.examples import held_out_images, training_images
    from ...evaluators.matching import choices, retrieval, zero_shot
    from .towers import image_of, text_of
    from .words import encode_all, grammar

    held_out, of_classes = held_out_images(dataset), config.captions == "classes"
    prompts = texts.ids[texts.rows] if of_classes else None
    asked = np.unique(texts.rows[np.unique(texts.test)])
    twins = training_images(dataset) if dataset.name == "emoji64" else None
    scenes = not of_classes and dataset.name == SCENES
    candidates = grammar() if scenes else ()
    ids = encode_all(texts.vocabulary, candidates, config.text.context, dataset.name) if scenes else texts.ids[:0]
    captions = dataset.captioned().test if scenes else ()
    return (
        zero_shot(image_of, text_of, prompts, held_out),
        retrieval(image_of, text_of, held_out, texts.test_groups, texts.ids[asked], texts.groups[asked], twins),
        choices(scenes, image_of, text_of, held_out, captions, candidates, ids),
    )


def _scores(model: Any, dataset: Any, ids: Any, stream: "Stream") -> Any:
    """Cosines (texts, images) of texts and all held-out images."""
    from ...evaluators.examples import Examples, held_out_images
    from .towers import image_of, text_of

    pictures = stream.gather(image_of, model, held_out_images(dataset))
    return stream.gather(text_of, model, Examples.of(text=ids)) @ pictures.T


def _nearest(dataset: Any, scores: Any, count: int) -> Any:
    """The held-out images in [-1, 1] that are nearest to each text, those of the first text first."""
    import numpy as np

    from ...evaluators.examples import held_out_images

    first = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return held_out_images(dataset).read(first.reshape(-1))["image"]


def _draw(run: Finished, asked: CaptionSample) -> int:
    """The held-out images that are nearest to texts; a file's label is the number of its text."""
    import numpy as np

    from ...data import load
    from ...evaluators.stream import Stream
    from ...parallel import make_mesh
    from .opened import texts_of_run
    from .words import encode_query

    dataset = load(run.config.data)
    count = at_most("--n", asked.n, len(dataset.test_labels), "held-out images", usual=8)
    vocabulary = texts_of_run(run)
    ids = np.stack([encode_query(vocabulary, text, run.facts.text) for text in asked.text])
    stream = Stream(make_mesh(asked.mesh))
    scores = _scores(run.model(stream.mesh), dataset, ids, stream)
    if not np.isfinite(scores).all():
        raise UserError(f"--run {asked.run}: the model's features are not numbers: its weights are damaged")
    found = _nearest(dataset, scores, count)
    form = dataclasses.replace(asked, columns=asked.columns or count) if asked.as_grid else asked
    return form.save([found], np.repeat(np.arange(len(ids), dtype=np.int32), count))
