"""Recipes of image tokenizers: data, facts, pictures of reconstructions, evaluation, samples."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.recipes import Finished, Recipe
from . import images
from .facts import ImageFacts, image_facts
from .sampling import ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Part
    from ..engine.loop import Task
    from ..engine.recipe import Program


def tokenizer_recipe(
    name: str,
    title: str,
    config: type[images.ImageConfig],
    presets: Mapping[str, images.ImageConfig],
    model: Callable[[Any, ImageFacts], Any],
    program: Callable[[Any, ImageFacts], "Program"],
    *,
    released: Callable[[Any, Any], Any],
) -> Recipe:
    """A recipe of this kind.

    Args:
        model: (config, facts) -> what makes the tokenizer from a key; see `train.tasks.tokenizers.Tokenizer`.
        program: (config, facts) -> the tokenizer, its losses and players, of batches of `image`.
        released: the tokenizer of the averaged model and the averaged model state.
    """
    return Recipe(
        name=name,
        title=title,
        config=config,
        presets=presets,
        facts=ImageFacts,
        on_paper=lambda config: image_facts(config.data),
        model=model,
        program=program,
        task=lambda config, _: _task(config, program, released),
        sample=ImageSample,
        draw=_sample,
    )


def _task(config: Any, program: Callable[[Any, ImageFacts], "Program"], released: Callable[[Any, Any], Any]) -> "Task":
    import jax.numpy as jnp
    import numpy as np

    from eqxgen.metrics import psnr
    from eqxgen.nn.quantize import count_codes, perplexity, usage

    from ..data import load
    from ..data.images.augment import Augment
    from ..engine.loop import Task
    from ..evaluators.classifier import judge_of
    from .tokenizers import reconstruct

    dataset = load(config.data).enough_for(config.batch_size)
    facts = images.facts_of(dataset)
    core = program(config, facts)
    augment = Augment.of(config.data.augment, config.seed, dataset)

    def batch(part: "Part") -> dict[str, np.ndarray]:
        return {"image": dataset.normalise(augment(dataset.train_images[part.example], part))}

    def show(model: Any, path: Path) -> None:
        originals = dataset.test_images[:40]
        fakes, _ = reconstruct(model, originals, dataset)
        images.show(images.rows_in_turn(dataset.normalise(originals), fakes, 10), dataset, 10, path)

    def evaluate(model: Any) -> dict[str, float]:
        fakes, ids = reconstruct(model, dataset.test_images, dataset)
        errors = np.mean((fakes - dataset.normalise(dataset.test_images)) ** 2, axis=(1, 2, 3), dtype=np.float64)
        counts = count_codes(jnp.asarray(ids), model.codes)
        return {
            "eval_loss": float(np.mean(errors)),
            "psnr": float(np.mean(psnr(jnp.asarray(errors)))),
            "codebook_usage": float(usage(counts)),
            "codebook_perplexity": float(perplexity(counts)),
            **judge_of(dataset).scores(fakes[:1000], dataset.test_labels[:1000], dataset),
        }

    return Task(
        facts,
        core,
        dataset.train_images,
        batch,
        show,
        evaluate,
        released=released,
        fingerprint=dataset.fingerprint,
    )


def _sample(run: Finished, asked: ImageSample) -> int:
    """Held-out images and their reconstructions, a row of each in turn."""
    from ..data import load
    from .tokenizers import reconstruct

    asked.check_label(run.facts.classes)
    tokenizer = run.model()
    dataset = load(run.config.data)
    of_label = slice(None) if asked.label is None else dataset.test_labels == asked.label
    count = max(asked.columns, asked.n // 2 // asked.columns * asked.columns)
    originals = dataset.test_images[of_label][:count]
    fakes, _ = reconstruct(tokenizer, originals, dataset)
    return asked.save(images.rows_in_turn(dataset.normalise(originals), fakes, asked.columns))
