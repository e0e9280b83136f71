"""Images of a denoiser that are guided to texts by a model of images and texts."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from eqxgen.diffusion.generate import generate
from eqxgen.diffusion.guidance import matching

from ..._errors import UsageError
from ...engine.recipes import Finished
from ...evaluators.examples import Examples
from ...evaluators.stream import Stream
from ...parallel import make_mesh
from ..denoised import NO_CLASS, condition_of, decoded
from .opened import matcher_of, texts_of_run
from .towers import text_of
from .words import encode_query


class Logit(eqx.Module):
    """Logit of what is denoised and the feature of a text.

    Args:
        parts: the tree of `train.tasks.denoised`, which makes the image.
        matcher: the model of images and texts.
    """

    parts: Any
    matcher: Any

    def __call__(self, x: Float[Array, "*shape"], target: Float[Array, " dim"]) -> Float[Array, ""]:
        feature = self.matcher.image_features(decoded(self.parts, x))
        return self.matcher.similarity(feature[None], target[None])[0, 0]


def guided(tree: Any, example: dict[str, Array]) -> tuple[Float[Array, "height width channels"], Int[Array, ""]]:
    """An image in [-1, 1] of a text, and the passes of the network.

    Args:
        tree: (the tree of `train.tasks.denoised`, the model of images and texts, scale of the guidance).
        example: `text`, and a `label` or `NO_CLASS`.
    """
    parts, matcher, scale = tree
    denoiser, _, rules, key = parts
    by_text = matching(denoiser, Logit(parts, matcher), text_of(matcher, example), scale)
    label, key = condition_of(denoiser, example["label"]), jr.fold_in(key, example["index"])
    found = generate(by_text, rules, label, null=denoiser.null_label, key=key)
    return decoded(parts, found.x), found.evaluations


def by_text(run: Finished, asked: Any, rules: Any, tree: Callable[[Any], Any]) -> int:
    """Writes the images that `train.sample --text --matcher` asks for; gives the exit status. A file's label is the
    number of its text.

    Raises:
        UsageError: the run is of few steps, the matcher is of other images, or the class is none of the run's.
        UserError: a text has characters that the matcher's vocabulary lacks, or is too long.
    """
    if run.config.objective != "denoise":
        raise UsageError(f"--text goes with a run of --objective denoise: got {run.config.objective}")
    if asked.label is not None and asked.label >= run.facts.classes:
        raise UsageError(f"--label must be in [0, {run.facts.classes}): got {asked.label}")
    matcher = matcher_of(asked.matcher, run.facts.shape)
    vocabulary, mesh = texts_of_run(matcher), make_mesh(asked.mesh)
    ids = np.stack([encode_query(vocabulary, text, matcher.facts.text) for text in asked.text])
    numbers = np.resize(np.arange(len(ids), dtype=np.int32), asked.count(len(ids)))
    labels = np.full(len(numbers), NO_CLASS if asked.label is None else asked.label, np.int32)
    scale = np.float32(1.0 if asked.match is None else asked.match)
    spent: list[Any] = []

    def batches() -> Iterator[Any]:
        parts = tree(rules), matcher.model(mesh), scale
        for made, evaluations in Stream(mesh).map(guided, parts, Examples.of(100, text=ids[numbers], label=labels)):
            spent.append(evaluations)
            yield made

    status = asked.save(batches(), numbers)
    print(f"{np.mean(np.concatenate(spent)):,.4g} evaluations of the network an image")
    return status
