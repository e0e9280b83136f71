"""Options of the optimiser and of the averaged weights. Imports nothing heavy."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from .._errors import require
from .options import option

Name = Literal[
    "adamw",
    "adabelief",
    "adafactor",
    "lamb",
    "lars",
    "lion",
    "muon",
    "rmsprop",
    "schedule_free",
    "sgd",
    "shampoo",
    "soap",
    "sophia",
]
"""Optimisers by name."""

READERS: Mapping[str, tuple[str, ...]] = {
    "block": ("soap", "shampoo"),
    "every": ("soap", "shampoo", "sophia"),
    **dict.fromkeys(
        ("graft", "graft_steps", "root", "ridge", "statistics", "statistics_every", "max_side"), ("shampoo",)
    ),
    "gamma": ("sophia",),
    "trust": ("lars",),
}
"""Optimisers that read a field, of those that few read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, learning-rate schedule, and exceptions by pattern of parameter path."""

    FLAG: ClassVar[str] = "optim"
    """Of the command line, for messages."""

    name: Name = "adamw"
    """Optimiser. muon, soap and shampoo precondition matrices, and use Adam for the rest, or shampoo's grafted rule.
    sophia is Sophia-H. schedule_free has its own average."""
    learning_rate: float = option(1e-3, first=True, alias="lr")
    """Peak learning rate."""
    warmup: int = 100
    """Steps in which the learning rate rises to its peak: step i, from 0, has (i + 1) / warmup of it. A preset's or a
    config file's is cut to the steps of the run."""
    decay: Literal["constant", "cosine", "linear", "exponential", "inverse_sqrt", "wsd", "one_cycle"] = "cosine"
    """Schedule after the warm-up. wsd: constant, then linear to its end. one_cycle: cosine, with a cosine warm-up from
    a 25th of the peak.
    """
    final: float = 0.0
    """Last learning rate as a fraction of the peak, of cosine, linear, exponential, wsd and one_cycle."""
    cooldown: float = 0.2
    """Fraction of the steps in which wsd decays."""
    beta1: float = 0.9
    """Decay of the first moment; of schedule_free, the interpolation towards the average where gradients are taken."""
    beta2: float = 0.96
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Term added to the root of the second moment."""
    momentum: float = 0.9
    """Momentum of sgd, rmsprop, lars and muon's matrices."""
    nesterov: bool = False
    """Nesterov momentum for sgd, rmsprop and lars; for shampoo in its first moment."""
    weight_decay: float = 0.045
    """Decoupled weight decay of matrices and kernels."""
    undecayed: tuple[str, ...] = ()
    """Patterns of parameter paths without weight decay, such as positions or '**.head'."""
    rates: tuple[str, ...] = ()
    """Multipliers of the learning rate by pattern of path, such as head=10 stack.blocks.mlp=0.5; the first match
    counts.
    """
    layer_decay: float = 1.0
    """Ratio of a layer's learning rate to that of the layer above; 1: all alike."""
    clip: float = 1.0
    """Largest global norm of the gradients, to which larger ones are scaled; inf: off."""
    block: int = 512
    """Largest side of soap's and shampoo's blocks of a matrix."""
    every: int = 10
    """Updates between soap's changes of basis (its eigenvectors), shampoo's inverse roots, sophia's estimates of the
    Hessian."""
    graft: Literal["adam", "rmsprop", "adagrad", "sgd"] = "adam"
    """Rule whose norm the updates of shampoo's matrices have, and whose updates all else has."""
    graft_steps: int = 10
    """First updates of shampoo that are the grafted rule's alone."""
    root: int | None = None
    """p of the exponent -1/p of shampoo's statistics; by default twice the number of a matrix's sides that have them:
    4, or 2 beside a side above max_side."""
    ridge: float = 1e-6
    """Term added to the diagonal of shampoo's statistics before the root, relative to their largest eigenvalue."""
    statistics: Literal["float32", "int16", "int8"] = "float32"
    """Storage of shampoo's statistics and roots beside their diagonals, which are float32."""
    statistics_every: int = 1
    """Updates between the gradients that shampoo's statistics take in."""
    max_side: int = 8192
    """Largest side of a matrix for which shampoo has statistics; a longer one has none, blocks or not."""
    gamma: float = 0.01
    """Scale of the Hessian's diagonal in sophia: the larger, the fewer entries are clipped."""
    trust: float = 1e-3
    """Norm of lars' updates of a layer relative to its weights, at a learning rate of 1."""

    def __post_init__(self):
        require(
            0 < self.learning_rate < math.inf,
            f"{self.FLAG}.learning_rate must be positive and finite: got {self.learning_rate}",
        )
        require(self.warmup >= 0, f"{self.FLAG}.warmup must be at least 0: got {self.warmup}")
        for name in ("beta1", "beta2", "momentum"):
            require(0 <= getattr(self, name) < 1, f"{self.FLAG}.{name} must be in [0, 1): got {getattr(self, name)}")
        require(
            self.beta1 > 0 or self.name != "schedule_free",
            f"{self.FLAG}.beta1 must be positive with {self.FLAG}.name=schedule_free: got 0",
        )
        require(0 < self.epsilon < math.inf, f"{self.FLAG}.epsilon must be positive and finite: got {self.epsilon}")
        require(
            0 <= self.weight_decay < math.inf,
            f"{self.FLAG}.weight_decay must be at least 0 and finite: got {self.weight_decay}",
        )
        require(self.clip > 0, f"{self.FLAG}.clip must be positive: got {self.clip}; inf switches clipping off")
        require(0 <= self.final <= 1, f"{self.FLAG}.final must be in [0, 1], a fraction of the peak: got {self.final}")
        require(
            self.final > 0 or self.decay != "exponential",
            f"{self.FLAG}.final must be positive with {self.FLAG}.decay=exponential: got 0",
        )
        require(0 < self.cooldown <= 1, f"{self.FLAG}.cooldown must be in (0, 1]: got {self.cooldown}")
        require(0 < self.layer_decay <= 1, f"{self.FLAG}.layer_decay must be in (0, 1]: got {self.layer_decay}")
        require(self.block >= 1, f"{self.FLAG}.block must be at least 1: got {self.block}")
        require(self.every >= 1, f"{self.FLAG}.every must be at least 1: got {self.every}")
        self._check_preconditioners()
        self.multipliers()

    def _check_preconditioners(self) -> None:
        for name, low in (("graft_steps", 0), ("statistics_every", 1), ("max_side", 1)):
            require(getattr(self, name) >= low, f"{self.FLAG}.{name} must be at least {low}: got {getattr(self, name)}")
        require(
            self.root is None or 1 <= self.root <= 16,
            f"{self.FLAG}.root must be in [1, 16], p of the exponent -1/p: got {self.root}",
        )
        require(
            1e-7 <= self.ridge < 1,
            f"{self.FLAG}.ridge must be in [1e-7, 1), a fraction of the largest eigenvalue: got {self.ridge}; float32 "
            "resolves no less",
        )
        for name in ("gamma", "trust"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"{self.FLAG}.{name} must be positive and finite: got {value}")

    @property
    def unread(self) -> Mapping[str, str]:
        """Fields that the optimiser leaves unread, with the flag that would read them."""
        prefix = self.FLAG
        return {
            f"{prefix}.{name}": f"--{prefix}.name {' or '.join(readers)}"
            for name, readers in READERS.items()
            if self.name not in readers
        }

    def multipliers(self) -> list[tuple[str, float]]:
        """Pattern and factor of each of `rates`."""
        pairs = []
        for text in self.rates:
            pattern, equals, factor = text.rpartition("=")
            try:
                pairs.append((pattern, float(factor)))
            except ValueError:
                equals = ""
            holds = bool(pattern and equals) and 0 <= pairs[-1][1] < math.inf
            require(
                holds,
                f"{self.FLAG}.rates must be of the form PATTERN=FACTOR with a factor of at least 0, as head=10: got "
                f"{text!r}",
            )
        return pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Averaged weights, used by samples and evaluation."""

    decay: float = 0.999
    """Decay per step; it ramps up as (1 + step) / (10 + step)."""
    half_life: float | None = None
    """Half-life in examples, instead of the decay."""
    ramp: float = 0.05
    """Largest half-life as a fraction of the examples so far; 0: no ramp."""
    sigma_rel: tuple[float, ...] = ()
    """Relative widths of power-function profiles, such as 0.05 0.1, instead of the decay; the first is used."""

    def __post_init__(self):
        require(0 <= self.decay < 1, f"ema.decay must be in [0, 1): got {self.decay}")
        require(
            self.half_life is None or 0 < self.half_life < math.inf,
            f"ema.half_life must be positive and finite: got {self.half_life}",
        )
        require(0 <= self.ramp <= 1, f"ema.ramp must be in [0, 1]: got {self.ramp}")
        for sigma in self.sigma_rel:
            require(0 < sigma < 0.28, f"ema.sigma_rel must be in (0, 0.28): got {sigma}")
        require(
            self.half_life is None or not self.sigma_rel, "ema.half_life and ema.sigma_rel exclude each other: give one"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank updates of the projections of a model from --from, which is frozen (Hu et al. 2021,
    arXiv:2106.09685)."""

    rank: int | None = None
    """Rank of each update, such as 8; none: no updates."""
    alpha: float | None = None
    """Scale of an update relative to the rank; by default the rank, a scale of 1."""
    targets: tuple[str, ...] = ("**",)
    """Patterns of paths of the projections that are updated, such as '**.qkv' or stack; by default all."""

    def __post_init__(self):
        require(self.rank is None or self.rank >= 1, f"lora.rank must be at least 1: got {self.rank}")
        require(
            self.alpha is None or 0 < self.alpha < math.inf,
            f"lora.alpha must be positive and finite: got {self.alpha}",
        )
        require(len(self.targets) >= 1, "lora.targets must be one or more patterns: got none; '**' is all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(OptimConfig):
    """The optimiser of the discriminator."""

    FLAG = "discriminator"
