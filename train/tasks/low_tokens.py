"""Low-resolution tokens beside the texts of captioned images: the conditions of a second stage."""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UserError
from .captions import TEXTS, Texts, captioned_facts, given_texts, read_texts, texts_asked
from .conditions import Asked, Given
from .facts import CaptionFacts, TokenFacts
from .sampling import CaptionSample

if TYPE_CHECKING:
    import numpy as np

    from ..data import Dataset
    from ..engine.recipes import Finished
    from .encoded.token_data import Source
    from .tokenizers import Tokenizer

COPY = "low_tokenizer.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedSample(CaptionSample):
    """Images of texts, of a first stage or of a second."""

    low: str | None = None
    """Folder of the first stage's run, of a second stage."""


def _on_paper(config: Any, facts: TokenFacts) -> CaptionFacts:
    found = TEXTS.on_paper(config, facts)
    if config.low_tokenizer is None:
        return found
    from ..engine.recipes import named
    from .facts import image_facts

    presets, name = named("vqgan").presets, Path(config.low_tokenizer).name.removeprefix("vqgan-")
    if name not in presets:
        raise UserError(
            f"--low-tokenizer {config.low_tokenizer}: must be runs/vqgan-PRESET on paper, PRESET one of "
            f"{', '.join(presets)}"
        )
    made = presets[name]
    rows, columns = made.places(*image_facts(made.data).shape[:2])
    return dataclasses.replace(found, low_tokens=rows * columns, low_codes=made.sizes.codes)


def _read(config: Any, folder: Path, dataset: "Dataset") -> Texts:
    """The texts, after the low-resolution tokenizer was compared with the images: before any token is made."""
    if config.low_tokenizer is not None:
        open_low(config.low_tokenizer, folder, dataset)
    return read_texts(config, folder, dataset)


def _opened(config: Any, source: "Source", facts: TokenFacts) -> Given:
    if config.low_tokenizer is None:
        return TEXTS.opened(config, source, facts)
    import numpy as np

    from ..run.weights import digest

    texts, dataset = source.texts, source.images
    assert dataset is not None  # prepared tokens have no captions
    tokenizer = open_low(config.low_tokenizer, source.folder, dataset)
    rows = (
        np.concatenate([row, low], axis=1)
        for row, low in zip((texts.train, texts.test), _tokens(config, tokenizer, dataset), strict=True)
    )
    found = dataclasses.replace(
        captioned_facts(config, source, facts),
        low_tokens=tokenizer.tokens,
        low_codes=tokenizer.codes,
        low_tokenizer=digest(tokenizer),
    )
    given = given_texts(config, source, found, Texts(texts.vocabulary, *rows))

    def prepare(folder: Path) -> None:
        given.prepare(folder)
        _keep(config.low_tokenizer, Path(folder))

    return given._replace(prepare=prepare)


def open_low(where: str, folder: Path, dataset: "Dataset") -> "Tokenizer":
    """The tokenizer that `--low-tokenizer` names; a run that has begun uses its own copy.

    Raises:
        UserError: there is none, it is damaged, or its images are not the data's made smaller by a whole number.
    """
    from .tokenizers import load_tokenizer

    flag, kept = f"--low-tokenizer {where}", folder / COPY
    found = load_tokenizer(kept if kept.exists() else Path(where).expanduser(), flag)
    (*sides, channels), (*smaller, low_channels) = dataset.image_shape, found.image_shape
    factors = {side // low for side, low in zip(sides, smaller, strict=True) if low <= side and side % low == 0}
    whole = len(factors) == 1 and all(side == low * min(factors) for side, low in zip(sides, smaller, strict=True))
    if not whole or channels != low_channels:
        raise UserError(
            f"{flag}: is for images of {found.image_shape} (height, width, channels), and those of {dataset.name} are "
            f"{dataset.image_shape}: give one of the same images, or of these made smaller by a whole number"
        )
    return found


def shrunk(image: Any, rows: int, columns: int) -> Any:
    """An image of fewer pixels, each the mean of an area."""
    import jax.numpy as jnp

    height, width, channels = image.shape
    return jnp.mean(image.reshape(rows, height // rows, columns, width // columns, channels), axis=(1, 3))


def low_ids(tokenizer: Any, example: Any) -> Any:
    """The low-resolution tokens of an example's image."""
    return tokenizer.encode(shrunk(example["image"], *tokenizer.image_shape[:2]))


def _tokens(config: Any, tokenizer: Any, dataset: "Dataset") -> "tuple[np.ndarray, np.ndarray]":
    import numpy as np

    from ..evaluators.stream import Stream
    from ..parallel import make_mesh
    from .tokenizers import examples

    stream = Stream(make_mesh(config.mesh))
    ids = lambda images: np.asarray(stream.gather(low_ids, tokenizer, examples(dataset, images)), np.int32)
    return ids(dataset.train_images), ids(dataset.test_images)


def _keep(where: str, folder: Path) -> None:
    from .._files import write_atomically
    from .tokenizers import run_file

    if not (folder / COPY).exists():
        write_atomically(folder / COPY, lambda part: shutil.copyfile(run_file(Path(where).expanduser()), part))


def _asked(run: "Finished", asked: StagedSample) -> Asked:
    found = texts_asked(run, asked)
    if not run.facts.low_tokens:
        if asked.low is not None:
            raise UserError(f"--low {asked.low}: goes with the run of a second stage: {run.folder} is a first stage")
        return found
    import numpy as np

    low = _drawn_below(run, asked, found)
    return found._replace(rows=np.concatenate([found.rows, low], axis=1))


def _drawn_below(run: "Finished", asked: StagedSample, found: Asked) -> "np.ndarray":
    """Tokens that the first stage draws of the same texts, with the options of its own run."""
    import jax.random as jr
    import numpy as np

    from ..evaluators.examples import Examples
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh
    from .draw import ids_by_text
    from .masked import draw_masked

    first, mesh = _first_stage(run, asked.low), make_mesh(asked.mesh)
    tree = TEXTS.model_of(first, mesh, None), draw_masked(first.config, first.facts), jr.fold_in(jr.key(asked.seed), 1)
    rows = texts_asked(first, asked).rows
    ids = np.asarray(Stream(mesh).gather(ids_by_text, tree, Examples.of(250, text=rows)))
    if (ids < 0).any():
        raise UserError(f"--low {asked.low}: the logits of its model are NaN")
    return ids.astype(np.int32)


def _first_stage(run: "Finished", where: str | None) -> "Finished":
    """The run of the first stage.

    Raises:
        UserError: there is none, or its tokens are not those that the second stage was trained on.
    """
    from .._files import read_json
    from ..engine.recipes import recipe_of

    if where is None:
        raise UserError(f"--low must be the run of a first stage: {run.folder} is a second stage")
    path = Path(where) / "config.json"
    record = read_json(path)
    recipe = recipe_of(record, path)
    if recipe.name != run.recipe.name:
        raise UserError(f"--low {where}: must be a run of train.{run.recipe.name}: got one of train.{recipe.name}")
    first = recipe.open(Path(where), record, path)
    if first.facts.low_tokens:
        raise UserError(f"--low {where}: must be a first stage: got a second stage")
    if first.facts.tokenizer != run.facts.low_tokenizer:
        raise UserError(
            f"--low {where}: must have the tokens that {run.folder} was trained on, of its --low-tokenizer: got those "
            "of another tokenizer"
        )
    return first


STAGES = dataclasses.replace(
    TEXTS,
    sample=StagedSample,
    on_paper=_on_paper,
    read=_read,
    shape=lambda facts: (facts.text + facts.low_tokens,),
    opened=_opened,
    asked=_asked,
)
"""Texts, and in a second stage the low-resolution tokens after each."""
