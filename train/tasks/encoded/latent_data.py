"""Training data of models of images and of latents: pixels, latents made in the step, prepared latents."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._errors import UsageError
from .. import images
from ..facts import LatentFacts, image_facts
from .latents import facts_of_prepared, facts_on_the_fly

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ...data import Dataset, Part
    from ...data.encoded import Encoded
    from ...evaluators.examples import Examples


class Judged(NamedTuple):
    """What a model is shown and judged by.

    Attributes:
        facts: of the data.
        held_out: examples of a batch.
        images: the real images; None where prepared latents have lost them.
        lacks: the reason for that.
    """

    facts: LatentFacts
    held_out: "Examples"
    images: "Dataset | None"
    lacks: str = ""

    def denormalise(self, pictures: Any) -> Any:
        """Images in [-1, 1] for a screen."""
        from ...data.images.grid import to_uint8

        return to_uint8(pictures)


def opened(config: Any, folder: Path) -> images.Source:
    """The training data of a config with `autoencoder`, and its facts.

    Raises:
        DataError: they cannot be read.
        UserError: the images do not fit the autoencoder, or a run in the folder was begun on other latents.
    """
    from ...data.encoded import LATENTS, is_encoded, read_encoded
    from ...evaluators.examples import held_out_images

    if is_encoded(config.data, LATENTS):
        if config.autoencoder_scale is not None:
            raise UsageError(
                f"--autoencoder-scale {config.autoencoder_scale}: the prepared latents of {config.data.name} have "
                "statistics of their own: leave it out"
            )
        return _prepared(config, folder, read_encoded(config.data, LATENTS).check(config.data, config.batch_size))
    source = images.pixels(config, folder)
    plain, dataset = source.facts, source.given
    facts = LatentFacts(plain.shape, plain.classes, plain.levels)
    if config.autoencoder:
        facts = facts_on_the_fly(config.autoencoder, config.autoencoder_scale, plain, folder)
    return source._replace(facts=facts, given=Judged(facts, held_out_images(dataset), dataset))


def _prepared(config: Any, folder: Path, found: "Encoded") -> images.Source:
    import numpy as np

    from ...data import uniforms
    from ...data.encoded import halves
    from ...evaluators.examples import Examples

    facts = facts_of_prepared(found, folder, config.data.name)
    mean, deviation = halves(found.test)
    held_out = Examples.of(mean=mean, deviation=deviation, label=found.test_labels)

    def arrays(part: "Part") -> dict[str, np.ndarray]:
        flip = config.data.augment.flip
        mirrored = uniforms(config.seed, part.step, part.index, 1)[:, 0] < 0.5 if flip else None
        mean, deviation = halves(found.rows(part.example, mirrored))
        return {"mean": mean, "deviation": deviation, "label": found.train_labels[part.example]}

    given = Judged(facts, held_out, *found.images_or_reason(config.data.root))
    return images.Source(given, facts, found.copies[0], arrays, found.fingerprint)


def on_paper(config: Any) -> LatentFacts:
    """The facts without the data, as far as flags, tables and the index of prepared latents tell."""
    from ...data.encoded import LATENTS, is_encoded, read_encoded

    if is_encoded(config.data, LATENTS):
        return facts_of_prepared(read_encoded(config.data, LATENTS), None, config.data.name)
    plain = image_facts(config.data)
    return LatentFacts(plain.shape, plain.classes, plain.levels)
