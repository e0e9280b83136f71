"""Pictures of captions, read cell by cell: the digit and colour of each cell of a scene of digits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from eqxgen.metrics import Mean

from ..config.data import DataConfig
from ..config.evals import CAPTIONS
from ..data import Dataset, load
from ..data.captioned.canvases import CELL, RGB
from ..data.captioned.scenes import COLOURS, SIDE, parse
from .base import Evaluator
from .examples import Examples
from .judge import judge_of
from .stream import Function, Stream

DARK = 0.1
"""Mean brightness below which a cell is empty; a digit's is 0.16 or more."""
FINE = 0.12
"""Share of a picture's energy below the blocks of 3x3 pixels that a large digit consists of, up to which it is one; of
other scenes it is 0.21 or more.
"""
LARGE = 1 + 10 * len(COLOURS)
"""Difference between the code of a large digit and that of a small one."""
SCENES = "captioned_digits"
Digit = Callable[[Float[Array, "8 8 1"]], Int[Array, ""]]
"""The digit of a picture in [-1, 1]."""


class Read(NamedTuple):
    """Sums over pictures.

    Attributes:
        cells: share of the right cells among those that have a digit in the caption or in the picture.
        images: share of the pictures without a wrong cell.
    """

    cells: Mean
    images: Mean


def captions(
    dataset: Dataset,
    draw: Function,
    texts: Int[np.ndarray, "n text"],
    count: int,
    parts: Callable[[PyTree, Any], PyTree] = lambda model, _: model,
) -> Evaluator:
    """Exact match of pictures of held-out captions with the captions, read by the judge of digits.

    `caption_cells_seen`, `caption_images_seen`: of captions whose scenes are in training; `..._held_out`: of scenes
    that are not; `..._real`: of the held-out pictures themselves, the reader's own accuracy. See `Read` for the two.

    Args:
        dataset: the captioned images.
        draw: (parts, example with `text`) -> image in [-1, 1].
        texts: ids of the held-out captions.
        count: pictures to draw, half of them of scenes that are in training.
        parts: (released model, frozen parts) -> the models and keys that `draw` needs; by default the model.
    """
    if dataset.name != SCENES:
        none = lambda model, frozen, stream: {}
        return Evaluator(CAPTIONS, none, f"the captions of {dataset.name} are not of the grammar of scenes of digits")
    found = dataset.captioned().test
    held_out = np.asarray([parse(caption).held_out for caption in found])
    half = -(-count // 2)
    rows = {name: np.flatnonzero(held_out == side)[:half] for name, side in {"seen": False, "held_out": True}.items()}
    wanted = np.stack([scene_codes(caption) for caption in found])

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        judge = judge_of(load(DataConfig("digits")), stream).model
        tree, numbers = (parts(model, frozen), judge), {}
        for name, chosen in rows.items():
            asked = Examples.of(250, text=texts[chosen], wanted=wanted[chosen])
            numbers |= _numbers(name, stream, _Reading(draw), tree, asked)
        real = np.concatenate([*rows.values()])
        images = Examples.of(250, image=dataset.normalise(dataset.test_images[real]), wanted=wanted[real])
        return numbers | _numbers("real", stream, _Reading(_image), tree, images)

    return Evaluator(CAPTIONS, run)


def scene_codes(caption: str) -> Int[np.ndarray, " cells"]:
    """What `read` finds in a picture of the caption: for each cell 0 where it is empty, otherwise 1 + colour + 5 digit;
    of a large digit that and `LARGE` everywhere.

    Raises:
        ValueError: the caption is none of the grammar.
    """
    scene, codes = parse(caption), np.zeros((SIDE, SIDE), np.int32)
    for place, (digit, colour) in scene.cells.items():
        codes[place] = 1 + len(COLOURS) * digit + COLOURS.index(colour)
    return np.full(SIDE**2, LARGE + codes.max(), np.int32) if scene.large else codes.reshape(-1)


def read(digit: Digit, image: Float[Array, "side _side 3"]) -> Int[Array, " cells"]:
    """Codes of the cells of a picture in [-1, 1]; see `scene_codes`."""
    light = (image + 1) / 2
    coarse = jnp.mean(light.reshape(CELL, SIDE, CELL, SIDE, 3), axis=(1, 3))
    fine = light - coarse.repeat(SIDE, 0).repeat(SIDE, 1)
    large = jnp.sum(fine**2) < FINE * jnp.sum(light**2)
    cells = light.reshape(SIDE, CELL, SIDE, CELL, 3).swapaxes(1, 2).reshape(SIDE**2, CELL, CELL, 3)
    codes = [_code(digit, patch) for patch in cells]
    return jnp.where(large, LARGE + _code(digit, coarse), jnp.stack(codes))


def _code(digit: Digit, patch: Float[Array, "side _side 3"]) -> Int[Array, ""]:
    hues = jnp.asarray([RGB[colour] for colour in COLOURS], jnp.float32) / 255
    grey = jnp.max(patch, axis=-1)
    mean = jnp.sum(patch * grey[..., None], axis=(0, 1))
    mean = mean / jnp.maximum(jnp.max(mean), 1e-6)
    distance = jnp.sum((hues / jnp.max(hues, axis=-1, keepdims=True) - mean[None]) ** 2, axis=-1)
    colour = jnp.argmin(distance)
    number = digit(2 * grey[..., None] / jnp.max(hues[colour]) - 1)
    return jnp.where(jnp.mean(grey) > DARK, 1 + len(COLOURS) * number + colour, 0)


class _Reading(eqx.Module):
    draw: Function = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array]:
        parts, judge = tree
        digit = lambda patch: jnp.argmax(judge.head(judge.features(patch)))
        return read(digit, self.draw(parts, example)), example["wanted"]


def _image(tree: PyTree, example: dict[str, Array]) -> Array:
    return example["image"]


def _numbers(name: str, stream: Stream, reading: _Reading, tree: PyTree, examples: Examples) -> dict[str, float]:
    sums = Read(Mean(), Mean())
    for codes, wanted in stream.map(reading, tree, examples):
        sums = matched(sums, codes, wanted)
    cells, images = stream.total(*sums)
    return {f"caption_cells_{name}": cells.result(), f"caption_images_{name}": images.result()}


def matched(sums: Read, codes: Int[np.ndarray, "n cells"], wanted: Int[np.ndarray, "n cells"]) -> Read:
    """The sums with some pictures added."""
    right, counted = codes == wanted, (codes > 0) | (wanted > 0)
    return Read(sums.cells.update(right, counted), sums.images.update(right.all(axis=1)))
