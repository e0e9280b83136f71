"""Options of the samplers: one frozen dataclass for each, passed whole from a preset or the flags to the sampler."""

import dataclasses
import math

from eqxgen.configs._check import at_least_one, not_negative, one_of, require

SCHEDULES = ("cosine", "linear", "power", "log", "exp", "sqrt", "arccos")
"""Names of the mask schedules; see `eqxgen.decoding.masked.mask_schedule`."""

ORDERS = ("confidence", "halton", "random")
"""Names of the orders in which masked tokens are accepted; see `eqxgen.decoding.masked`."""
WEIGHTINGS = ("none", "mdlm")
"""Names of the weights of masked tokens in the loss; see `eqxgen.losses.masked`."""


def parse_schedule(name: str) -> tuple[str, float]:
    """Kind of a mask schedule, and its exponent, which only `power` has: "power2.5" is ("power", 2.5), "power" alone
    ("power", 2).

    Raises:
        ValueError: the name is unknown, or the exponent is not positive.
    """
    kind = "power" if name.startswith("power") else name
    require(kind in SCHEDULES, f"schedule must be one of {', '.join(SCHEDULES)}: got {name!r}")
    try:
        exponent = float(name.removeprefix(kind) or 2)
    except ValueError:
        exponent = math.nan
    require(
        math.isfinite(exponent) and exponent > 0,
        f"the exponent of schedule power must be a positive number, as in power2.5: got {name!r}",
    )
    return kind, exponent


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedDecoding:
    """Options of `eqxgen.decoding.masked`."""

    steps: int = 8
    """Parallel guesses per image, at most as many as tokens."""
    guidance: float = 1.0
    """Classifier-free guidance; 1 is none."""
    choice_temperature: float = 4.5
    """Randomness of the order in which tokens are accepted; 0 accepts by confidence alone. The original has 4.5."""
    temperature: float = 1.0
    """Temperature of each token's draw; 0 takes the likeliest token."""
    schedule: str = "cosine"
    """Mask schedule: cosine, linear, power (power3: another exponent), log, exp, sqrt, arccos. Training masks by it
    too.
    """
    order: str = "confidence"
    """Order in which tokens are accepted: confidence (the paper's), halton (far apart in the grid) or random."""
    guidance_ramp: float = 0.0
    """Guidance grows as the progress to this power, from 1 to `guidance`; 0 is constant, 1 linear as in Muse."""
    remask: float = 0.0
    """Largest probability that an accepted token is masked again at a step (ReMDM); 0 never."""
    edit: float = 0.0
    """Probability that an accepted token is drawn anew at a step; 0 never."""

    def __post_init__(self):
        at_least_one(self, "steps", prefix="decode.")
        not_negative(self, "guidance", "choice_temperature", "temperature", "guidance_ramp", prefix="decode.")
        parse_schedule(self.schedule)
        one_of(self, "order", ORDERS, prefix="decode.")
        for name in ("remask", "edit"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"decode.{name} must be a probability, in [0, 1]: got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSampling:
    """Options of `eqxgen.decoding.images`: the guidance comes first, then the temperature, then the codes left out."""

    guidance: float = 1.0
    """Classifier-free guidance of the logits; 1 is none."""
    guidance_from: int = 0
    """First token that is guided."""
    guidance_to: int | None = None
    """Token before which the guidance ends; by default the last is guided too."""
    guidance_ramp: float = 0.0
    """Guidance grows as the progress to this power, from 1 to `guidance`; 0 is constant, 1 linear as in VAR."""
    temperature: float = 1.0
    """Divides the guided logits; 0 takes the likeliest code."""
    top_k: int | None = None
    """Only so many of the likeliest codes."""
    top_p: float | None = None
    """Only the fewest of the likeliest codes that have this probability together."""
    candidates: int = 1
    """Images drawn for each that is kept, the best by a scorer."""

    def __post_init__(self):
        not_negative(self, "guidance", "guidance_ramp", prefix="decode.")
        first, last = self.guidance_from, self.guidance_to
        require(first >= 0, f"decode.guidance_from must be at least 0: got {first}")
        require(
            last is None or last >= first,
            f"decode.guidance_to must be at least decode.guidance_from: got {last} and {first}",
        )
        at_least_one(self, "candidates", prefix="decode.")
        try:
            self.draws  # noqa: B018 - checked on construction
        except ValueError as error:
            raise ValueError(f"decode.{error}") from None

    @property
    def draws(self) -> "Sampling":
        """Options of the draw of each code."""
        return Sampling(self.temperature, self.top_k, self.top_p)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Options of `eqxgen.decoding.autoregressive`: how the next token is drawn from logits. The penalty comes first,
    then the temperature, then the tokens that are left out.
    """

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token (greedy)."""
    top_k: int | None = None
    """Only so many of the likeliest tokens."""
    top_p: float | None = None
    """Only the fewest of the likeliest tokens that have this probability together (nucleus; Holtzman et al. 2019,
    arXiv:1904.09751).
    """
    min_p: float | None = None
    """Only tokens of at least this probability relative to the likeliest (Nguyen et al. 2024, arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that occurred less likely (Keskar et al. 2019, arXiv:1909.05858, section 4.1); 1 is none."""

    def __post_init__(self):
        not_negative(self, "temperature", prefix="")
        require(
            self.top_k is None or self.top_k >= 1,
            f"top_k must be at least 1: got {self.top_k}; leave it out for all tokens",
        )
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            require(
                value is None or 0 < value <= 1, f"{name} must be in (0, 1]: got {value}; leave it out for all tokens"
            )
        penalty = self.repetition_penalty
        require(0 < penalty < math.inf, f"repetition_penalty must be positive and finite: got {penalty}; 1 is none")
