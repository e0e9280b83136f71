"""Recipes of models of image tokens by a condition: data, facts, pictures, evaluation, samples."""

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
from .conditions import LABELS, Conditions
from .facts import TokenFacts, image_facts
from .sampling import Pictures, given, ranked, with_options

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from ..data import Part
    from ..data.encoded import Encoded
    from ..engine.recipe import Context, Program, Sums
    from ..engine.task import Task
    from ..evaluators.base import Evaluator

Sampler = Callable[..., Any]
"""(model, condition, key=) -> ids (tokens) of one image; a pytree, with its numbers as arrays."""

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
    conditions: Conditions = LABELS,
    fits: Callable[[Any, TokenFacts], None] = lambda config, facts: None,
) -> Recipe:
    """A recipe of this kind.

    Args:
        model: (config, facts) -> what makes the model from a key.
        loss: (config, facts) -> `train.engine.recipe.Loss` of batches of `ids` and the condition.
        draw: (config, facts) -> sampler of one image's ids; a `ValueError` begins with the flag that is wrong.
        options: the config's field with the sampler's options.
        numbers: (config, progress) -> numbers of a training step that the loss takes beside the batch, the same names
            at every progress in [0, 1). Batches of held-out examples lack them.
        offered: (config, tokens of the images, evaluators of every such recipe) -> those of this one.
        pairs: (config) -> true where a batch has `other` beside `ids`: tokens of the same images, with a draw of
            --data.augment.flip of their own. Batches of held-out examples lack them.
        conditions: what the images are of.
        fits: (config, facts of the tokens) raises `UsageError` for a tokenizer whose tokens the model cannot take.
    """

    def checked(config: Any, facts: TokenFacts) -> TokenFacts:
        fits(config, facts)
        return facts

    def program(config: Any, facts: TokenFacts, tokenizer: Any = None) -> "Program":
        from ..engine.recipe import Program

        shapes = {"ids": ((facts.tokens,), "int32"), conditions.name: (conditions.shape(facts), "int32")}
        shapes |= dict.fromkeys(numbers(config, 0.0), ((), "float32"))
        shapes |= {"other": shapes["ids"]} if pairs(config) else {}
        of_bound = loss(config, facts)

        def total(net: Any, batch: Any, keys: Any, context: "Context") -> "Sums":
            return of_bound(conditions.bound(net, context.frozen), batch, keys, context)

        frozen = lambda: conditions.frozen(config, facts, None, tokenizer)
        return Program.of(model(config, facts), total, shapes, frozen=frozen)

    def check(config: Any, prefix: str = "") -> None:
        guidance, dropout = getattr(config, options).guidance, getattr(config, conditions.dropout)
        trained = dropout > 0 or guidance == 1
        flag = f"{options}.guidance".removeprefix(prefix)
        if not trained:
            raise UsageError(f"--{flag} must be 1 for a model trained with {conditions.dropout}=0: got {guidance}")

    def task(config: Any, folder: Path) -> "Task":
        check(config)
        return _task(config, folder, conditions, program, functools.partial(_sampler, draw), numbers, offered, fits)

    def sample(run: Finished, asked: Any) -> int:
        values = dataclasses.replace(getattr(run.config, options), **given(asked, kind))
        if getattr(asked, "rerank", None):
            values = dataclasses.replace(values, candidates=asked.rerank)
        changed = dataclasses.replace(run.config, **{options: values})
        check(changed, f"{options}.")
        return _sample(run, asked, conditions, _sampler(draw, changed, run.facts, f"{options}."))

    kind = type(getattr(next(iter(presets.values())), options))
    ranks = "candidates" in {field.name for field in dataclasses.fields(kind)}
    form = ranked(conditions.sample) if ranks else conditions.sample
    return Recipe(
        name=name,
        title=title,
        config=config,
        presets=presets,
        facts=conditions.facts,
        on_paper=lambda config: conditions.on_paper(config, checked(config, _on_paper(config))),
        model=model,
        program=program,
        task=task,
        sample=with_options(form, kind, f"{options}."),
        draw=sample,
        options=options,
    )


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
    own = {"scales": made.scales, "code_dim": made.code.dim} if made.code.kind == "multiscale" else {}
    return TokenFacts(facts.shape, facts.classes, math.prod(made.places(height, width)), made.sizes.codes, **own)


def _sampler(draw: Callable[[Any, TokenFacts], Sampler], config: Any, facts: TokenFacts, prefix: str = "") -> Sampler:
    """The sampler; an option out of its range is a `UsageError` that names the flag, without the prefix."""
    try:
        return draw(config, facts)
    except ValueError as error:
        raise UsageError(f"--{str(error).removeprefix(prefix)}") from None


def _task(
    config: Any,
    folder: Path,
    conditions: Conditions,
    program: Callable[..., "Program"],
    draw: Callable[[Any, TokenFacts], Sampler],
    numbers: Numbers,
    offered: Offered,
    fits: Callable[[Any, TokenFacts], None],
) -> "Task":
    import jax.random as jr
    import numpy as np

    from ..data import uniforms
    from ..engine.task import Task
    from ..evaluators.examples import Examples
    from ..evaluators.held_out import held_out
    from ..evaluators.stream import Stream
    from ..parallel.processes import is_first
    from .encoded.token_data import opened
    from .tokenizers import COPY, keep_tokenizer, token_facts
    from .usage import tokenizer_usage

    source = opened(
        config,
        folder,
        functools.partial(conditions.read, config, folder) if conditions.read else None,
        lambda images, tokenizer: fits(config, token_facts(images, tokenizer)),
    )
    found, tokenizer, flip = source.tokens, source.tokenizer, config.data.augment.flip
    begins = source.where != "pixels" and not (folder / COPY).exists() and is_first()
    if begins and (hint := tokenizer_usage(source.where, tokenizer.codes)):
        print(hint)
    facts = dataclasses.replace(token_facts(found, tokenizer), tokenizer=found.sha256 or None)
    given = conditions.opened(config, source, facts)
    facts, name = given.facts, conditions.name
    sampler, core = draw(config, facts), program(config, facts, tokenizer)
    arrays: dict[str, Any] = {"ids": found.test.astype(np.int32), name: given.test}
    tested = Examples.of(**arrays)

    def batch(part: "Part") -> dict[str, np.ndarray]:
        def view(number: int) -> np.ndarray:
            side = uniforms(config.seed, part.step, part.index, 1, number)[:, 0] >= 0.5 if flip else None
            return found.rows(part.example, side).astype(np.int32)

        other = {"other": view(VIEW)} if "other" in core.shapes else {}
        values = numbers(config, part.step / config.steps)
        constants = {name: np.full(len(part.index), value, np.float32) for name, value in values.items()}
        return {"ids": view(0), name: given.train[part.example]} | constants | other

    def show(model: Any, frozen: Any, stream: Stream, path: Path) -> None:
        tree = conditions.bound(model, frozen), tokenizer, sampler, jr.key(config.seed)
        asked = Examples.of(250, **{name: given.shown})
        images.save(stream.gather(given.draw, tree, asked), found, 8, path)

    parts = lambda model, frozen: (conditions.bound(model, frozen), tokenizer, sampler, jr.key(config.seed + 1))
    evaluators = offered(config, found, (held_out(core.loss, tested), *given.evaluators(parts)))

    def prepare(folder: Path) -> None:
        keep_tokenizer(source.where, tokenizer, folder)
        given.prepare(folder)

    return Task(facts, core, found.copies[0], batch, show, evaluators, prepare, fingerprint=source.fingerprint)


def _sample(run: Finished, asked: Pictures, conditions: Conditions, sampler: Sampler) -> int:
    import jax.random as jr

    from ..evaluators.examples import Examples
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh
    from .tokenizers import tokenizer_of_run

    found, mesh = conditions.asked(run, asked), make_mesh(asked.mesh)
    tokenizer = tokenizer_of_run(run.folder, run.config.tokenizer, run.facts)
    tree = conditions.model_of(run, mesh, tokenizer), tokenizer, sampler, jr.key(asked.seed)
    arrays, draw = {conditions.name: found.rows}, found.draw
    if getattr(asked, "rerank", None):
        from .clip.ranking import ranking

        matcher, arrays["wanted"], draw = ranking(run, asked, conditions.name, found.labels, mesh)
        tree = tree, matcher
    return asked.save(Stream(mesh).map(draw, tree, Examples.of(250, **arrays)), found.labels)
