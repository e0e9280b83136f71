"""Configuration of a run: what every recipe has, its command line, and its config.json. Imports no jax."""

import dataclasses
import math
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from .._errors import UsageError, UserError, printable, require
from ..precision.policy import Policy
from .data import DataConfig, SourceConfig
from .evals import Evaluation, periods
from .file import decode, read_config
from .flags import read
from .optim import EmaConfig, LoraConfig, OptimConfig
from .options import build, flag_of, option, options
from .usage import Usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Fields of every recipe. A recipe's own `Config` adds its own."""

    preset: str = option("digits", first=True)
    """Values that every flag starts from, one of the list above."""
    run_dir: str | None = option(None, free=True, first=True)
    """Folder of the run; by default runs/RECIPE-PRESET, or runs/RECIPE-PRESET-DATA where the data are not the preset's.
    The same command again resumes it."""
    start_from: str | None = option(None, first=True, alias="from")
    """Weights to start from: the folder of a run, a model.safetensors, or the folder of a published model. A line says
    which arrays were read. A run that is resumed goes on with its own."""
    from_weights: Literal["averaged", "best", "last"] = "averaged"
    """Weights of the run that --from names: its averaged ones, its best checkpoint's, or those of the last step without
    averaging."""
    freeze: tuple[str, ...] = ()
    """Patterns of paths of the parameters that --from reads and training leaves as they are, such as stack or '**';
    --print-groups lists the paths. Frozen norms take their running statistics, frozen dropout is off.
    """
    seed: int = option(0, first=True)
    """Seed of the initial weights, the order of the data and every random draw."""
    steps: int = option(1000, first=True)
    """Number of updates. It may grow when a run is resumed: with a constant or inverse_sqrt schedule, with wsd before
    its decay, and otherwise by --extend."""
    extend: bool = option(False, free=True)
    """Resume with more steps although the schedule of the learning rate is stretched; a line says from which rate to
    which."""
    batch_size: int = option(128, first=True, alias="bs")
    """Examples per update, over all devices."""
    precision: str = "auto"
    """Types: float32, bfloat16 or float16 (with a dynamic loss scale) for the computation, with float32 parameters; or
    all three as in params=float32,compute=bfloat16,output=float32 (p=f32,c=bf16,o=f32); or full, mixed, half. auto:
    mixed on TPU and GPU, full on CPU."""
    max_skips: int = option(50, free=True)
    """Number of skipped updates in a row that ends the run; an update is skipped where a gradient is not finite, or
    where --skip-spikes says so. The count is read every 8 steps."""
    skip_spikes: float = math.inf
    """Standard deviations above the mean of the last accepted updates at which a loss or a norm of the gradients is a
    spike, such as 6, whose update is skipped; inf: off. No update is skipped before the window is full."""
    spike_window: int = 128
    """Number of accepted updates that --skip-spikes compares with."""
    log_every: int = option(50, free=True)
    """Steps between lines of metrics."""
    sample_every: int = option(500, free=True)
    """Steps between sample grids; 0: only at the end."""
    evals: tuple[str, ...] = option((), free=True)
    """Evaluators that run at the end, or none; by default all that the data allow. NAME:STEPS also runs every so many
    steps.
    """
    eval_every: int = option(0, free=True)
    """Steps between runs of the evaluators without a period of their own, with numbers in metrics.jsonl; 0: only at the
    end.
    """
    checkpoint_every: int = option(500, free=True)
    """Steps between checkpoints."""
    keep: int = option(2, free=True)
    """Number of the newest checkpoints that are kept."""
    keep_best: str = option("", free=True)
    """Metric of the best checkpoint, which is kept as well, also as best.safetensors: loss, or max:accuracy where more
    is better. The mean over the lines of metrics.jsonl since the checkpoint before is compared. A metric of an
    evaluator needs its period or --eval-every."""
    strict: bool = option(False, free=True)
    """Refuse to resume from an older checkpoint where the newest one is damaged."""
    config: str | None = option(None, free=True)
    """JSON file of flags, such as a run's config.json; flags on the command line override it."""
    wandb: str | None = option(None, free=True)
    """Project of Weights & Biases that the metrics are sent to."""
    profile: str | None = option(None, free=True)
    """START:COUNT, such as 20:3: trace these steps, and print the operations that took longest."""
    compile_cache: str | None = option(None, free=True)
    """Folder of the compilation cache, or off; eqxgen/compiled in the user's cache folder by default."""
    print_groups: bool = option(False, free=True)
    """Print each parameter's path, shape, group, weight decay and learning-rate multiplier; compile nothing."""
    dry_run: bool = option(False, free=True, first=True)
    """Print the sizes and compile one step; read and write no data."""
    compile_for: str | None = option(None, free=True)
    """With --dry-run: a TPU topology to compile for, such as v5e:2x4 (needs the extra tpu, no TPU), or cuda to lower
    for."""
    accumulate: int = option(1, free=True)
    """Number of micro-batches of a batch; the memory is that of one, the update is the same."""
    scan: int = option(1, free=True)
    """Number of updates in one compiled call, for small models; the numbers are the same, up to
    the last bits where XLA fuses otherwise. It must divide the periods of
    what happens between updates: --log-every, --checkpoint-every, --sample-every, --eval-every. A signal is answered
    at its end."""
    mesh: str = option("", free=True, first=True)
    """Mesh, such as data=2,fsdp=4: data copies the model, fsdp shards its parameters, expert its experts, pipeline its
    blocks, model its width, context the tokens; by default all are data."""
    coordinator: str | None = option(None, free=True)
    """HOST:PORT of process 0 of several; found by itself on TPU pods, SLURM and Open MPI."""
    num_processes: int | None = option(None, free=True)
    """With --coordinator: number of processes."""
    process_id: int | None = option(None, free=True)
    """With --coordinator: number of this process, from 0."""
    data: SourceConfig = option(factory=DataConfig)
    """Training data."""
    optim: OptimConfig = option(factory=OptimConfig)
    """The optimiser."""
    ema: EmaConfig = option(factory=EmaConfig)
    """The averaged weights."""
    lora: LoraConfig = option(factory=LoraConfig)
    """Low-rank updates of a model from --from."""

    def __post_init__(self):
        for name in ("steps", "batch_size", "log_every", "checkpoint_every", "keep", "accumulate", "max_skips", "scan"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        require(self.skip_spikes > 0, f"skip_spikes must be positive: got {self.skip_spikes}; inf skips none")
        require(self.spike_window >= 2, f"spike_window must be at least 2 updates: got {self.spike_window}")
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
        self._check_evals()
        self._check_processes()
        require(self.start_from is None or self.start_from.strip() != "", "from must be a path: got ''")
        alone = self.start_from is not None or self.from_weights == "averaged"
        require(alone, "from_weights goes with --from, which was not given")
        self._check_partial()
        require(self.wandb is None or self.wandb.strip() != "", "wandb must be the name of a project: got ''")
        if span := self.profiled:
            require(
                sum(span) <= self.steps,
                f"profile must be within the steps of the run: got {self.profile} with steps={self.steps}",
            )
        self._check_scan()
        require(self.compile_for is None or self.dry_run, "compile_for goes with --dry-run, which was not given")

    def _check_scan(self) -> None:
        own = periods(self.evals, self.EVALS)
        names = ("log_every", "checkpoint_every", "sample_every", *(("eval_every",) if 0 in own.values() else ()))
        every = {name: getattr(self, name) for name in names}
        every |= {f"the period of evals {name}": period for name, period in own.items()}
        every = {name: period for name, period in every.items() if period < self.steps}  # others end with the run
        every |= dict(zip(("the first step of profile", "the count of profile"), self.profiled or ()))
        for name, period in every.items():
            require(
                period % self.scan == 0,
                f"scan must divide {name}: got scan={self.scan}, {name}={period}; give "
                f"{math.gcd(self.scan, period)}, or another period",
            )

    def _check_evals(self) -> None:
        every, best = periods(self.evals, self.EVALS), self.keep_best.removeprefix("max:").removeprefix("min:")
        for name in (kind.name for kind in self.EVALS if best in kind.gives):
            measured = name in every and (every[name] or self.eval_every)
            require(
                bool(measured),
                f"keep_best must be a metric that is measured during training: got {best}, and the evaluator {name} "
                f"has no period; give --evals {name}:500, or --eval-every",
            )

    def _check_partial(self) -> None:
        for flag, given in (("freeze", bool(self.freeze)), ("lora.rank", self.lora.rank is not None)):
            require(not given or self.start_from is not None, f"{flag} goes with --from, which was not given")
        require(
            not self.freeze or self.lora.rank is None,
            "freeze goes without lora.rank, with which all that --from reads is frozen: give one of them",
        )

    @property
    def partial(self) -> bool:
        """True where only a part of the model's parameters is trained."""
        return bool(self.freeze) or self.lora.rank is not None

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
        require(
            0 <= self.process_id < self.num_processes,
            f"process_id must be in [0, num_processes): got process_id={self.process_id}, "
            f"num_processes={self.num_processes}",
        )

    @property
    def profiled(self) -> tuple[int, int] | None:
        """First step and number of steps of `profile`."""
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
        """True where nothing is trained: a dry run, or a table of groups."""
        return self.dry_run or self.print_groups

    EVALS: ClassVar[tuple[Evaluation, ...]] = ()
    """Evaluators that the recipe offers."""

    def check_given(self, given: Collection[str]) -> None:
        """Checks these values, of which some flags are given, for faults that the config of an older run may have.

        Raises:
            UsageError: a flag leads to such a fault.
        """

    @property
    def unread(self) -> Mapping[str, str]:
        """Fields that these values leave unread, or groups such as `unet.`, with the flag that would read them."""
        return {}

    @property
    def without_lora(self) -> Mapping[str, str]:
        """Of the fields of `lora`, those that are left unread."""
        return {} if self.lora.rank else dict.fromkeys(("lora.alpha", "lora.targets"), "--lora.rank")

    @property
    def without_optim(self) -> Mapping[str, str]:
        """The fields that the run's optimisers leave unread."""
        own = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return {name: flag for part in own if isinstance(part, OptimConfig) for name, flag in part.unread.items()}

    @property
    def without_spikes(self) -> Mapping[str, str]:
        """The fields that are left unread without `skip_spikes`."""
        return {} if math.isfinite(self.skip_spikes) else {"spike_window": "--skip-spikes"}


Config = TypeVar("Config", bound=TrainConfig)


def parse(
    recipe: str,
    config: type[Config],
    presets: Mapping[str, Config],
    doc: str,
    argv: Sequence[str] | None = None,
    about: Mapping[str, str] | None = None,
) -> Config:
    """The command line of a recipe as its config; `--help` exits with 0. Flags override the values of `--config FILE`,
    and these those of the preset.

    Args:
        recipe: its name.
        config: its dataclass.
        presets: the first is the default.
        doc: its docstring, for the help.
        argv: the words; by default those of this process.
        about: a line for each preset: size, time, the number to expect.

    Raises:
        UsageError: a flag, a value or a file that cannot be.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    lines = {name: (about or {}).get(name, "") for name in presets}
    first = next(iter(presets))
    Usage(recipe, doc, config, presets[first], lines).answer(argv)
    table = options(config)
    given = read(argv, table)
    path = given.get("config")
    values = {} if path is None else read_config(path, recipe, table)
    name = given.get("preset") or values.get("preset") or first
    if name not in presets:
        raise UsageError(f"--preset must be one of {', '.join(presets)}: got {name!r}")
    preset = dataclasses.replace(presets[name], preset=name)
    try:
        parsed = build(config, values | given, preset)
    except UsageError:
        if path is not None:
            _check_file(config, values, preset, path)
        raise
    for name in given:
        unread = {**parsed.without_optim, **parsed.unread, **parsed.without_lora, **parsed.without_spikes}
        if reader := unread.get(name) or unread.get(name.partition(".")[0] + "."):
            raise UsageError(f"{flag_of(name)} goes with {reader}, which was not given")
    parsed.check_given(given)
    warmup = given.get("optim.warmup", 0)  # a longer one of the preset or the file is cut
    if warmup > parsed.steps:
        raise UsageError(
            f"--optim.warmup must be at most the steps of the run: got {warmup} with --steps {parsed.steps}"
        )
    return parsed


def _check_file(config: type[Config], values: Mapping[str, Any], preset: Config, path: str) -> None:
    """Raises `UsageError` that names the config file where its values are wrong without any flag."""
    try:
        build(config, values, preset)
    except UsageError as error:
        raise UsageError(f"--config {printable(path)}: {error}") from None


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The config as JSON gives it back: tuples as lists, and infinity, which JSON lacks, as "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return plain(dataclasses.asdict(config))


def from_dict(config: type[Config], values: Mapping[str, Any], where: str | Path) -> Config:
    """The inverse of `to_dict`, with the checks of a command line. An absent field has its default, so that a run of
    an older version can be read.

    Raises:
        UserError: a field is unknown, or a value cannot be.
    """
    try:
        return build(config, decode(values, options(config)))
    except UsageError as error:
        name = getattr(config, "COMMAND", config.__module__)
        raise UserError(f"{where}: this is not a config of {name}: {error}; was it edited?") from None


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted names."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result
