"""The driver of all solvers: one `lax.scan` over the times.

A solver is a module with `init(x) -> state` and `step(state, x, t, s, context) -> (x, state)`. Its context calls the
denoiser, draws noise and counts the evaluations, also those of a branch that is taken at some times alone.

One example: batches are the caller's `jax.vmap` over x and keys. Times should not be mapped: a branch on the time, such
as an interval of guidance or the second half of Heun's last step, then stays a branch for the batch and costs nothing
where it is not taken. With mapped times both sides run, with the same result.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.diffusion.schedules import Schedule
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.diffusion.solvers.noise import PerStep
from eqxgen.nn._mesh import on_mesh_of, varying
from eqxgen.protocols import Denoiser

Times = Float[Array, " times"] | Float[np.ndarray, " times"]


class Sample(NamedTuple):
    """A sample of the denoiser.

    Attributes:
        x: at the last time.
        evaluations: passes of the network; a guided denoiser's evaluation is two.
        trajectory: x after each step, or None.
    """

    x: Float[Array, "*shape"]
    evaluations: Int[Array, ""]
    trajectory: Float[Array, "steps *shape"] | None


class Context:
    """A step's view of the denoiser: calls of it are counted, and what it remembers of the first is kept.

    Attributes:
        memory: of the step before, which every call of a step is given; None for a denoiser without one.
        seen: whether there was a call, and the memory for the step after; None likewise.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        condition: Any,
        draw: Callable,
        index: Int[Array, ""],
        steps: int,
        memory: Float[Array, "*shape"] | None = None,
    ):
        self.denoiser, self.condition, self.index, self.steps = denoiser, condition, index, steps
        self.schedule: Schedule = denoiser.schedule
        self.spent: Any = 0
        self.memory, self.seen = memory, None if memory is None else (jnp.asarray(False), memory)
        self._draw, self._drawn = draw, 0

    def __call__(self, x: Float[Array, "*shape"], t: Float[Array, ""]) -> Float[Array, "*shape"]:
        """x_0 at a time."""
        return self._called("", x, t).astype(x.dtype)

    def average(self, x: Float[Array, "*shape"], t: Float[Array, ""], s: Float[Array, ""]) -> Float[Array, "*shape"]:
        """Average velocity from time t to time s."""
        self.spent += cost(self.denoiser, t)
        found = self.denoiser.average(x, t, s, self.condition, inference=True)  # pyright: ignore
        return found.astype(x.dtype)

    def variance(self, x: Float[Array, "*shape"], t: Float[Array, ""]) -> Any:
        """x_0 and the fraction of a learned variance."""
        return self._called("variance", x, t)

    @property
    def remembered(self) -> Float[Array, "*shape"] | None:
        """The memory for the step after."""
        return None if self.seen is None else self.seen[1]

    def _called(self, name: str, x: Array, t: Array) -> Any:
        self.spent += cost(self.denoiser, t)
        denoiser: Any = self.denoiser
        if self.memory is None or self.seen is None:
            return (getattr(denoiser, name) if name else denoiser)(x, t, self.condition, inference=True)
        recall = denoiser.recall_variance if name else denoiser.recall
        found, new = recall(x, t, self.condition, self.memory, inference=True)
        was, kept = self.seen
        self.seen = jnp.asarray(True), jnp.where(was, kept, new)
        return found

    def noise(self, interval: Interval, like: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """A unit normal of an interval."""
        self._drawn += 1
        return self._draw(self.index, self._drawn - 1, interval, like)

    def when(self, flag: Bool[Array, ""], branch: Callable[["Context"], Any], otherwise: Any) -> Any:
        """What a branch of further evaluations gives where the flag is true, and `otherwise` elsewhere."""

        def taken() -> Any:
            inner = Context(self.denoiser, self.condition, self._draw, self.index, self.steps, self.memory)
            inner.seen = self.seen
            return branch(inner), jnp.asarray(inner.spent, jnp.int32), inner.seen

        found, spent, self.seen = jax.lax.cond(flag, taken, lambda: (otherwise, jnp.int32(0), self.seen))
        self.spent += spent
        return found


@runtime_checkable
class Solver(Protocol):
    """The members of a solver. `learned` is True where it needs a learned variance, `averaged` where it needs an
    average velocity, `stochastic` where it draws.
    """

    def init(self, x: Array) -> Any:
        """The state before the first step."""
        ...

    def step(self, state: Any, x: Array, t: Array, s: Array, context: Context) -> tuple[Array, Any]:
        """x at time s of x at time t, and the state after it."""
        ...


def sample(
    denoiser: Denoiser,
    x: Float[Array, "*shape"],
    times: Times,
    solver: Solver,
    *,
    key: PRNGKeyArray | None = None,
    condition: Any = None,
    trajectory: bool = False,
    noise: Callable = PerStep(),  # noqa: B008
) -> Sample:
    """A sample of one example, from x at the first time to the last.

    Everything but the number of steps may be traced: other times, guidance, eta or churn run the same program. The
    noise of an example depends on its key alone: with `jax.random.fold_in(key, i)` as the key of image i, it is the
    same for every batch and any number of devices.

    Args:
        x: at the first time: sigma times a unit normal for noise, or see `prior`. Computed in float32 at least.
        times: of the denoiser's schedule, falling, the last 0 for data; see `eqxgen.diffusion.grids`.
        solver: see `eqxgen.diffusion.solvers`.
        key: of this example; needed by stochastic solvers.
        condition: what the denoiser takes.
        trajectory: whether x after each step is returned.
        noise: source of the solver's noise, `PerStep()` or `Brownian()`.

    Raises:
        ValueError: there are fewer than two times, they do not fall, a key, a learned variance or an average velocity
            is missing.
    """
    _check(denoiser, solver, key)
    times = checked(times)
    x = widen(x)

    def draw(index: Int[Array, ""], number: int, interval: Interval, like: Array) -> Array:
        if key is None:
            raise ValueError(f"{type(solver).__name__} draws noise: give key=")
        return noise(key, index, number, interval, like)

    def advance(carry: tuple, part: tuple) -> tuple:
        (x, state, spent, memory), (index, t, s) = carry, part
        context = Context(denoiser, condition, draw, index, steps, memory)
        new, state = solver.step(state, x, t, s, context)
        new = new.astype(x.dtype)
        return (new, state, spent + context.spent, context.remembered), new if trajectory else None

    steps = len(times) - 1
    parts = jnp.arange(steps, dtype=jnp.int32), times[:-1], times[1:]
    given = [leaf for leaf in jax.tree.leaves(condition) if isinstance(leaf, jax.Array)]
    x = varying(x, *given) if given else x
    with on_mesh_of(x):
        of_images = lambda leaf: varying(leaf, x) if leaf.shape[-x.ndim :] == x.shape else leaf
        start = x, jax.tree.map(of_images, solver.init(x)), jnp.int32(0), memory_of(denoiser, x)
        (x, _, spent, _), path = jax.lax.scan(advance, start, parts)
    return Sample(x, spent, path)


def prior(
    schedule: Schedule, t: Float[Array, ""] | float, shape: tuple[int, ...], *, key: PRNGKeyArray
) -> Float[Array, "*shape"]:
    """Noise at a time: sigma times a unit normal."""
    return schedule(t).sigma * jr.normal(key, shape)


def cost(denoiser: Denoiser, t: Float[Array, ""]) -> Any:
    """Passes of the network in one evaluation at a time: 1, or what the denoiser's `evaluations(t)` says."""
    count = getattr(denoiser, "evaluations", None)
    return 1 if count is None else count(t)


def memory_of(denoiser: Denoiser, x: Float[Array, "*shape"]) -> Float[Array, "*shape"] | None:
    """The memory of a denoiser before its first step; None for one without."""
    memory = getattr(denoiser, "memory", None)
    return None if memory is None else memory(x)


def checked(times: Times) -> Float[Array, " times"]:
    """Times as an array of float32 at least.

    Raises:
        ValueError: there are fewer than two, or they do not fall.
    """
    if len(times) < 2:
        raise ValueError(f"times must be at least two, one step: got {len(times)}")
    if not isinstance(times, Tracer):
        known = np.asarray(times)
        if not np.all(np.diff(known) < 0) or known[-1] < 0:
            raise ValueError(f"times must fall from noise to data, at least 0: got {known.tolist()}")
    times = jnp.asarray(times)
    return widen(times)


def _check(denoiser: Denoiser, solver: Solver, key: PRNGKeyArray | None) -> None:
    name = type(solver).__name__
    if getattr(solver, "learned", False) and not hasattr(denoiser, "variance"):
        raise ValueError(f"{name} needs a learned variance, which the denoiser lacks: take variance='small' or 'large'")
    if getattr(solver, "averaged", False) and not hasattr(denoiser, "average"):
        raise ValueError(f"{name} needs an average velocity, which the denoiser lacks: take Euler or Heun")
    if getattr(solver, "stochastic", False) and key is None:
        raise ValueError(f"{name} draws noise: give key=")


def number(value: Any, name: str, low: float | int, high: float | int) -> Float[Array, ""]:
    """A traced number of a solver in [low, high].

    Raises:
        ValueError: it is out of range.
    """
    if not isinstance(value, Tracer) and eqx.is_array_like(value) and not low <= float(value) <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}]: got {float(value):g}")
    value = jnp.asarray(value)
    return widen(value)
