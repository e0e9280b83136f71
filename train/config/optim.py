"""Options of the optimiser and of the averaged weights. Imports nothing heavy."""

import dataclasses
import math
from typing import ClassVar, Literal

from .._errors import require
from .options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, learning-rate schedule, and exceptions by pattern of parameter path."""

    FLAG: ClassVar[str] = "optim"
    """Of the command line, for messages."""

    name: Literal["adamw", "lion", "adafactor", "lamb", "muon", "soap", "schedule_free", "rmsprop", "sgd"] = "adamw"
    """Optimiser. muon and soap precondition matrices, and use Adam for the rest. schedule_free has its own average."""
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
    """Momentum of sgd, rmsprop and muon's matrices."""
    nesterov: bool = False
    """Nesterov momentum for sgd and rmsprop."""
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
    """Largest side of soap's blocks of a matrix."""
    every: int = 10
    """Steps between soap's changes of basis (its eigenvectors)."""

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
        self.multipliers()

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
