"""Objectives of models of few steps: MeanFlow and its improved form, shortcut, consistency. See
`eqxgen.diffusion.few_step`.

The network is computed in float32 whatever the precision of the run: the derivative in time of MeanFlow loses its
digits in bfloat16.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.configs.diffusion import AVERAGED

from ..._errors import UsageError, UserError, require
from ..encoded.latents import example_shapes, latents_of
from ..facts import ImageFacts
from .loss import Example, prepared

if TYPE_CHECKING:
    import jax

    from ...engine.recipe import Context, Loss, Sums

MEANFLOWS = AVERAGED[:2]
CONSISTENCY = ("consistency",)
READERS: dict[str, tuple[str, ...]] = {
    **{f"loss.{name}": ("denoise",) for name in ("weight", "gamma", "floor", "distance", "delta", "variance")},
    **{f"loss.{name}": ("denoise", *MEANFLOWS) for name in ("times", "stratified")},
    **{f"loss.{name}": ("denoise", *MEANFLOWS, *CONSISTENCY) for name in ("mean", "std")},
    **{f"few_step.{name}": MEANFLOWS for name in ("power", "least")},
    **{f"few_step.{name}": AVERAGED for name in ("equal", "mix", "interval")},
    **{f"few_step.{name}": ("shortcut",) for name in ("shortest", "target_decay")},
    **{f"few_step.{name}": CONSISTENCY for name in ("first", "last")},
    "few_step.guidance": (*AVERAGED, *CONSISTENCY),
    "teacher": CONSISTENCY,
}
"""Objectives that read a field."""


def unread_by(objective: str) -> Mapping[str, str]:
    """Fields that an objective leaves unread, with the flag that would read them."""
    return {name: f"--objective {readers[0]}" for name, readers in READERS.items() if objective not in readers}


def check(config: Any) -> None:
    """Checks a config of `train.diffusion`: network, denoiser and sampler of its objective.

    Raises:
        ValueError: they do not fit.
    """
    objective, prediction, rules = config.objective, config.denoiser.prediction, config.few_step
    wanted = "average" if objective in AVERAGED else "edm" if objective == "consistency" else prediction
    fits = prediction == wanted and (prediction == "average") == (objective in AVERAGED)
    another = f"another than {prediction}" if prediction == wanted else wanted
    require(fits, f"denoiser.prediction must be {another} with objective {objective}: got {prediction}")
    _check_network(config)
    require(
        objective == "denoise" or not config.non_leaking,
        f"non_leaking must be 0 with objective {objective}: got {config.non_leaking}",
    )
    require(
        not (config.teacher and config.autoencoder),
        "teacher goes without autoencoder: a model of latents is not distilled",
    )
    require(
        rules.guidance == 1 or config.conditional,
        f"few_step.guidance must be 1 for a model without classes: got {rules.guidance}",
    )
    require(
        objective != "consistency" or rules.guidance == 1 or config.teacher != "",
        f"few_step.guidance must be 1 with objective consistency without a teacher, whose guidance it is: got "
        f"{rules.guidance}",
    )
    _check_sampling(config)


def _check_network(config: Any) -> None:
    name, sizes = config.backbone, getattr(config, config.backbone)
    times, wanted = getattr(sizes, "times", 1), 2 if config.objective in AVERAGED else 1
    hint = "; dit and unet have two" if not hasattr(sizes, "times") else ""
    require(
        times == wanted, f"{name}.times must be {wanted} with objective {config.objective}: got {times} of {name}{hint}"
    )
    require(
        not getattr(sizes, "guide", False) or config.few_step.guidance > 1,
        f"few_step.guidance must be above 1 with dit.guide, as its largest scale: got {config.few_step.guidance}",
    )


def _check_sampling(config: Any) -> None:
    options, objective = config.sampling, config.objective
    sampler, known = options.sampler, config.denoiser.prediction == "average"
    require(
        sampler != "average" or known,
        f"sampling.sampler average must have a model of average velocities: got objective {objective}",
    )
    require(
        (sampler == "consistency") == (objective == "consistency"),
        f"sampling.sampler must be consistency with objective consistency alone: got {sampler} with {objective}",
    )
    guided = getattr(getattr(config, config.backbone), "guide", False)
    require(
        not guided or options.guidance_rule == "cfg",
        f"sampling.guidance_rule must be cfg with dit.guide, which is given the scale: got {options.guidance_rule}",
    )
    if sampler not in ("average", "consistency"):
        return
    require(
        options.guidance == 1 or guided,
        f"sampling.guidance must be 1 with sampler {sampler}, as it is trained: got {options.guidance}",
    )
    most = config.few_step.guidance if guided else 1
    require(
        not guided or 1 <= options.guidance <= most,
        f"sampling.guidance must be in [1, {most:g}], as trained: got {options.guidance}",
    )
    for name in ("rescale", "channels"):
        value = getattr(options, name)
        require(value == 0, f"sampling.{name} must be 0 with sampler {sampler}: got {value}")
    require(
        sampler != "average" or options.grid == "flow",
        f"sampling.grid must be flow with sampler average: got {options.grid}",
    )
    steps, shortest = options.steps, config.few_step.shortest
    require(
        objective != "shortcut" or (steps <= shortest and steps & (steps - 1) == 0),
        f"sampling.steps must be a power of two up to few_step.shortest={shortest} with sampler average: got {steps}",
    )


def few_step(config: Any, facts: ImageFacts, *, last: bool = False) -> "Loss":
    """Loss of {"denoiser": ...} of a batch by the objective; the model state is shortcut's average of the denoiser.

    Args:
        last: with the levels of consistency at the end of training, rather than of the step.
    """
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.diffusion.times import uniforms

    from ...engine.recipe import Sums

    stratified = config.loss.stratified and config.objective != "shortcut"
    one_of = _consistency if config.objective == "consistency" else _averaged
    latents, names = latents_of(config.autoencoder, facts), example_shapes(facts)

    def total(model: dict[str, Any], batch: dict[str, "jax.Array"], keys: "jax.Array", context: "Context") -> "Sums":
        denoiser = _wide(model["denoiser"])
        columns = [jax.vmap(lambda key, i=i: jr.fold_in(key, i))(keys) for i in (7, 8, 9)]
        strata = {"places": batch["index"], "size": config.batch_size}
        u = jnp.stack([uniforms(column, stratified and i == 0, **strata) for i, column in enumerate(columns)])
        one, (t, r) = one_of(config, denoiser, u, context, last)

        def found(example: dict[str, "jax.Array"], t: "jax.Array", r: "jax.Array", key: "jax.Array") -> Any:
            return one(prepared(config, denoiser.null_label, latents, example, context.frozen, key), t, r)

        loss, error = jax.vmap(found)({name: batch[name] for name in names}, t, r, keys)
        weight = batch["weight"]
        return Sums(weight @ loss, jnp.sum(weight), {"error": weight @ error}, _moved(config, model, context))

    return total


def _averaged(config: Any, denoiser: Any, u: "jax.Array", context: "Context", last: bool) -> Any:
    """(example, t, r) -> loss and mean squared error of the velocity or of consistency, and the times."""
    import jax.numpy as jnp

    from eqxgen.diffusion.few_step import meanflow, pairs, shortcut

    rules = config.few_step
    average = denoiser.average
    teacher = _target(denoiser, context.state)
    loss_of = {"meanflow": meanflow.meanflow_loss, "improved_meanflow": meanflow.improved_meanflow_loss}

    def one(example: Example, t: "jax.Array", r: "jax.Array") -> Any:
        x0, _, noise, key = example
        condition, velocity = _guided(config, denoiser, example, t)
        more = {"noise": noise, "velocity": velocity, "key": key}
        if config.objective == "shortcut":
            more |= {"teacher": teacher, "shortest": 1 / rules.shortest}
            error = shortcut.shortcut_loss(average, x0, t, r, condition, **more)
            return error, error
        error = loss_of[config.objective](average, x0, t, r, condition, power=0.0, **more)
        return meanflow.adaptive(error, rules.power, rules.least), error / jnp.size(x0)

    if config.objective == "shortcut":
        return one, pairs.shortcut_times(u, rules.shortest, rules.equal)
    return one, pairs.meanflow_times(u, config.loss, rules.equal)


def _guided(config: Any, denoiser: Any, example: Example, t: "jax.Array") -> tuple[Any, Any]:
    """The condition, with guidance of a network that is given it, and the guided velocity; None without guidance."""
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.diffusion.few_step.meanflow import guided_velocity
    from eqxgen.diffusion.precondition import WithGuide

    x0, condition, noise, key = example
    rules, null = config.few_step, denoiser.null_label
    if rules.guidance == 1:
        return condition, None
    scale, mix = rules.guidance, rules.mix
    low, high = rules.span or (0.0, 1.0)
    given = condition
    if denoiser.guided:
        u = jr.uniform(jr.fold_in(key, 1), (3,))
        scale, low, high = jnp.exp(u[0] * jnp.log(scale)), u[1] / 2, (1 + u[2]) / 2
        mix, given = 1 - 1 / scale, WithGuide(condition, scale, jnp.stack([low, high]))
    velocity, z = noise - x0, (1 - t) * x0 + t * noise
    found = guided_velocity(denoiser.average, z, t, velocity, given, null, scale=scale, mix=mix, key=key)
    inside = (condition != null) & (low <= t) & (t <= high)
    return given, jnp.where(inside, found, velocity)


def _consistency(config: Any, denoiser: Any, u: "jax.Array", context: "Context", last: bool) -> Any:
    """(example, t, s) -> loss, and distance of the two denoised examples, and the times."""
    from eqxgen.diffusion.few_step import pairs
    from eqxgen.diffusion.few_step.consistency import consistency_loss
    from eqxgen.diffusion.guidance import cfg

    rules, sizes = config.few_step, config.loss
    fixed = last or bool(config.teacher)
    levels = rules.last if fixed else pairs.levels_at(context.step, config.steps, rules.first, rules.last)
    teacher = context.frozen if config.teacher else None
    if teacher is not None and rules.guidance != 1:
        teacher = cfg(teacher, denoiser.null_label, rules.guidance)

    def one(example: Example, t: "jax.Array", s: "jax.Array") -> Any:
        x0, condition, noise, key = example
        loss = consistency_loss(denoiser, x0, t, s, condition, noise=noise, teacher=teacher, key=key)
        return loss, loss * (t - s)

    high = config.denoiser.schedule.sigma_max
    return one, pairs.consistency_times(u[0], levels, high=high, mean=sizes.mean, std=sizes.std)


def target(config: Any, model: Any) -> Any:
    """The model state: parameters of the average that gives shortcut's target, or None."""
    import equinox as eqx

    wanted = config.objective == "shortcut" and config.few_step.target_decay > 0
    return eqx.filter(_wide(model["denoiser"]), eqx.is_inexact_array) if wanted else None


def _target(denoiser: Any, state: Any) -> Any:
    """The average velocity that gives shortcut's target, in inference mode; None: the model's own."""
    import functools

    import equinox as eqx

    if state is None:
        return None
    still = eqx.filter(denoiser, eqx.is_inexact_array, inverse=True)
    return functools.partial(eqx.combine(state, still).average, inference=True)


def _moved(config: Any, model: dict[str, Any], context: "Context") -> Any:
    """The model state moved towards the weights. Each of the micro-batches of a step moves it a part of the way."""
    import equinox as eqx
    import jax

    from ...optim.ema import decay, move

    if context.state is None:
        return None
    gain = 1 - (1 - decay(config.few_step.target_decay)(jax.numpy.asarray(context.step))) ** (1 / config.accumulate)
    weights = jax.lax.stop_gradient(eqx.filter(_wide(model["denoiser"]), eqx.is_inexact_array))
    return move(context.state, context.mean(weights), gain)


def _wide(tree: Any) -> Any:
    """The tree in float32 at least."""
    import equinox as eqx
    import jax

    from ...precision.scale import widen

    return jax.tree.map(lambda x: widen(x) if eqx.is_inexact_array(x) else x, tree)


def open_teacher(config: Any, facts: ImageFacts) -> Any:
    """The denoiser of a run, to be distilled.

    Raises:
        UserError: there is none, or it is of other images, another schedule or without the classes.
        UsageError: the run is of prepared latents.
    """
    from ..._files import read_json
    from ...engine.recipes import load, recipe_of

    if latents_of(config.autoencoder, facts) is not None:
        raise UsageError("--teacher goes without prepared latents: a model of latents is not distilled")
    folder = Path(config.teacher)
    path = folder / "config.json"
    record = read_json(path)
    run = recipe_of(record, path).open(folder, record, path)
    known = (run.facts, getattr(run.config, "denoiser", None), getattr(run.config, "conditional", None))
    wanted = (facts, config.denoiser, config.conditional)
    for name, own, other in zip(("data", "denoiser", "classes"), wanted, known):
        if own != other:
            raise UserError(f"--teacher {folder}: must have the {name} of this run, {own}: got {other}")
    if run.config.objective != "denoise" or run.config.autoencoder:
        raise UserError(f"--teacher {folder}: must be a denoiser of pixels: got objective {run.config.objective}")
    return load(folder / "model.safetensors", "diffusion", where=f"--teacher {folder}")
