"""Conditions of image tokens: what a run's images are of, in its batches, its pictures and its flags. Imports nothing
heavy.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..engine.recipes import Finished
from . import images
from .facts import TokenFacts
from .sampling import ImageSample

if TYPE_CHECKING:
    import numpy as np
    from jax.sharding import Mesh

    from ..data import Dataset
    from ..evaluators.base import Evaluator
    from ..evaluators.stream import Function
    from .encoded.token_data import Source


class Given(NamedTuple):
    """Conditions of a run's data.

    Attributes:
        facts: of the data, with what they add.
        train, test: of every example.
        shown: of the pictures while training, 8 a row.
        draw: (tree, example) -> image, see `train.tasks.draw`.
        evaluators: of (released model, frozen parts) -> the tree.
        prepare: called with the run's folder before the first step.
    """

    facts: Any
    train: "np.ndarray"
    test: "np.ndarray"
    shown: "np.ndarray"
    draw: "Function"
    evaluators: Callable[[Callable[[Any, Any], Any]], "tuple[Evaluator, ...]"]
    prepare: Callable[[Any], None] = lambda folder: None


class Asked(NamedTuple):
    """Conditions of the images that `train.sample` is asked for.

    Attributes:
        rows: of every image.
        labels: in the names of single files.
        draw: see `Given`.
    """

    rows: "np.ndarray"
    labels: "np.ndarray"
    draw: "Function"


@dataclasses.dataclass(frozen=True)
class Conditions:
    """A kind of conditions.

    Attributes:
        name: of the array in a batch.
        dropout: the config's share of the examples whose condition training hides.
        facts: type of the facts.
        sample: flags of `train.sample`.
        on_paper: (config, facts of the tokens) -> facts without the data.
        shape: of one condition.
        opened: (config, source, facts of the tokens) -> the conditions of the data.
        asked: those of `train.sample`.
        read: (config, folder of the run, data set) -> `Source.texts`, of captioned images; None for images without
            captions.
        frozen: (config, facts, mesh, by default the config's, the image tokenizer, None on paper) -> a part that the
            model is given and that is not trained, or None.
        bound: (model, that part) -> the model with it.
    """

    name: str
    dropout: str
    facts: type
    sample: type
    on_paper: Callable[[Any, TokenFacts], Any]
    shape: Callable[[Any], tuple[int, ...]]
    opened: Callable[[Any, "Source", TokenFacts], Given]
    asked: Callable[[Finished, Any], Asked]
    read: "Callable[[Any, Path, Dataset], Any] | None" = None
    frozen: "Callable[[Any, Any, Mesh | None, Any], Any]" = lambda config, facts, mesh, tokenizer: None
    bound: Callable[[Any, Any], Any] = lambda model, frozen: model

    def model_of(self, run: Finished, mesh: "Mesh", tokenizer: Any) -> Any:
        """The model of a run with its frozen part, in parts over a mesh.

        Args:
            tokenizer: of the run's images.
        """
        from ..parallel import place

        return self.bound(run.model(mesh), place(self.frozen(run.config, run.facts, mesh, tokenizer), mesh))


def _labels(config: Any, source: "Source", facts: TokenFacts) -> Given:
    import numpy as np

    from ..evaluators.judges import judges
    from .draw import drawn, labelled

    judged = labelled(np.arange(config.eval_samples) % facts.classes)
    return Given(
        facts,
        source.tokens.train_labels,
        source.tokens.test_labels,
        np.repeat(np.arange(facts.classes, dtype=np.int32)[:10], 8),
        drawn,
        lambda parts: judges(source.images, drawn, judged, parts, source.lacks),
    )


def _labels_asked(run: Finished, asked: ImageSample) -> Asked:
    from .draw import drawn

    labels = images.labels_of(asked, run.facts.classes)
    return Asked(labels, labels, drawn)


LABELS = Conditions(
    name="label",
    dropout="label_dropout",
    facts=TokenFacts,
    sample=ImageSample,
    on_paper=lambda config, facts: facts,
    shape=lambda facts: (),
    opened=_labels,
    asked=_labels_asked,
)
