"""Options of diffusion and flow models: schedule, denoiser, loss and sampler, each one frozen dataclass."""

import dataclasses
import math

from eqxgen.configs._check import not_negative, one_of, positive, require

SCHEDULE_NAMES = ("linear", "scaled_linear", "cosine", "sigmoid", "sigmoid_level", "sqrt", "vp", "ve", "edm", "flow")
"""Names of the noise schedules; see `eqxgen.diffusion.schedules`."""
CONTINUOUS = ("vp", "ve", "edm", "flow")
"""Those without steps."""
PREDICTIONS = ("epsilon", "iddpm", "x0", "v", "velocity", "average", "edm", "vp", "ve")
"""Names of the denoisers; see `eqxgen.diffusion.precondition`."""
WEIGHTS = ("x0", "simple", "snr", "truncated_snr", "min_snr", "soft_min_snr", "p2", "edm", "v", "uncertainty")
"""Names of the weights of a loss; see `eqxgen.diffusion.weighting`."""
DISTANCES = ("l2", "l1", "huber", "pseudo_huber")
"""Names of the distances; see `eqxgen.diffusion.distances`."""
TIMES = ("uniform", "lognormal", "logit_normal", "cosine")
"""Names of the distributions of training times; see `eqxgen.diffusion.times`."""
SAMPLERS = (
    *("euler", "heun", "ddim", "ancestral", "ddpm", "churn", "dpm2", "dpmpp_2s", "dpmpp_2m", "dpmpp_3m"),
    *("dpmpp_2m_sde", "dpmpp_3m_sde", "unipc", "lms", "deis", "pndm", "ipndm", "rk4", "rk45"),
    *("flow_euler", "flow_heun"),
    *("average", "consistency"),
)
"""Names of the samplers; see `eqxgen.diffusion.solvers`."""
GUIDANCE_RULES = ("cfg", "apg", "cfg_zero_star")
"""Names of the rules of guidance; see `eqxgen.diffusion.guidance`."""
NUMBERS_OF_RULES = {
    "apg_momentum": "apg",
    "apg_norm": "apg",
    "apg_parallel": "apg",
    "zero_steps": "cfg_zero_star",
}
"""Options of one rule of guidance alone."""
GRIDS = ("karras", "exponential", "polynomial", "vp", "ve", "iddpm", "flow", "trailing", "leading", "linspace")
"""Names of the grids of sampling times; see `eqxgen.diffusion.grids`."""
RESPACED = ("trailing", "leading", "linspace")
"""Those that choose among the steps of a discrete schedule."""
AVERAGED = ("meanflow", "improved_meanflow", "shortcut")
"""Names of the objectives of an average velocity; see `eqxgen.diffusion.few_step`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A noise schedule."""

    name: str = "linear"
    """linear, scaled_linear, cosine, sigmoid, sigmoid_level or sqrt with steps; vp, ve, edm or flow without."""
    steps: int = 1000
    """Steps of a discrete schedule, at least 2."""
    low: float = 1e-4
    """First beta of linear, scaled_linear and sigmoid."""
    high: float = 0.02
    """Last beta of those."""
    sigma_max: float = 80.0
    """Sigma of noise of ve and edm: 100 and 80 in their papers."""
    zero_terminal: bool = False
    """Shift and scale alpha so that the schedule ends without signal (Lin et al. 2024)."""

    def __post_init__(self):
        one_of(self, "name", SCHEDULE_NAMES, prefix="schedule.")
        require(self.steps >= 2, f"schedule.steps must be at least 2: got {self.steps}")
        require(
            0 < self.low <= self.high < 1,
            f"schedule.low and schedule.high must be 0 < low <= high < 1: got low={self.low}, high={self.high}",
        )
        positive(self, "sigma_max", prefix="schedule.")
        require(
            not self.zero_terminal or self.discrete,
            f"schedule.zero_terminal must go with a schedule of steps: got schedule.name={self.name}",
        )

    @property
    def discrete(self) -> bool:
        """The schedule has steps."""
        return self.name not in CONTINUOUS


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """A network's prediction and its schedule."""

    prediction: str = "epsilon"
    """epsilon, x0, v, velocity, average (velocity, of a net with two times), or with another scale of input and level:
    edm, vp, ve, iddpm.
    """
    sigma_data: float = 0.5
    """Deviation of the data that edm assumes."""
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    """Noise schedule."""

    def __post_init__(self):
        one_of(self, "prediction", PREDICTIONS, prefix="denoiser.")
        positive(self, "sigma_data", prefix="denoiser.")
        require(
            self.prediction != "average" or self.schedule.name == "flow",
            f"denoiser.prediction average must have schedule flow: got schedule.name={self.schedule.name}",
        )
        discrete = self.prediction == "iddpm"
        require(
            not discrete or self.schedule.discrete,
            f"denoiser.prediction iddpm must have a schedule with steps: got schedule.name={self.schedule.name}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """Weight and distance of a loss, and the distribution of its times."""

    weight: str = "simple"
    """x0, simple (the same as snr), truncated_snr, min_snr, soft_min_snr, p2, edm, v, uncertainty (EDM's with a learned
    log-variance)."""
    gamma: float = 5.0
    """Bound of min_snr, 5 in its paper; of soft_min_snr; exponent of p2, 1 there."""
    floor: float = 0.05
    """Least sigma by whose square the weight v divides."""
    distance: str = "l2"
    """l2, l1, huber or pseudo_huber, of the error times the root of the weight."""
    delta: float = 1.0
    """Width of the quadratic part of the Huber distances."""
    times: str = "uniform"
    """Distribution of times: uniform, lognormal (of sigma / alpha), logit_normal (of t), cosine (interpolated)."""
    mean: float = -1.2
    """Mean of lognormal and logit_normal: -1.2 in EDM, 0 in Stable Diffusion 3."""
    std: float = 1.2
    """Deviation of lognormal and logit_normal: 1.2 in EDM, 1 in Stable Diffusion 3."""
    stratified: bool = False
    """Spread the times of a batch evenly over the distribution."""
    variance: float = 0.0
    """Weight of the variational bound that trains a learned variance: 0.001 in Nichol and Dhariwal 2021."""

    def __post_init__(self):
        one_of(self, "weight", WEIGHTS, prefix="loss.")
        one_of(self, "distance", DISTANCES, prefix="loss.")
        one_of(self, "times", TIMES, prefix="loss.")
        positive(self, "gamma", "floor", "delta", "std", prefix="loss.")
        require(math.isfinite(self.mean), f"loss.mean must be finite: got {self.mean}")
        not_negative(self, "variance", prefix="loss.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewStepLoss:
    """Options of the objectives of few steps."""

    equal: float = 0.75
    """Share of the examples with equal times, r = t, which train the velocity: 0.25 to 0.75 in MeanFlow, 0.5 in its
    improved form, 0.75 in shortcut."""
    power: float = 1.0
    """Power of the adaptive weight of both MeanFlows; 0: none."""
    least: float = 1e-3
    """Error added in that weight."""
    guidance: float = 1.0
    """Scale of the classifier-free guidance that is trained into the velocity; 1: none. The largest with dit.guide.
    """
    mix: float = 0.0
    """Share of the model's own guided velocity in the guided target, in [0, 1): kappa of MeanFlow."""
    interval: str = ""
    """LOW,HIGH: times, of 0 to 1, between which guidance is trained; everywhere by default."""
    shortest: int = 64
    """Most steps of a shortcut model, a power of two: 1 / its shortest interval, half of which is one of velocity; 64
    in its paper."""
    target_decay: float = 0.999
    """Decay of the average of the weights that gives shortcut's target; 0: the model itself."""
    first: int = 10
    """Noise levels of consistency at the start, whose number doubles."""
    last: int = 1280
    """Noise levels of consistency at the end."""

    def __post_init__(self):
        for name in ("equal", "mix", "target_decay"):
            value, most = getattr(self, name), "1]" if name == "equal" else "1)"
            holds = 0 <= value < 1 or (value == 1 and name == "equal")
            require(holds, f"few_step.{name} must be in [0, {most}: got {value}")
        not_negative(self, "power", prefix="few_step.")
        positive(self, "least", "guidance", prefix="few_step.")
        power_of_two = self.shortest >= 2 and self.shortest & (self.shortest - 1) == 0
        require(power_of_two, f"few_step.shortest must be a power of two, at least 2: got {self.shortest}")
        require(
            2 <= self.first <= self.last,
            f"few_step.first and few_step.last must be 2 <= first <= last: got {self.first} and {self.last}",
        )
        self.span  # noqa: B018 - checks the interval

    @property
    def span(self) -> tuple[float, float] | None:
        """Least and greatest time of `interval`; None without one.

        Raises:
            ValueError: it is not of the form LOW,HIGH with 0 <= LOW < HIGH.
        """
        return span_of(self.interval, "few_step.interval", "0.1,0.8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionSampling:
    """Options of `eqxgen.diffusion.solvers`; all but the counts and names change without compilation."""

    steps: int = 18
    """Intervals of the grid; a solver of second order evaluates the denoiser about twice in each."""
    sampler: str = "heun"
    """Solver: euler, heun, ddim, ancestral, ddpm, churn, dpm2, dpmpp_2s, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde,
    dpmpp_3m_sde, unipc, lms, deis, pndm, ipndm, rk4, rk45, flow_euler or flow_heun; average and consistency of models
    of few steps."""
    guidance: float = 1.0
    """Scale of guidance by the class; 1 is none."""
    guidance_rule: str = "cfg"
    """Rule of guidance: cfg (classifier-free), apg (adaptive projected) or cfg_zero_star."""
    interval: str = ""
    """LOW,HIGH: sigma / alpha between which guidance is applied, as in 0.3,5; everywhere by default."""
    rescale: float = 0.0
    """Share of the rescaling of a prediction that cfg guided to the deviation of the conditional one; 0 is none."""
    channels: int = 0
    """Number of first channels that cfg guides, 3 in DiT's released sampler; 0: all."""
    apg_momentum: float = -0.5
    """Of apg: share of the difference of the step before that is added, in (-1, 1); -0.75 to -0.25 in its paper; 0:
    none."""
    apg_norm: float = 0.0
    """Of apg: largest norm of the difference; 2.5 to 15 in its paper, by the model; 0: any."""
    apg_parallel: float = 0.0
    """Of apg: share that is kept of the difference's part along the guided image; 0 in its paper, 1: all."""
    zero_steps: int = 0
    """Of cfg_zero_star: number of first steps without a velocity; a twenty-fifth of the steps in its paper."""
    grid: str = "karras"
    """Times: karras, exponential, polynomial, vp, ve, iddpm, flow; of steps trailing, leading, linspace."""
    rho: float = 7.0
    """Exponent of karras and polynomial."""
    sigma_min: float = 0.002
    """Least sigma / alpha of the grid but for the last 0."""
    sigma_max: float = 80.0
    """Greatest sigma / alpha of the grid; of other schedules than ve and edm at most that of their end."""
    eta: float = 0.0
    """Share of the noise of ddpm that ddim, dpm2, dpmpp_2s and the samplers of stochastic equations add, in [0, 1]."""
    variance: str = "small"
    """Variance of ddpm: small, large or learned."""
    churn: float = 40.0
    """S_churn of the solver churn (Karras et al. 2022, algorithm 2)."""
    churn_min: float = 0.05
    """S_min: least sigma at which noise is added."""
    churn_max: float = 50.0
    """S_max: greatest sigma at which noise is added."""
    churn_noise: float = 1.003
    """S_noise: deviation of the added noise."""
    rtol: float = 1e-3
    """Relative tolerance of rk45, which divides each interval of the grid; 2 steps leave the division to it."""
    atol: float = 1e-3
    """Absolute tolerance of rk45."""

    def __post_init__(self):
        integer = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        require(integer and self.steps >= 1, f"sampling.steps must be at least 1: got {self.steps}")
        one_of(self, "sampler", SAMPLERS, prefix="sampling.")
        one_of(self, "grid", GRIDS, prefix="sampling.")
        one_of(self, "guidance_rule", GUIDANCE_RULES, prefix="sampling.")
        one_of(self, "variance", ("small", "large", "learned"), prefix="sampling.")
        not_negative(self, "guidance", "rescale", "churn", "churn_min", "channels", prefix="sampling.")
        not_negative(self, "apg_norm", "zero_steps", prefix="sampling.")
        require(-1 < self.apg_momentum < 1, f"sampling.apg_momentum must be in (-1, 1): got {self.apg_momentum:g}")
        require(0 <= self.apg_parallel <= 1, f"sampling.apg_parallel must be in [0, 1]: got {self.apg_parallel:g}")
        positive(self, "rho", "sigma_min", "sigma_max", "churn_noise", prefix="sampling.")
        require(0 <= self.eta <= 1, f"sampling.eta must be in [0, 1]: got {self.eta}")
        require(
            self.sigma_min < self.sigma_max,
            f"sampling.sigma_min must be below sampling.sigma_max: got {self.sigma_min} and {self.sigma_max}",
        )
        require(
            self.churn_min <= self.churn_max,
            f"sampling.churn_min must be at most sampling.churn_max: got {self.churn_min} and {self.churn_max}",
        )
        for name in ("rescale", "channels"):
            value = getattr(self, name)
            require(
                value == 0 or self.guidance_rule == "cfg",
                f"sampling.{name} must be 0 with sampling.guidance_rule {self.guidance_rule}: got {value:g}",
            )
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            require(1e-6 <= value <= 1, f"sampling.{name} must be in [1e-6, 1], as float32 ends at 1e-7: got {value:g}")
        self.span  # noqa: B018 - checks the interval

    def check_guidance(self) -> None:
        """Checks what flags that leave the rule and the steps to a run cannot tell alone.

        Raises:
            ValueError: a number is of another rule of guidance, or no step has a velocity.
        """
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        for name, rule in NUMBERS_OF_RULES.items():
            value, plain = getattr(self, name), fields[name]
            require(
                value == plain or self.guidance_rule == rule,
                f"sampling.{name} must be {plain:g} with sampling.guidance_rule {self.guidance_rule}, as it is of "
                f"{rule}: got {value:g}",
            )
        require(
            self.zero_steps < self.steps,
            f"sampling.zero_steps must be below sampling.steps: got {self.zero_steps} of {self.steps}",
        )

    @property
    def span(self) -> tuple[float, float] | None:
        """Least and greatest sigma / alpha of `interval`; None without one.

        Raises:
            ValueError: it is not of the form LOW,HIGH with 0 <= LOW < HIGH.
        """
        return span_of(self.interval, "sampling.interval", "0.3,5")


def span_of(text: str, name: str, example: str) -> tuple[float, float] | None:
    """The two numbers of an interval LOW,HIGH; None of no text.

    Raises:
        ValueError: it is not of the form LOW,HIGH with 0 <= LOW < HIGH.
    """
    if not text:
        return None
    message = f"{name} must be LOW,HIGH with 0 <= LOW < HIGH, as in {example}: got {text!r}"
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(message) from None
    require(0 <= low < high, message)
    return low, high
