"""Images of a model of tokens, of which the one that is nearest to its text is kept."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from ...engine.recipes import Finished
from ..classify.folder import class_names
from .opened import matcher_of, texts_of_run
from .towers import unit
from .words import captions_of, encode_query


class Nearness(eqx.Module):
    """Cosine of the image of some tokens and a text, as a scorer of `eqxgen.decoding.images.generate`.

    Args:
        tokenizer: decodes the tokens.
        matcher: the model of images and texts.
        target: unit feature of the text.
    """

    tokenizer: Any
    matcher: Any
    target: Float[Array, " dim"]

    def __call__(self, ids: Int[Array, " tokens"], condition: Any) -> Float[Array, ""]:
        image = self.tokenizer.decode(jnp.maximum(ids, 0))
        return jnp.dot(unit(self.matcher.image_features(image)), self.target)


class Best(eqx.Module):
    """An image in [-1, 1], as `train.tasks.draw.drawn`: the best of the sampler's candidates.

    The tree is (that of `drawn`, the model of images and texts); an example has the condition and `wanted`, a text of
    that model.
    """

    condition: str = eqx.field(static=True)

    def __call__(self, tree: Any, example: dict[str, Array]) -> Float[Array, "height width channels"]:
        (model, tokenizer, sampler, key), matcher = tree
        target = unit(matcher.text_features(example["wanted"]))
        scorer = Nearness(tokenizer, matcher, target)
        ids = sampler(model, example[self.condition], scorer=scorer, key=jr.fold_in(key, example["index"]))
        return jnp.where((ids < 0).any(), jnp.nan, tokenizer.decode(jnp.maximum(ids, 0)))


def ranking(
    run: Finished, asked: Any, condition: str, labels: Int[np.ndarray, " n"], mesh: Mesh
) -> tuple[Any, Int[np.ndarray, "n length"], Callable]:
    """The model of images and texts that `--matcher` names, its text of each image, and what draws the best.

    Args:
        condition: name of the model's condition in an example.
        labels: of the images: numbers of the texts, or classes.

    Raises:
        UsageError: the matcher is of other images.
        UserError: a text has characters that the matcher's vocabulary lacks, or is too long.
    """
    matcher = matcher_of(asked.matcher, run.facts.shape)
    vocabulary = texts_of_run(matcher)
    texts = getattr(asked, "text", None)
    if texts is None:
        texts = [captions_of(matcher.config.templates, name)[0] for name in class_names(run)]
    flag = "--text" if hasattr(asked, "text") else "--matcher"
    ids = {number: encode_query(vocabulary, texts[number], matcher.facts.text, flag) for number in set(labels.tolist())}
    return matcher.model(mesh), np.stack([ids[number] for number in labels.tolist()]), Best(condition)
