"""`--from`: the weights that a run starts from, of a run, a file or a published model."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, PyTree

from eqxgen.pretrained import open_pretrained
from eqxgen.pretrained.family import Opened
from eqxgen.pretrained.formats import safetensors
from eqxgen.pretrained.formats.stored import Stored
from eqxgen.pretrained.table import placed

from .._errors import UsageError, UserError, printable
from ..checkpoint.manifest import NAME as MANIFEST
from ..checkpoint.manifest import damage
from ..config.base import TrainConfig
from ..parallel.processes import from_first
from ..parallel.rules import spec_of
from ..params.paths import matches, named_arrays
from ..run.growth import newest_step

if TYPE_CHECKING:
    from .recipe import Program
    from .task import Task

PUBLISHED = {
    "gpt": ("gpt2", "llama"),
    "classify": ("dinov2", "dinov2_with_registers", "resnet", "vit"),
    "clip": ("clip", "siglip"),
    "bert": ("bert",),
    "glue": ("bert",),
    "t5": ("t5",),
}
"""Values of `model_type` in a published config.json that a recipe starts from."""

BEFORE = {"glue": ("bert",), "classify": ("mage",)}
"""Other recipes whose runs a recipe starts from, as their models have parts in common."""

FREE = ("rate", "inference", "remat", "fetch", "context", "dropout", "attention_dropout", "drop_path")
"""Fields of a model that do not change what its weights compute: of dropout, the memory of a step, and lengths."""


class Weights(NamedTuple):
    """Arrays to start from.

    Attributes:
        where: their file or folder.
        arrays: by path in the released model, or with `raw` by path in the state of training.
        sha256: of the file; of a checkpoint, of its manifest; of a published folder, of its files.
        description: what a run's file says of itself.
        model: of a published folder, with shapes in place of arrays.
    """

    where: Path
    arrays: dict[str, Stored]
    sha256: str
    description: Mapping[str, Any] = {}
    raw: bool = False
    model: Any = None


class Start(NamedTuple):
    """Weights matched with the arrays of a run's model and model state.

    Attributes:
        record: for config.json.
        line: for the reader.
        arrays: those that are read, by path: `model.head.weight`.
        kinds: types that they are read into.
        left: paths that keep their initialisation.
    """

    record: dict[str, Any]
    line: str
    arrays: dict[str, Stored]
    kinds: dict[str, Any]
    left: tuple[str, ...]

    def covers(self, patterns: Iterable[str]) -> bool:
        """True if everything that the patterns name is read."""
        return not any(matches(pattern, path) for pattern in patterns for path in self.left)

    def load(self, mesh: Mesh) -> dict[str, Array]:
        """The arrays, of which each device is given its part."""
        place = lambda path, shape: NamedSharding(mesh, spec_of(path, shape, mesh))
        return {p: placed(stored, self.kinds[p], place(p, stored.shape)) for p, stored in self.arrays.items()}


def matched(weights: Weights, config: TrainConfig, recipe: str, task: "Task") -> Start:
    """The weights as arrays of the run's own model. Shapes are compared, and no array is read.

    Raises:
        UsageError: an array has another shape, or none fits.
    """
    program = task.program

    def made(key: Array) -> PyTree:
        model = program.init(key)
        return {"model": model, "state": program.init_state(model)}

    shapes = eqx.filter_eval_shape(made, jr.key(0))

    def released(model: PyTree, state: PyTree) -> PyTree:
        whole = task.released(model, state)
        return whole if weights.model is None else getattr(whole, "published", whole)

    wanted = named_arrays(shapes)
    routes = {name: name for name in wanted} if weights.raw else _routes(released, shapes)
    arrays = {routes[name]: stored for name, stored in weights.arrays.items() if name in routes}
    if program.new_head:
        arrays = {path: stored for path, stored in arrays.items() if not _in_head(program, path)}
    if not arrays:
        found, where = next(iter(weights.arrays), "none"), printable(str(weights.where))
        raise UsageError(
            f"--from {where}: must have arrays of train.{recipe}'s model, such as {next(iter(routes))}: got none, "
            f"and first {printable(found)}"
        )
    for path, stored in arrays.items():
        _check_head(weights.where, path, stored, wanted[path], program)
        _check(weights.where, path, stored, wanted[path], recipe)
    left = tuple(path for path in wanted if path not in arrays)
    unused = [name for name in weights.arrays if name not in routes]
    if weights.model is not None:
        lost = [name for name in unused if not name.endswith(".bias")]
        given = lambda path: path.startswith("model.") and not _may_lack(program, path)
        missing = [path for path in left if given(path)]
        _check_whole(weights, released(shapes["model"], shapes["state"]), lost, missing, recipe, program)
    counts = {"read": len(arrays), "left": len(left), "unused": len(unused)}
    record = {"path": config.start_from, "weights": config.from_weights, "sha256": weights.sha256, **counts}
    kinds = {path: wanted[path].dtype for path in arrays}
    line = f"--from {weights.where}: {len(arrays)} arrays read{_casts(arrays, kinds)}; left at their initialisation: "
    line += f"{_some(left)}; of the file not used: {_some(unused)}{_facts(weights.description, task.facts.to_record())}"
    return Start(record, line, arrays, kinds, left)


def opened(config: TrainConfig, recipe: str) -> Weights | None:
    """The file or folder of `--from`, without its arrays' contents; None without the flag.

    Raises:
        UsageError: there is no such file, or it is of another family.
        UserError: a file is damaged.
    """
    if config.start_from is None:
        return None
    given = printable(str(config.start_from))
    path = Path(str(config.start_from)).expanduser()
    if path.is_dir():
        record = _record(path)
        if kind := record.get("model_type"):
            return _published(path, kind, recipe)
        if "recipe" in record:
            _check_family(path, record, recipe)
            if config.from_weights == "last":
                return _parts(_last(path), path, record, recipe)
            name = {"averaged": "model.safetensors", "best": "best.safetensors"}[config.from_weights]
            if not (path / name).is_file():
                raise UsageError(f"--from {given}: the run has no {name}; give another of --from-weights")
            return _parts(_file(path / name, recipe), path, record, recipe)
        path = path / "model.safetensors"
    if config.from_weights != "averaged":
        raise UsageError(f"--from-weights {config.from_weights} goes with the folder of a run: got --from {given}")
    if not path.is_file():
        raise UsageError(
            f"--from {given}: must be the folder of a run, a .safetensors file or the folder of a published model: "
            "there is none"
        )
    weights = _file(path, recipe)
    return _parts(weights, path.parent, weights.description, recipe)


def _parts(weights: Weights, folder: Path, record: Mapping[str, Any], recipe: str) -> Weights:
    """The weights; of a MAGE that a classifier starts from its encoder, with the tokenizer beside it."""
    if (recipe, record.get("recipe")) != ("classify", "mage"):
        return weights
    own, copy = "model.encoder." if weights.raw else "encoder.", folder / "tokenizer.safetensors"
    encoder = {name: stored for name, stored in weights.arrays.items() if name.startswith(own)}
    arrays = {f"model.encoder.{name.removeprefix(own)}": stored for name, stored in encoder.items()}
    if copy.is_file():
        found = _file(copy, "vqgan")
        arrays |= {f"model.tokenizer.{name}": stored for name, stored in found.arrays.items()}
        sha256 = hashlib.sha256(f"{weights.sha256} {found.sha256}".encode()).hexdigest()
        weights = weights._replace(sha256=sha256)
    return weights._replace(arrays=arrays)


def _record(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"--from {folder / 'config.json'}: cannot be read as JSON: {error}") from None
    return values if isinstance(values, dict) else {}


def _file(path: Path, recipe: str) -> Weights:
    try:
        arrays, metadata = safetensors.open_file(path)
        description = json.loads(metadata.get("eqxgen", "{}"))
    except (OSError, ValueError) as error:
        raise UserError(f"--from {error}; or restore it from a copy") from None
    description = description if isinstance(description, dict) else {}
    _check_family(path, description, recipe)
    return Weights(path, arrays, from_first(lambda: _sha256([path])), description)


def _check_family(path: Path, record: Mapping[str, Any], recipe: str) -> None:
    if (found := record.get("recipe", recipe)) not in (known := (recipe, *BEFORE.get(recipe, ()))):
        wanted = " or ".join(f"train.{name}" for name in known)
        raise UsageError(f"--from {path}: is the model of a run of train.{found}: give one of {wanted}")


def _published(folder: Path, kind: Any, recipe: str) -> Weights:
    if kind not in PUBLISHED.get(recipe, ()):
        known = ", ".join(f"{name} (train.{of})" for of, names in PUBLISHED.items() for name in names)
        raise UsageError(
            f"--from {folder}: model_type must be one of train.{recipe}: got {printable(str(kind))!r}; published "
            f"models that are read: {known}"
        )
    try:
        opened = _opened(folder, recipe)
    except ValueError as error:
        raise UserError(f"--from {error}") from None
    paths = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return Weights(folder, opened.leaves, from_first(lambda: _sha256(paths)), model=opened.model)


class _Encoder(eqx.Module):
    """Model of which the encoder alone is read."""

    bert: Any


def _opened(folder: Path, recipe: str) -> Opened:
    """A published model; for `glue`, of a BERT without a head of classes the encoder, with its pooler where there is
    one.
    """
    if recipe != "glue":
        return open_pretrained(folder)
    from eqxgen.models import BERTClassifier
    from eqxgen.pretrained.bert import BERT
    from eqxgen.pretrained.files import open_arrays

    values = _record(folder)
    pooled = any("pooler.dense" in name for name in open_arrays(folder))
    headless = (values.get("architectures") or ["BertModel"])[0] != "BertForSequenceClassification"
    opened = BERT.open(folder, config=values | {"architectures": ["BertModel"]} if pooled and headless else values)
    if isinstance(opened.model, BERTClassifier):
        return opened
    inner = getattr(opened.model, "bert", None)
    prefix = "bert." if inner is None else ""
    arrays = {prefix + name: stored for name, stored in opened.leaves.items() if (prefix + name).startswith("bert.")}
    return opened._replace(model=_Encoder(opened.model if inner is None else inner), leaves=arrays)


def _last(folder: Path) -> Weights:
    """The weights and the model state of a run's newest checkpoint; nothing in its folder changes."""
    step = newest_step(folder)
    where = folder / "checkpoints" / str(step)
    if not step:
        raise UsageError(f"--from {folder}: the run has no checkpoint for --from-weights last")
    if reason := from_first(lambda: damage(where)):
        raise UserError(f"--from {where}: is damaged: {reason}; give another of --from-weights")
    names = sorted(path.name for path in (where / "state").iterdir() if path.name.startswith(("model.", "state.")))
    return Weights(
        where, {name: _of_zarr(where / "state" / name) for name in names}, _sha256([where / MANIFEST]), raw=True
    )


def _of_zarr(path: Path) -> Stored:
    import tensorstore as ts

    store = ts.open({"driver": "zarr", "kvstore": {"driver": "file", "path": str(path)}}).result()
    return Stored(tuple(store.shape), store.dtype.numpy_dtype, lambda index: store[index].read().result())


def _sha256(paths: Iterable[Path]) -> str:
    """SHA-256 of a file, or of those of several, one after another."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: total)
    return total.hexdigest()


def _routes(released: Callable[[PyTree, PyTree], PyTree], shapes: PyTree) -> dict[str, str]:
    """By path in the released model, the path in the state of training that it is released from unchanged."""
    arrays, rest = eqx.partition(shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    leaves, structure = jax.tree.flatten(arrays)
    names: list[str] = []

    def flat(*leaves: Any) -> list[Any]:
        whole = eqx.combine(jax.tree.unflatten(structure, leaves), rest)
        found = named_arrays(released(whole["model"], whole["state"]))
        names.extend(found)
        return list(found.values())

    traced = jax.make_jaxpr(flat)(*leaves).jaxpr
    origin = {id(var): path for var, path in zip(traced.invars, named_arrays(arrays))}
    return {name: origin[id(var)] for name, var in zip(names, traced.outvars) if id(var) in origin}


def _check(where: Path, path: str, stored: Stored, wanted: Any, recipe: str) -> None:
    kind = jnp.inexact if jnp.issubdtype(wanted.dtype, jnp.inexact) else jnp.integer
    if stored.shape != wanted.shape or not jnp.issubdtype(stored.dtype, kind):
        raise UsageError(
            f"--from {printable(str(where))}: array {path} must be {wanted.dtype}{list(wanted.shape)}: got "
            f"{stored.dtype}{list(stored.shape)}; give train.{recipe} the sizes of that model, by --model or --preset"
        )


def _may_lack(program: "Program", path: str) -> bool:
    """True for a path that a published model may be without."""
    return (program.new_head and _in_head(program, path)) or any(matches(f"model.{p}", path) for p in program.lacking)


def _in_head(program: "Program", path: str) -> bool:
    """True for a path of the head, in the state of training or below a model that holds its own state."""
    starts = ("model", "model.model")
    return any(matches(f"{start}.{pattern}", path) for pattern in program.head for start in starts)


def _check_head(where: Path, path: str, stored: Stored, wanted: Any, program: "Program") -> None:
    if _in_head(program, path) and stored.shape[:1] != wanted.shape[:1] and stored.shape[1:] == wanted.shape[1:]:
        raise UsageError(
            f"--from {printable(str(where))}: its head must be of the {wanted.shape[0]:,} classes of the data: got "
            f"{stored.shape[0]:,}; --new-head gives the run a head of its own, and with --freeze '**' trains that alone"
        )


def _check_whole(
    weights: Weights, model: PyTree, lost: list[str], left: list[str], recipe: str, program: "Program"
) -> None:
    """Raises `UsageError` unless a published model fills the run's, of which biases alone may be left out, and has its
    numbers, such as the base of its positions.
    """
    start = f"--from {printable(str(weights.where))}"
    hint = f"give train.{recipe} the parts of that model, by --model or --preset"
    if lost or left:
        raise UsageError(
            f"{start}: must have the arrays of the run's model: {_some(left)} are not there, and {_some(lost)} are not "
            f"of it; {hint}"
        )
    ours = dict(_numbers(model))
    for path, number in _numbers(weights.model):
        head = program.new_head and _in_head(program, path)
        if not head and path in ours and ours[path] != number:
            raise UsageError(f"{start}: {path} must be {number}, as the published model's: got {ours[path]}; {hint}")


def _numbers(module: Any, path: str = "model") -> Iterator[tuple[str, Any]]:
    """Fields of a model that are no arrays, but for those that change nothing of what it computes."""
    if isinstance(module, eqx.Module) or (dataclasses.is_dataclass(module) and not isinstance(module, type)):
        for field in dataclasses.fields(module):  # pyright: ignore[reportArgumentType]
            if field.name not in FREE:
                yield from _numbers(getattr(module, field.name), f"{path}.{field.name}")
    elif isinstance(module, list | tuple) and not hasattr(module, "_fields"):
        for number, part in enumerate(module):
            yield from _numbers(part, f"{path}.{number}")
    elif module is not None and not isinstance(module, jax.Array | jax.ShapeDtypeStruct):
        yield path, module


def _casts(arrays: Mapping[str, Stored], kinds: Mapping[str, Any]) -> str:
    found = sorted(
        {f"{stored.dtype} as {kinds[path]}" for path, stored in arrays.items() if stored.dtype != kinds[path]}
    )
    return f" ({', '.join(found)})" if found else ""


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} ({', '.join(map(printable, names[:3]))}{more})" if names else "none"


def _facts(description: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Facts of the data of the weights that are not the run's, such as another vocabulary."""
    theirs = description.get("facts")
    theirs = theirs if isinstance(theirs, dict) else {}
    found = [name for name in own if name in theirs and theirs[name] != own[name]]
    return f"; its data had another {', '.join(found)}" if found else ""
