"""Denoisers made of a network: x_0 = c_skip x + c_out net(c_in x, c_noise).

Each class differs in the view that the network predicts, in the scale of its input and in c_noise, the number by which
it is told the level (Karras et al. 2022, arXiv:2206.00364, table 1):

    EDM      F                 input of deviation 1          ln(sigma) / 4
    Epsilon  noise             x                             the step of a discrete schedule
    IDDPM    noise             x                             the nearest step
    VP       noise             x                             999 t
    VE       noise             x                             ln(sigma / 2)
    X0, V    x_0, v            x                             the step, or 1000 t of a continuous schedule
    Flow     velocity          x                             1000 t
    Average  mean velocity     x                             1000 t, and 1000 (t - r) beside it

The network is called `net(x, c_noise, condition, key=, inference=)` with x in the type of its parameters; everything
around it is float32 at least.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs.diffusion import DenoiserConfig
from eqxgen.diffusion.schedules import VE as VESchedule
from eqxgen.diffusion.schedules import VP as VPSchedule
from eqxgen.diffusion.schedules import Flow as FlowSchedule
from eqxgen.diffusion.schedules import Level, Schedule, schedule_of, steps_of
from eqxgen.diffusion.views import SIGMA_DATA, Linear, divisor, inverse

UNIT = 1000.0
"""Factor of a continuous time as the network is given it."""


class Scalings(NamedTuple):
    """x_0 = c_skip x + c_out net(c_in x, c_noise), numbers of one level."""

    c_in: Float[Array, ""]
    c_skip: Float[Array, ""]
    c_out: Float[Array, ""]
    c_noise: Float[Array, ""]


class WithLabels(NamedTuple):
    """A condition and the labels of an augmentation, for a network that takes them as `augment`."""

    condition: Any
    augment: Float[Array, " labels"]


class WithGuide(NamedTuple):
    """A condition, and the guidance that an average velocity is given as an input.

    Attributes:
        scale: 1 is none.
        interval: times between which it is applied.
    """

    condition: Any
    scale: Float[Array, ""]
    interval: Float[Array, "2"]


class Denoised(NamedTuple):
    """x_0, and the place of the log-variance between the least (0) and the greatest (1) of a step of DDPM."""

    x0: Float[Array, "*shape"]
    fraction: Float[Array, "*shape"]


class Preconditioned(eqx.Module):
    """Base of the denoisers of a network.

    Args:
        net: the network.
        schedule: levels of its times.
    """

    net: Any
    schedule: Schedule

    VIEW = "epsilon"
    """The view that the network predicts."""

    def inverse(self, level: Level) -> Linear:
        """x_0 as a linear function of x and the prediction."""
        return inverse(self.VIEW, level)

    @property
    def null_label(self) -> Any:
        """The network's label of no class."""
        return self.net.null_label

    def c_in(self, level: Level) -> Float[Array, ""]:
        """Scale of the network's input."""
        return jnp.ones_like(level.alpha)

    def c_noise(self, t: Float[Array, ""], level: Level) -> Float[Array, ""]:
        """The number by which the network is told the level."""
        return time_of(self.schedule, t)

    def scalings(self, t: Float[Array, ""]) -> Scalings:
        """The numbers around the network at a time."""
        level = self.schedule(t)
        found = self.inverse(level)
        return Scalings(self.c_in(level), found.of_x, found.of_other, self.c_noise(t, level))

    def __call__(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*shape"]:
        """x_0 of x_t.

        Args:
            x: noised example.
            t: time of the schedule.
            condition: what the network takes: a label, or None without.
        """
        return self.predict(x, t, condition, key=key, inference=inference)[0]

    def predict(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*rest"]]:
        """x_0, and the network's further channels."""
        scale = self.scalings(jnp.asarray(t))
        wide = widen(x)
        given = (scale.c_in * wide).astype(_compute_type(self.net, wide.dtype))
        more = {}
        if isinstance(condition, WithLabels):
            condition, more = condition.condition, {"augment": condition.augment}
        found = self.net(given, scale.c_noise, condition, **more, key=key, inference=inference).astype(wide.dtype)
        channels = x.shape[-1]
        return scale.c_skip * wide + scale.c_out * found[..., :channels], found[..., channels:]


class Epsilon(Preconditioned):
    """A network of the noise: DDPM, DiT, guided diffusion (Ho et al. 2020, arXiv:2006.11239, section 3.2)."""

    def variance(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Denoised:
        """x_0 and the learned variance, of a network with twice the channels (Nichol and Dhariwal 2021, equation 15).

        Raises:
            ValueError: the network predicts no variance.
        """
        x0, rest = self.predict(x, t, condition, key=key, inference=inference)
        if rest.shape != x0.shape:
            raise ValueError(
                f"net must predict a variance, as many channels as x has once more: got {rest.shape[-1]} beside "
                f"{x0.shape[-1]}; a sampler with fixed variances needs none"
            )
        return Denoised(x0, (rest + 1) / 2)


class IDDPM(Epsilon):
    """A network of the noise that was trained at whole steps alone (Nichol and Dhariwal 2021, arXiv:2102.09672)."""

    def c_noise(self, t: Float[Array, ""], level: Level) -> Float[Array, ""]:
        return jnp.round(time_of(self.schedule, t))


class VP(Epsilon):
    """Score network of variance-preserving diffusion (Song et al. 2021, arXiv:2011.13456)."""

    schedule: Schedule = VPSchedule()

    def c_noise(self, t: Float[Array, ""], level: Level) -> Float[Array, ""]:
        return 999 * t


class VE(Preconditioned):
    """Score network of variance-exploding diffusion (Song et al. 2021, arXiv:2011.13456)."""

    schedule: Schedule = VESchedule(100.0)

    def c_noise(self, t: Float[Array, ""], level: Level) -> Float[Array, ""]:
        return jnp.log(divisor(level.ratio) / 2)


class X0(Preconditioned):
    """A network of x_0."""

    VIEW = "x0"


class V(Preconditioned):
    """A network of v (Salimans and Ho 2022, arXiv:2202.00512)."""

    VIEW = "v"


class Flow(Preconditioned):
    """A network of the velocity noise - x_0 (Lipman et al. 2023, arXiv:2210.02747)."""

    schedule: Schedule = FlowSchedule()

    VIEW = "velocity"


class Average(Flow):
    """A network with two times of the average velocity (x_t - x_r) / (t - r) along a flow (Geng et al. 2025,
    arXiv:2505.13447): of few steps by `average`, and as a denoiser, with the velocity at r = t, of any.
    """

    @property
    def guided(self) -> bool:
        """The network takes the guidance as an input."""
        return getattr(self.net, "guide", None) is not None

    def average(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        r: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "*shape"]:
        """Average velocity from time t down to r.

        Args:
            condition: what the network takes, or a `WithGuide` of it.
        """
        more = {}
        if self.guided and not isinstance(condition, WithGuide):
            condition = WithGuide(condition, jnp.ones(()), jnp.array([0.0, 1.0]))
        if isinstance(condition, WithGuide):
            more["guide"] = UNIT * jnp.stack([jnp.log(condition.scale), *condition.interval])
            condition = condition.condition
        wide = widen(x)
        given = wide.astype(_compute_type(self.net, wide.dtype))
        span = UNIT * (t - r)
        found = self.net(given, UNIT * t, condition, span=span, **more, key=key, inference=inference)
        return found.astype(wide.dtype)

    def predict(
        self,
        x: Float[Array, "*shape"],
        t: Float[Array, ""],
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*rest"]]:
        """x_0 of the velocity at t, and no further channels."""
        t = jnp.asarray(t)
        velocity = self.average(x, t, t, condition, key=key, inference=inference)
        return x.astype(velocity.dtype) - t * velocity, velocity[..., :0]


class EDM(Preconditioned):
    """EDM's scaling, with which input and target of the network have deviation 1 (Karras et al. 2022, table 1).

    Args:
        sigma_data: deviation of the data.
    """

    schedule: Schedule = VESchedule()
    sigma_data: float = eqx.field(static=True, default=SIGMA_DATA)

    VIEW = "F"

    def inverse(self, level: Level) -> Linear:
        return inverse(self.VIEW, level, self.sigma_data)

    def c_in(self, level: Level) -> Float[Array, ""]:
        return 1 / jnp.sqrt(level.sigma**2 + (level.alpha * self.sigma_data) ** 2)

    def c_noise(self, t: Float[Array, ""], level: Level) -> Float[Array, ""]:
        return jnp.log(divisor(level.ratio)) / 4


PRECONDITIONS: dict[str, type[Preconditioned]] = {
    "edm": EDM,
    "epsilon": Epsilon,
    "iddpm": IDDPM,
    "vp": VP,
    "ve": VE,
    "x0": X0,
    "v": V,
    "velocity": Flow,
    "average": Average,
}
"""The denoisers by the name of a config."""


def denoiser_of(config: DenoiserConfig, net: Any) -> Preconditioned:
    """The denoiser of a network that a config names."""
    kind, schedule = PRECONDITIONS[config.prediction], schedule_of(config.schedule)
    return kind(net, schedule, config.sigma_data) if kind is EDM else kind(net, schedule)


def time_of(schedule: Schedule, t: Float[Array, ""]) -> Float[Array, ""]:
    """The step of a discrete schedule, which t need not be whole; 1000 t of a continuous one."""
    steps = steps_of(schedule)
    return UNIT * t if steps is None else t * steps - 1


def _compute_type(net: Any, default: Any) -> Any:
    """Type of the network's largest parameter."""
    arrays = [leaf for leaf in jax.tree.leaves(net) if eqx.is_inexact_array(leaf)]
    return max(arrays, key=lambda leaf: leaf.size).dtype if arrays else default
