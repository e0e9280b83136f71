"""Recipes of class-conditional models of image tokens: data, facts, pictures, evaluation, samples."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UsageError, require
from ..config.evals import CLASSIFIER, FIDELITY, HELD_OUT, TRAINED_ON_SAMPLES
from ..config.options import option
from ..engine.recipes import Finished, Recipe, named
from . import images
from .facts import TokenFacts, image_facts
from .sampling import ImageSample, given, with_options

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Part
    from ..data.encoded import Encoded
    from ..engine.loop import Task
    from ..engine.recipe import Program
    from ..evaluators.base import Evaluator

Sampler = Callable[..., Any]
"""(model, label, key=) -> ids (tokens) of one image; a pytree, with its numbers as arrays."""

Numbers = Callable[[Any, float], dict[str, float]]

Offered = Callable[[Any, "Encoded", "tuple[Evaluator, ...]"], "tuple[Evaluator, ...]"]

VIEW = 7
"""Purpose of the draws of a second view, apart from those of every other augmentation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokensConfig(images.ImageConfig):
    """Flags of every recipe of image tokens. A recipe's own `Config` adds its model and its sampler's options."""

    EVALS = (HELD_OUT, CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES)

    tokenizer: str = option("pixels", first=True)
    """pixels, the folder of a finished train.vqgan run, or a published folder; by default that of the tokens that
    --data.name has prepared."""

    def __post_init__(self):
        super().__post_init__()
        require(
            not self.data.augment.beyond_flip,
            f"data.augment must change nothing but the side: got {self.data.augment}; the tokens of every image are "
            "made once, so of --data.augment this recipe takes flip alone",
        )


def tokens_recipe(
    name: str,
    title: str,
    config: type[TokensConfig],
    presets: Mapping[str, TokensConfig],
    model: Callable[[Any, TokenFacts], Any],
    loss: Callable[[Any, TokenFacts], Any],
    draw: Callable[[Any, TokenFacts], Sampler],
    *,
    options: str,
    numbers: Numbers = lambda config, progress: {},
    offered: Offered = lambda config, tokens, evaluators: evaluators,
    pairs: Callable[[Any], bool] = lambda config: False,
) -> Recipe:
    """A recipe of this kind.

    Args:
        model: (config, facts) -> what makes the model from a key.
        loss: (config, facts) -> `train.engine.recipe.Loss` of batches of `ids` and `label`.
        draw: (config, facts) -> sampler of one image's ids; a `ValueError` begins with the flag that is wrong.
        options: the config's field with the sampler's options.
        numbers: (config, progress) -> numbers of a training step that the loss takes beside the batch, the same names
            at every progress in [0, 1). Batches of held-out examples lack them.
        offered: (config, tokens of the images, evaluators of every such recipe) -> those of this one.
        pairs: (config) -> true where a batch has `other` beside `ids`: tokens of the same images, with a draw of
            --data.augment.flip of their own. Batches of held-out examples lack them.
    """

    def program(config: Any, facts: TokenFacts) -> "Program":
        from ..engine.recipe import Program

        shapes = {"ids": ((facts.tokens,), "int32"), "label": ((), "int32")}
        shapes |= dict.fromkeys(numbers(config, 0.0), ((), "float32"))
        shapes |= {"other": shapes["ids"]} if pairs(config) else {}
        return Program.of(model(config, facts), loss(config, facts), shapes)

    def task(config: Any, folder: Path) -> "Task":
        return _task(config, folder, program, functools.partial(_sampler, draw), numbers, offered)

    def sample(run: Finished, asked: Any) -> int:
        values = dataclasses.replace(getattr(run.config, options), **given(asked, kind))
        changed = dataclasses.replace(run.config, **{options: values})
        return _sample(run, asked, _sampler(draw, changed, run.facts, f"{options}."))

    kind = type(getattr(next(iter(presets.values())), options))
    return Recipe(
        name=name,
        title=title,
        config=config,
        presets=presets,
        facts=TokenFacts,
        on_paper=_on_paper,
        model=model,
        program=program,
        task=task,
        sample=with_options(ImageSample, kind, f"{options}."),
        draw=sample,
    )


def check_guidance(guidance: float, label_dropout: float, flag: str) -> None:
    """Raises `ValueError` where guidance is asked of a model whose training never hid a label."""
    trained = label_dropout > 0 or guidance == 1
    require(trained, f"{flag} must be 1 for a model trained with label_dropout=0: got {guidance}")


def _on_paper(config: TokensConfig) -> TokenFacts:
    """Facts without the data and the tokenizer, which is that of the vqgan preset in its folder's name."""
    from eqxgen.configs import VQGANConfig

    facts = image_facts(config.data)
    height, width, channels = facts.shape
    if config.tokenizer == "pixels":
        return TokenFacts(facts.shape, facts.classes, height * width * channels, facts.levels)
    presets = named("vqgan").presets
    name = Path(config.tokenizer).name.removeprefix("vqgan-")
    if name not in presets:
        sizes = VQGANConfig()
        places = (height // sizes.factor, width // sizes.factor)
        return TokenFacts(facts.shape, facts.classes, math.prod(places), sizes.codes)
    made = presets[name]
    return TokenFacts(facts.shape, facts.classes, math.prod(made.places(height, width)), made.sizes.codes)


def _sampler(draw: Callable[[Any, TokenFacts], Sampler], config: Any, facts: TokenFacts, prefix: str = "") -> Sampler:
    """The sampler; an option out of its range is a `UsageError` that names the flag, without the prefix."""
    try:
        return draw(config, facts)
    except ValueError as error:
        raise UsageError(f"--{str(error).removeprefix(prefix)}") from None


def _task(
    config: Any,
    folder: Path,
    program: Callable[[Any, TokenFacts], "Program"],
    draw: Callable[[Any, TokenFacts], Sampler],
    numbers: Numbers,
    offered: Offered,
) -> "Task":
    import jax.random as jr
    import numpy as np

    from ..data import uniforms
    from ..engine.loop import Task
    from ..evaluators.examples import Examples
    from ..evaluators.held_out import held_out
    from ..evaluators.judges import judges
    from ..evaluators.stream import Stream
    from ..parallel.processes import is_first
    from .draw import drawn, labelled
    from .encoded.token_data import opened
    from .tokenizers import COPY, keep_tokenizer
    from .usage import tokenizer_usage

    source = opened(config, folder)
    found, tokenizer, flip = source.tokens, source.tokenizer, config.data.augment.flip
    begins = source.where != "pixels" and not (folder / COPY).exists() and is_first()
    if begins and (hint := tokenizer_usage(source.where, tokenizer.codes)):
        print(hint)
    facts = TokenFacts(found.image_shape, found.num_classes, tokenizer.tokens, tokenizer.codes, found.sha256 or None)
    sampler, core = draw(config, facts), program(config, facts)
    tested = Examples.of(ids=found.test.astype(np.int32), label=found.test_labels)

    def batch(part: "Part") -> dict[str, np.ndarray]:
        def view(number: int) -> np.ndarray:
            side = uniforms(config.seed, part.step, part.index, 1, number)[:, 0] >= 0.5 if flip else None
            return found.rows(part.example, side).astype(np.int32)

        other = {"other": view(VIEW)} if "other" in core.shapes else {}
        given = numbers(config, part.step / config.steps)
        constants = {name: np.full(len(part.index), value, np.float32) for name, value in given.items()}
        return {"ids": view(0), "label": found.train_labels[part.example]} | constants | other

    def show(model: Any, frozen: Any, stream: Stream, path: Path) -> None:
        labels = np.repeat(np.arange(facts.classes)[:10], 8)
        tree = model, tokenizer, sampler, jr.key(config.seed)
        images.save(stream.gather(drawn, tree, labelled(labels)), found, 8, path)

    judged = labelled(np.arange(config.eval_samples) % facts.classes)
    parts = lambda model, frozen: (model, tokenizer, sampler, jr.key(config.seed + 1))
    evaluators = held_out(core.loss, tested), *judges(source.images, drawn, judged, parts, source.lacks)
    evaluators = offered(config, found, evaluators)
    prepare = functools.partial(keep_tokenizer, source.where, tokenizer)
    return Task(facts, core, found.copies[0], batch, show, evaluators, prepare, fingerprint=source.fingerprint)


def _sample(run: Finished, asked: ImageSample, draw: Sampler) -> int:
    import jax.random as jr

    from ..evaluators.stream import Stream
    from ..parallel import make_mesh
    from .draw import drawn, labelled
    from .tokenizers import tokenizer_of_run

    labels, mesh = images.labels_of(asked, run.facts.classes), make_mesh(asked.mesh)
    tokenizer = tokenizer_of_run(run.folder, run.config.tokenizer, run.facts)
    tree = run.model(mesh), tokenizer, draw, jr.key(asked.seed)
    return asked.save(Stream(mesh).map(drawn, tree, labelled(labels)), labels)
