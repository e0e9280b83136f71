"""Samples by options: a solver, its times and its guidance as one pytree, whose numbers change without compilation."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs.diffusion import RESPACED, DiffusionSampling
from eqxgen.diffusion import grids, solvers
from eqxgen.diffusion.guidance import Linear, Projected, Zero, by_rule
from eqxgen.diffusion.guidance.rules import Rule
from eqxgen.diffusion.precondition import WithGuide
from eqxgen.diffusion.schedules import Discrete, Flow, Schedule, steps_of
from eqxgen.protocols import Denoiser

SOLVERS: dict[str, Callable[[DiffusionSampling], Any]] = {
    "euler": lambda options: solvers.Euler(),
    "heun": lambda options: solvers.Heun(),
    "ddim": lambda options: solvers.DDIM(options.eta),
    "ancestral": lambda options: solvers.ancestral(),
    "ddpm": lambda options: solvers.DDPM(options.variance),  # pyright: ignore[reportArgumentType]
    "churn": lambda options: solvers.Churn(
        solvers.Heun(), options.churn, options.churn_min, options.churn_max, options.churn_noise
    ),
    "dpm2": lambda options: solvers.DPM2(options.eta),
    "dpmpp_2s": lambda options: solvers.DPMSolver2S(options.eta),
    "dpmpp_2m": lambda options: solvers.DPMSolverMulti(2),
    "dpmpp_3m": lambda options: solvers.DPMSolverMulti(3),
    "dpmpp_2m_sde": lambda options: solvers.DPMSolverMulti(2, options.eta),
    "dpmpp_3m_sde": lambda options: solvers.DPMSolverMulti(3, options.eta),
    "unipc": lambda options: solvers.UniPC(),
    "lms": lambda options: solvers.LMS(),
    "deis": lambda options: solvers.DEIS(),
    "pndm": lambda options: solvers.PNDM(),
    "ipndm": lambda options: solvers.IPNDM(),
    "rk4": lambda options: solvers.RK4(),
    "rk45": lambda options: solvers.RK45(options.rtol, options.atol),
    "flow_euler": lambda options: solvers.FlowEuler(),
    "flow_heun": lambda options: solvers.FlowHeun(),
    "average": lambda options: solvers.AverageVelocity(),
    "consistency": lambda options: solvers.Consistency(),
}
"""Solvers by the name of a config."""
RULES: dict[str, Callable[[DiffusionSampling, Float[Array, " times"]], Rule]] = {
    "cfg": lambda options, times: Linear(options.guidance, options.rescale),
    "apg": lambda options, times: Projected(
        options.guidance, options.apg_parallel, options.apg_norm, options.apg_momentum or None
    ),
    "cfg_zero_star": lambda options, times: Zero(
        options.guidance, times[options.zero_steps] if options.zero_steps else math.inf
    ),
}
"""Rules of guidance by the name of a config, of its options and times."""
BETWEEN = ("karras", "exponential", "polynomial", "ve", "iddpm")
"""Grids from `sigma_max` to `sigma_min`."""


class Guide(eqx.Module):
    """Guidance by the class, as arrays.

    Attributes:
        rule: joins the x_0 of the class and of none; its scale 1 is no guidance.
        interval: sigma / alpha between which it is applied.
        channels: number of first channels that are guided; None: all.
    """

    rule: Rule
    interval: Float[Array, "2"]
    channels: int | None = eqx.field(static=True)


class Rules(eqx.Module):
    """The sampler of one example.

    Attributes:
        times: from noise to data.
        solver: makes a step.
        guide: guidance by the class; None: none.
        shape: of an example.
    """

    times: Float[Array, " times"]
    solver: Any
    guide: Guide | None
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, options: DiffusionSampling, schedule: Schedule, shape: tuple[int, ...]) -> "Rules":
        """The rules of options.

        Raises:
            ValueError: the schedule has fewer steps than the sampler takes, or none where the grid chooses among them;
                the grid begins beyond the schedule's end; a number is of another rule of guidance or of flows.
        """
        options.check_guidance()
        if options.zero_steps and not isinstance(schedule, Flow):
            raise ValueError(
                f"sampling.zero_steps must be 0 but for the schedule flow, whose velocity is noise - x_0: got "
                f"{options.zero_steps} with {type(schedule).__name__}"
            )
        times = times_of(options, schedule)
        return cls(times, SOLVERS[options.sampler](options), _guide(options, times), shape)


def times_of(options: DiffusionSampling, schedule: Schedule) -> Float[Array, " times"]:
    """Times of a sampler, falling to 0.

    Raises:
        ValueError: as `Rules.of`.
    """
    steps = steps_of(schedule)
    if steps is not None and options.steps > steps:
        raise ValueError(f"sampling.steps must be at most the steps of the schedule: got {options.steps} of {steps}")
    if options.grid in RESPACED:
        if steps is None:
            raise ValueError(
                f"sampling.grid {options.grid} must have a schedule of steps: got {type(schedule).__name__}; karras, "
                "exponential and flow need none"
            )
        return jnp.asarray(getattr(grids, options.grid)(options.steps, steps), jnp.float32)
    if options.grid == "flow":
        return schedule.end * jnp.linspace(1, 0, options.steps + 1)
    end = float(schedule(schedule.end).ratio)
    if options.grid != "vp" and options.sigma_max > end * (1 + 1e-5):
        raise ValueError(
            f"sampling.sigma_max must be at most the schedule's last sigma / alpha: got {options.sigma_max:g} of "
            f"{end:.6g}"
        )
    low, high = options.sigma_min, options.sigma_max
    ratios = {
        "karras": lambda: grids.karras(options.steps, low, high, options.rho),
        "polynomial": lambda: grids.polynomial(options.steps, low, high, options.rho),
        "exponential": lambda: grids.exponential(options.steps, low, high),
        "vp": lambda: grids.vp(options.steps),
        "ve": lambda: grids.ve(options.steps, low, high),
        "iddpm": lambda: grids.iddpm(options.steps, low, high),
    }[options.grid]()
    return jnp.asarray(grids.times(schedule, ratios), jnp.float32)


def check_least(options: DiffusionSampling, schedule: Schedule) -> None:
    """Raises `ValueError` where a grid ends below the first level of a discrete schedule, the least of training.

    `Rules.of` takes such a grid, with the schedule continued below its first level.
    """
    if options.grid in BETWEEN and isinstance(schedule, Discrete):
        least = math.sqrt(schedule.betas[0] / (1 - schedule.betas[0]))
        if options.sigma_min < least * (1 - 1e-5):
            raise ValueError(
                f"sampling.sigma_min must be at least the schedule's first sigma / alpha, {least:.6g}, with "
                f"sampling.grid {options.grid}: got {options.sigma_min:g}; trailing, leading and linspace end there"
            )


def guided(denoiser: Denoiser, guide: Guide | None, null: Any) -> Denoiser:
    """The denoiser with a guide, for a sampler or an edit alike.

    Args:
        guide: None: the denoiser itself.
        null: condition of no class.

    Raises:
        ValueError: there is a guide, and the denoiser is unconditional.
    """
    if guide is None:
        return denoiser
    interval = guide.interval[0], guide.interval[1]
    return by_rule(denoiser, null, guide.rule, interval=interval, channels=guide.channels)


def generate(
    denoiser: Denoiser,
    rules: Rules,
    condition: Any = None,
    *,
    null: Any = None,
    key: PRNGKeyArray,
    trajectory: bool = False,
) -> solvers.Sample:
    """One example from noise.

    Args:
        denoiser: in inference mode or with dropout off.
        rules: the sampler.
        condition: label, or None.
        null: condition of no class, for guidance.
        key: of the noise.
        trajectory: whether every step is returned.
    """
    start, steps = jr.split(key)
    if rules.guide is not None and getattr(denoiser, "guided", False):
        condition = WithGuide(condition, rules.guide.rule.scale, denoiser.schedule.time(rules.guide.interval))
    else:
        denoiser = guided(denoiser, rules.guide, null)
    x = solvers.prior(denoiser.schedule, rules.times[0], rules.shape, key=start)
    return solvers.sample(denoiser, x, rules.times, rules.solver, key=steps, condition=condition, trajectory=trajectory)


def _guide(options: DiffusionSampling, times: Float[Array, " times"]) -> Guide | None:
    if options.guidance == 1:
        return None
    interval = jnp.asarray(options.span or (0.0, jnp.inf), jnp.float32)
    return Guide(RULES[options.guidance_rule](options, times), interval, options.channels or None)
