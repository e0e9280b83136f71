"""Numbers of a model that matches images and texts: zero-shot classes, retrieval, and scenes chosen among captions."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from eqxgen.metrics import Accuracy, Mean, Recall

from ..config.evals import CHOICES, RETRIEVAL, ZERO_SHOT
from ..data.captioned.scenes import COLOURS, Scene, parse
from ..data.captioned.scenes import scenes as every_scene
from .base import Evaluator
from .captions import Read, matched, scene_codes
from .examples import Examples
from .stream import Function, Stream

BLOCK = 500
"""Queries that are ranked at a time."""
FIRST = (1, 5)


def zero_shot(
    image: Function, text: Function, prompts: Int[np.ndarray, "classes wordings length"] | None, examples: Examples
) -> Evaluator:
    """`zero_shot_accuracy`: held-out images whose class has the nearest feature, the mean of its prompts' features
    (Radford et al. 2021, section 3.1.4).

    Args:
        image, text: (model, example) -> unit feature of `image`, of `text`.
        prompts: ids; None: the data have no classes to name.
        examples: `image` and `label`.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        assert prompts is not None
        accuracy = Accuracy()
        tree = model, jnp.asarray(class_features(model, text, prompts, stream))
        for guesses, labels in stream.map(_Guess(image), tree, examples):
            accuracy = accuracy.update(guesses, labels)
        (accuracy,) = stream.total(accuracy)
        return {"zero_shot_accuracy": accuracy.result()}

    return Evaluator(ZERO_SHOT, run, "" if prompts is not None else "the texts are captions, and not names of classes")


def class_features(
    model: PyTree, text: Function, prompts: Int[np.ndarray, "classes wordings length"], stream: Stream
) -> Float[np.ndarray, "classes dim"]:
    """The mean of the unit features of each class's prompts, of length 1."""
    classes, wordings, length = prompts.shape
    found = stream.gather(text, model, Examples.of(text=prompts.reshape(-1, length)))
    mean = found.reshape(classes, wordings, -1).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


class _Guess(eqx.Module):
    image: Function = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array]:
        model, classes = tree
        scores = classes @ self.image(model, example)
        return jnp.where(jnp.isnan(scores).any(), -1, jnp.argmax(scores)), example["label"]


def retrieval(
    image: Function,
    text: Function,
    images: Examples,
    shown: Int[np.ndarray, " images"],
    texts: Int[np.ndarray, "texts length"],
    said: Int[np.ndarray, " texts"],
    twins: Examples | None = None,
) -> Evaluator:
    """`text_recall_1`, `text_recall_5`: held-out images with a text that says what they show among the first 1 and 5 of
    all different texts; `image_recall_1`, `image_recall_5`: texts with such an image among the first of all images;
    `twin_recall_1`, `twin_recall_5`: twins of which the held-out image is among the first.

    Args:
        image, text: (model, example) -> unit feature of `image`, of `text`.
        images: the held-out ones, `image`.
        shown: number of what each shows.
        texts: the different texts of the held-out images, as ids.
        said: number of what each says.
        twins: images of what the held-out ones show, in another style, row by row; None: there are none.
    """

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        own = stream.gather(image, model, images)
        words = stream.gather(text, model, Examples.of(text=texts))
        numbers = recalls("text", own, words, shown, said) | recalls("image", words, own, said, shown)
        if twins is not None:
            numbers |= recalls("twin", stream.gather(image, model, twins), own, shown, shown)
        return numbers

    return Evaluator(RETRIEVAL, run)


def recalls(
    name: str,
    queries: Float[np.ndarray, "queries dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    asked: Int[np.ndarray, " queries"],
    found: Int[np.ndarray, " gallery"],
) -> dict[str, float]:
    """Recall of queries in a gallery by cosine, a block of queries at a time; right is what has the same number."""
    recall = Recall.at(*FIRST)
    for start in range(0, len(queries), BLOCK):
        part = slice(start, start + BLOCK)
        recall = recall.update(queries[part] @ gallery.T, asked[part, None] == found[None, :])
    return {f"{name}_recall_{k}": value for k, value in recall.result().items()}


def choices(
    scenes: bool,
    image: Function,
    text: Function,
    images: Examples,
    captions: tuple[str, ...],
    candidates: tuple[str, ...],
    ids: Int[np.ndarray, "candidates length"],
) -> Evaluator:
    """Scenes of digits that the model chooses for held-out pictures among the captions of the whole grammar, compared
    with those of their own captions, cell by cell.

    `chosen_cells_seen`, `chosen_images_seen`: of pictures whose scenes are in training; `..._held_out`: of scenes that
    are not. See `train.evaluators.captions.Read` for the two. `cells_seen`, `cells_held_out`: cells with a digit whose
    digit and colour the model chooses right among all, the rest of the caption given.

    Args:
        scenes: whether the texts are captions of scenes of digits.
        image, text: (model, example) -> unit feature of `image`, of `text`.
        images: the held-out ones, `image`.
        captions: of these.
        candidates: a caption of each scene, in the order of `train.data.captioned.scenes.scenes`.
        ids: of the candidates.
    """
    if not scenes:
        none = lambda model, frozen, stream: {}
        return Evaluator(CHOICES, none, "the texts are not captions of the grammar of scenes of digits")

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        codes = np.stack([scene_codes(caption) for caption in candidates])
        wanted = np.stack([scene_codes(caption) for caption in captions])
        held_out = np.asarray([parse(caption).held_out for caption in captions])
        words = stream.gather(text, model, Examples.of(text=ids))
        pictures = stream.gather(image, model, images)
        chosen = np.concatenate([np.argmax(part @ words.T, axis=1) for part in np.array_split(pictures, 8)])
        numbers = {}
        for scenes, rows in {"seen": ~held_out, "held_out": held_out}.items():
            sums = matched(Read(Mean(), Mean()), codes[chosen[rows]], wanted[rows])
            numbers[f"chosen_cells_{scenes}"] = sums.cells.result()
            numbers[f"chosen_images_{scenes}"] = sums.images.result()
            numbers[f"cells_{scenes}"] = _cells(
                pictures[rows], words, [parse(captions[row]) for row in rows.nonzero()[0]]
            )
        return numbers

    return Evaluator(CHOICES, run)


def _cells(pictures: Float[np.ndarray, "n dim"], words: Float[np.ndarray, "scenes dim"], found: list[Scene]) -> float:
    """Share of the cells with a digit whose object is the nearest of all, in captions that differ in it alone."""
    places, mean = _places(), Mean()
    for picture, scene in zip(pictures, found):
        for number in range(len(scene.digits)):
            options = [other for other in with_others(scene, number) if other in places]
            scores = words[[places[other] for other in options]] @ picture
            best = np.sum(~(scores < scores[options.index(scene)])) == 1
            count = scene.count if scene.kind == "count" else 1
            mean = mean.update(np.asarray(float(best)), float(count))
    return mean.result()


@functools.cache
def _places() -> dict[Scene, int]:
    return {scene: place for place, scene in enumerate(every_scene())}


@functools.cache
def with_others(scene: Scene, number: int) -> tuple[Scene, ...]:
    """The scene with each digit of each colour in place of one of its objects, the scene itself included."""
    put = lambda values, value: (*values[:number], value, *values[number + 1 :])
    return tuple(
        dataclasses.replace(scene, digits=put(scene.digits, digit), colours=put(scene.colours, colour))
        for digit in range(10)
        for colour in COLOURS
    )
