"""Configuration: dataclasses to a command line, and to config.json and back. Imports no jax, so that `--help` is
instant.
"""

import dataclasses
import functools
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .._errors import UsageError, UserError, require
from ..data import DataConfig, DataError, DataStalled, SourceConfig
from ..precision.policy import Policy
from . import flags
from .file import read_config
from .optim import EmaConfig, OptimConfig

STARTED = time.perf_counter()
"""When the command began, as near as its first import can tell."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every recipe has. A recipe's own `Config` adds its fields."""

    preset: str = "digits"
    """The values that every flag starts from."""
    run_dir: str | None = None
    """Folder of the run; runs/<recipe>-<preset> by default. The same command again resumes it."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and every draw."""
    steps: int = 1000
    """Number of updates."""
    batch_size: int = 128
    """Examples per update, over all devices."""
    precision: str = "auto"
    """Type of computation: float32, bfloat16, float16 (with a dynamic loss scale), all with float32 parameters; or all
    three as in params=float32,compute=bfloat16,output=float32 (p=f32,c=bf16,o=f32); or full, mixed, half. auto: mixed
    on TPU and GPU, full on CPU."""
    max_skips: int = 50
    """Updates in a row that are left out because a gradient is not finite, until the run ends."""
    log_every: int = 50
    """Steps between lines of metrics."""
    sample_every: int = 500
    """Steps between sample grids; 0: only at the end."""
    eval_every: int = 0
    """Steps between evaluations such as that at the end, whose numbers join metrics.jsonl; 0: only at the end."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    keep_best: str = ""
    """Metric by which one checkpoint more is kept, the best, also as best.safetensors: loss, or max:accuracy where more
    is better. It is the metric's mean over the lines of metrics.jsonl since the checkpoint before; one of the
    evaluation needs --eval-every."""
    strict: bool = False
    """Refuse to resume where the newest checkpoint is damaged, in place of going on from the one before it."""
    config: str | None = None
    """JSON file of flags, such as a run's config.json; those on the command line prevail."""
    wandb: str | None = None
    """Project of Weights & Biases that the metrics go to as well."""
    profile: str | None = None
    """START:COUNT, such as 20:3: record a trace of these steps, and print the operations that took longest."""
    compile_cache: str | None = None
    """Folder that keeps compiled programs for the next start, or off; eqxgen/compiled in the user's cache by
    default.
    """
    print_groups: bool = False
    """Print each parameter's path, shape, group, weight decay and learning-rate multiplier, and stop before anything is
    compiled.
    """
    dry_run: bool = False
    """Print the sizes, compile one step, and stop before any data is read or written."""
    compile_for: str | None = None
    """With --dry-run: compile for a TPU topology such as v5e:2x4 (needs libtpu, no TPU), or lower for cuda, and print
    FLOPs and memory.
    """
    accumulate: int = 1
    """Micro-batches that a batch is walked through in, for the memory of one of them; the update is the same."""
    mesh: str = ""
    """How the devices share the work, such as fsdp=8 or data=2,fsdp=2,model=2: copies of the model, parameters in
    parts, each layer's width in parts. By default every device has a copy."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes train together and neither a TPU pod nor SLURM says so."""
    num_processes: int | None = None
    """With --coordinator: how many processes there are."""
    process_id: int | None = None
    """With --coordinator: which of them this is, from 0."""
    data: SourceConfig = dataclasses.field(default_factory=DataConfig)
    """What is learnt from."""
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    """The optimiser."""
    ema: EmaConfig = dataclasses.field(default_factory=EmaConfig)
    """The averaged weights."""

    def __post_init__(self):
        for name in ("steps", "batch_size", "log_every", "checkpoint_every", "keep", "accumulate", "max_skips"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        Policy.parse(self.precision)
        for name in ("sample_every", "eval_every"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0: got {getattr(self, name)}")
        require(
            not self.keep_best or re.fullmatch(r"(max:|min:)?\w+", self.keep_best) is not None,
            f"keep_best must be METRIC or max:METRIC: got {self.keep_best!r}",
        )
        require(0 <= self.seed < 2**32, f"seed must be in [0, 2**32): got {self.seed}")
        require(
            self.batch_size % self.accumulate == 0,
            f"accumulate must divide batch_size: got batch_size={self.batch_size}, accumulate={self.accumulate}",
        )
        self._check_processes()
        require(self.wandb is None or self.wandb.strip() != "", "wandb must be the name of a project: got ''")
        if span := self.profiled:
            require(
                sum(span) <= self.steps,
                f"profile must lie within the steps of the run: got {self.profile} with steps={self.steps}",
            )
        require(self.compile_for is None or self.dry_run, "compile_for goes with --dry-run, which was not given")

    def _check_processes(self) -> None:
        if self.coordinator is None:
            alone = self.num_processes is None and self.process_id is None
            require(alone, "num_processes and process_id go with --coordinator, which was not given")
            return
        host, colon, port = self.coordinator.rpartition(":")
        holds = bool(host and colon) and port.isdigit() and 0 < int(port) < 65536
        require(holds, f"coordinator must be of the form host:port: got {self.coordinator!r}")
        if self.num_processes is None or self.process_id is None:
            raise ValueError("coordinator needs --num-processes and --process-id as well")
        require(self.num_processes >= 1, f"num_processes must be at least 1: got {self.num_processes}")
        law = f"process_id must be in [0, num_processes): got process_id={self.process_id}, num_processes={self.num_processes}"
        require(0 <= self.process_id < self.num_processes, law)

    @property
    def profiled(self) -> tuple[int, int] | None:
        """First step and number of steps that `profile` names."""
        if self.profile is None:
            return None
        first, _, count = self.profile.partition(":")
        holds = all(part.isascii() and part.isdigit() for part in (first, count)) and int(count) >= 1
        require(
            holds,
            f"profile must be of the form START:COUNT, such as 20:3, with a count of at least 1: got {self.profile!r}",
        )
        return int(first), int(count)

    @property
    def on_paper(self) -> bool:
        """Whether this run trains nothing."""
        return self.dry_run or self.print_groups

    # Fields that may change between a run and its resumption: none alters the numbers that come out.
    FREE = (
        *(
            "run_dir",
            "config",
            "log_every",
            "sample_every",
            "eval_every",
            "checkpoint_every",
            "keep",
            "keep_best",
            "strict",
        ),
        *("dry_run", "compile_for", "print_groups", "wandb", "profile", "compile_cache"),
        *("data.root", "data.threads", "data.workers", "data.timeout"),
        *("accumulate", "mesh", "coordinator", "num_processes", "process_id", "max_skips"),
    )


Config = TypeVar("Config", bound=TrainConfig)


def parse(
    recipe: str, config: type[Config], presets: Mapping[str, Config], doc: str, argv: Sequence[str] | None = None
) -> Config:
    """The command line as a config; `--help` exits with 0. A preset's values yield to those of `--config FILE`, and
    these to the flags.

    Raises:
        UsageError: a flag, a value or a file that cannot be.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    names = list(flags.names_of(config()))
    path = flags.value_of("--config", argv)
    values = {} if path is None else read_config(path, recipe, names)
    name = flags.value_of("--preset", argv) or values.get("preset") or next(iter(presets))
    if name not in presets:
        raise UsageError(f"--preset must be one of {', '.join(presets)}: got {name!r}")
    default = dataclasses.replace(presets[name], preset=name)
    command = functools.partial(flags.parse, config, f"python -m train.{recipe}", doc, default=default)
    flags.check(argv, names)
    try:
        parsed = command([*flags.flags_of(values), *argv])
    except UsageError as error:
        raise UsageError(f"{error}{_blame(path, values, command)}") from None
    given = values.get("optim", {}).get("warmup") is not None or flags.value_of("--optim.warmup", argv) is not None
    if given and parsed.optim.warmup > parsed.steps:
        raise UsageError(
            f"--optim.warmup must be at most the steps of the run: got {parsed.optim.warmup} with --steps "
            f"{parsed.steps}"
        )
    return parsed


def _blame(path: str | None, values: Mapping[str, Any], command: Callable[[Sequence[str]], Config]) -> str:
    """Names the config file where its flags are wrong by themselves."""
    if path is None:
        return ""
    try:
        command(flags.flags_of(values))
    except UsageError:
        return f"; it stands in --config {path}"
    return ""


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The config as what JSON gives back: tuples as lists, and infinity, which JSON has not, as "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return plain(dataclasses.asdict(config))


def from_dict(config: type[Config], values: Mapping[str, Any], where: str | Path) -> Config:
    """The inverse of `to_dict`, by way of flags, so that a file gets the checks that a command line gets."""
    import tyro

    try:
        return tyro.cli(config, args=flags.flags_of(values), console_outputs=False)
    except SystemExit:
        raise UserError(
            f"{where}: this is not a config of {config.__module__}: it has other fields or values; was it edited?"
        ) from None


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted names."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def run(main: Callable[[], int | None]) -> None:
    """Runs a command: a user's mistake is one line on the error stream and an exit status, never a traceback."""
    try:
        sys.exit(main())
    except (UserError, DataError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if isinstance(error, DataStalled):
            os._exit(1)  # a thread that hangs in a read would keep the interpreter from ending
        sys.exit(getattr(error, "status", 1))
    except KeyboardInterrupt:  # before the first step, when there is nothing to save
        sys.exit(130)
