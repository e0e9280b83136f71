"""The recipe of segmentation: crops of images and masks, pictures, evaluation. Imports nothing heavy."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._errors import require
from ..._files import write_json
from ...config.base import TrainConfig
from ...config.evals import SEGMENTATION
from ...config.known import KNOWN
from ...config.options import option
from ...config.pairs import PairConfig
from ...engine.recipes import Finished, Recipe
from ..facts import ImageFacts
from .asked import NAMES, SegmentSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ...data import Part
    from ...data.pairs.pairs import Pairs
    from ...engine.recipe import Program
    from ...engine.task import Task
    from ...evaluators.stream import Stream
    from ...evaluators.tiles import Tiling


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentConfig(TrainConfig):
    """Flags of a recipe of segmentation. A recipe's own `Config` adds its model, which has a `factor`."""

    EVALS = (SEGMENTATION,)

    data: PairConfig = option(factory=PairConfig, first=("name", "root", "classes", "crop"))
    """The images and masks."""
    tile: int = 256
    """Side of the tiles by which whole images are predicted, in pixels."""
    overlap: int = 64
    """Pixels that neighbouring tiles share."""
    model: Any = None
    """The net."""

    def __post_init__(self):
        super().__post_init__()
        factor = self.model.factor
        require(
            self.data.crop % factor == 0,
            f"data.crop must be a multiple of {factor}, as the net halves it {factor.bit_length() - 1} times: got "
            f"{self.data.crop}",
        )
        self.check_tiles(self.tile, self.overlap)

    def check_tiles(self, tile: int, overlap: int) -> None:
        """Raises `ValueError` where the net cannot take such tiles."""
        factor = self.model.factor
        require(
            tile >= 1 and tile % factor == 0,
            f"tile must be a multiple of {factor}, as the net halves it {factor.bit_length() - 1} times: got {tile}",
        )
        require(0 <= overlap < tile, f"overlap must be at least 0 and below tile, {tile}: got {overlap}")

    def tiling(self, tile: int | None = None, overlap: int | None = None) -> "Tiling":
        """The tiles, or others that `train.sample` is asked for.

        Raises:
            UsageError: the net cannot take them.
        """
        from ..._errors import UsageError
        from ...evaluators.tiles import Tiling

        chosen = tile or self.tile, self.overlap if overlap is None else overlap
        try:
            self.check_tiles(*chosen)
        except ValueError as error:
            raise UsageError(f"--{error}") from None
        return Tiling(*chosen)


def on_paper(config: SegmentConfig) -> ImageFacts:
    """Facts of a known set without reading it; of a path, those of colour images of as many classes as are listed, or
    two.
    """
    known, side = KNOWN.get(config.data.name), config.data.crop
    channels, classes = (3, 2) if known is None else (known.shape[2], len(known.masks))
    return ImageFacts((side, side, channels), len(config.data.classes) or classes)


def segment_recipe(
    config: type[SegmentConfig],
    presets: Mapping[str, Any],
    model: Callable[[Any, ImageFacts], Any],
    program: Callable[[Any, ImageFacts], "Program"],
) -> Recipe:
    """The recipe `segment`.

    Args:
        model: (config, facts) -> initialiser of the released model from a key, which maps an image in [-1, 1] to logits
            of each pixel.
        program: (config, facts) -> the model, its losses and players, of batches of `image`, in [-1, 1], and `label`,
            the class of each pixel.
    """

    def task(config: Any, folder: Path) -> "Task":
        from eqxgen.nn import WithState

        from ...data.pairs.sources import load_pairs
        from ...engine.task import Task
        from ...evaluators.segmentation import segmentation
        from ...parallel.processes import is_first

        pairs, tiling = load_pairs(config.data), config.tiling()
        facts = ImageFacts((config.data.crop, config.data.crop, pairs.channels), len(pairs.classes))

        def prepare(folder: Path) -> None:
            if is_first():
                write_json(folder / NAMES, [{"value": list(kind.value), "name": kind.name} for kind in pairs.classes])

        def show(model: Any, frozen: Any, stream: "Stream", path: Path) -> None:
            _show(model, pairs, tiling, stream, path)

        return Task(
            facts,
            program(config, facts),
            pairs.train.images,
            lambda part: crops(pairs, config, part),
            show,
            (segmentation(pairs, tiling),),
            prepare=prepare,
            released=lambda model, state: WithState(model, state),
            fingerprint=pairs.fingerprint,
        )

    return Recipe(
        name="segment",
        title="Segmentation",
        config=config,
        presets=presets,
        facts=ImageFacts,
        on_paper=on_paper,
        model=model,
        program=program,
        task=task,
        sample=SegmentSample,
        draw=_draw,
    )


def crops(pairs: "Pairs", config: Any, part: "Part") -> dict[str, Any]:
    """`image` and `label` of some places of a batch: a crop of an image and of its mask, by one transform each place.

    It is a function of the seed, the step and the place alone.
    """
    import numpy as np

    from ...data import uniforms
    from ...data.pairs import warp

    images, labels = [], []
    for draws, row in zip(uniforms(config.seed, part.step, part.index, warp.DRAWS), part.example):
        image, mask = pairs.train.images[row], pairs.train.masks[row]
        places = warp.drawn_places(mask.shape, config.data.crop, config.data.augment, draws)
        images.append(warp.linear(image, places))
        labels.append(warp.nearest(mask, places))
    return {"image": pairs.normalise(np.stack(images)), "label": np.stack(labels).astype(np.int32)}


def _show(model: Any, pairs: "Pairs", tiling: "Tiling", stream: "Stream", path: Path) -> None:
    """Writes a held-out image, its mask, the guess and its mistakes; of several processes the first writes."""
    from ...data import save_picture
    from ...parallel.processes import is_first
    from . import folder, pictures

    rows = folder.shown_of(model, pairs, tiling, stream, 2)
    if is_first():
        save_picture(path.with_suffix(".png"), pictures.sheet(rows), scale=1)


def _draw(run: Finished, asked: SegmentSample) -> int:
    from .folder import draw

    return draw(run, asked)
