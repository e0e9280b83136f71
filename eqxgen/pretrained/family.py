"""A family of published models: its config.json, our model of it, and the table between their arrays."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax.random as jr
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import DTypeLike, PRNGKeyArray

from eqxgen.pretrained import files, table
from eqxgen.pretrained.formats.stored import Stored, printable
from eqxgen.pretrained.table import Coverage, Table

M = TypeVar("M")
Place = Callable[[str, tuple[int, ...]], Sharding]

SMALLEST = 1024
"""Entries below which an array is not worth sharing out."""


class Opened(NamedTuple):
    """A published folder, of which no array is read yet.

    Attributes:
        model: with shapes in place of arrays.
        leaves: the parameters by path.
        coverage: of the files.
    """

    model: Any
    leaves: dict[str, Stored]
    coverage: Coverage

    def stored(self) -> Any:
        """The model with stored arrays in place of its own, to be written: each is read as it is written."""
        return table.lazy(self.model, self.leaves)

    def load(self, dtype: DTypeLike | None = None, place: Place | None = None) -> Any:
        """The model; see `Family.from_pretrained`."""
        return table.filled(self.model, self.leaves, dtype, place)


@dataclass(frozen=True)
class Family(Generic[M]):
    """Published models of one architecture.

    Args:
        name: in messages, such as GPT-2.
        types: values of `model_type`, or diffusers' `_class_name`, in their config.json; none where they are published
            without that file.
        build: from the values of config.json to a function from a key to the model, and the table. A `KeyError`,
            `TypeError` or `ValueError` becomes the error of a config that is not of the family.
        describe: from a model to the values of config.json and the table.
        infer: from the arrays of a file that is published without config.json, and the values that the caller gives,
            to those of config.json. A `KeyError` becomes the error of a file that is not of the family.
        outputs: from our model and the published library's to pairs of outputs by name, ours first, for
            `train.convert`'s report of parity.

    Raises:
        ValueError: in `describe`, if the model has a part that the published architecture is without.
    """

    name: str
    types: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], tuple[Callable[[PRNGKeyArray], M], Table]]
    describe: Callable[[M], tuple[dict[str, Any], Table]]
    outputs: Callable[[M, Any], Mapping[str, tuple[Any, Any]]] | None = None
    infer: Callable[[Mapping[str, Stored], Mapping[str, Any]], dict[str, Any]] | None = None

    def open(self, source: str | Path, *, key: str | None = None, config: Mapping[str, Any] | None = None) -> Opened:
        """The model of published weights as shapes, and its parameters as they are stored; see `from_pretrained`."""
        source = Path(source)
        arrays, beside = files.opened(source, key)
        shapes, mapping = self._planned(source, self._values(source, arrays, config))
        leaves, coverage = table.match(mapping, arrays, shapes, source)
        return Opened(shapes, leaves, coverage._replace(ignored={**coverage.ignored, **beside}))

    def from_pretrained(
        self,
        source: str | Path,
        dtype: DTypeLike | None = None,
        *,
        mesh: Mesh | Place | None = None,
        key: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> M:
        """The model of a folder with config.json and weights, such as a snapshot of a hub, or of a file of weights.

        Args:
            source: the folder, or the file with config.json beside it.
            dtype: of the parameters; by default each has the one that it is stored in, such as bfloat16.
            mesh: gives each device its part of the arrays; or a function from the path and the shape of a parameter to
                its sharding. By default they are whole on one device.
            key: of the dictionary within a file that holds several, such as "state_dict".
            config: the values of config.json, where there is no such file; of a family whose sizes are seen in the
                arrays, those that are not.

        Raises:
            ValueError: a file is missing or damaged, the config is of another architecture, or an array is missing, of
                another shape, or not of the model.
        """
        place = evenly(mesh) if isinstance(mesh, Mesh) else mesh
        return self.open(source, key=key, config=config).load(dtype, place)

    def published(self, model: M) -> tuple[dict[str, Stored], dict[str, Any]]:
        """The published arrays of a model, each made when it is read, and the values of config.json.

        Raises:
            ValueError: the model is not of the family's architecture.
        """
        try:
            config, mapping = self.describe(model)
        except AttributeError as error:
            raise ValueError(f"model must be of {self.name}'s architecture to be written as one: {error}") from None
        return table.written(mapping, model), config

    def to_pretrained(self, model: M, folder: str | Path) -> None:
        """Writes config.json and the weights, which the published library reads. Each array is written in its own type,
        and each file whole or not at all.

        Raises:
            OSError: the disk refuses; older files are untouched.
            ValueError: the model is not of the family's architecture.
        """
        arrays, config = self.published(model)
        files.write(Path(folder), config, arrays)

    def _values(
        self, source: Path, arrays: Mapping[str, Stored], config: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        """Values of config.json, or of the arrays and the caller."""
        where = files.config_of(source)
        if self.infer is not None and not where.exists():
            try:
                return self.infer(arrays, config or {})
            except KeyError as error:
                raise ValueError(printable(f"{source}: is not of a {self.name}: there is no array {error}")) from None
            except Unsupported as error:
                raise ValueError(printable(f"{source}: {error}")) from None
        return files.read_json(where) if config is None and self.types else config or {}

    def _planned(self, source: Path, values: Mapping[str, Any]) -> tuple[M, Table]:
        where = files.config_of(source)
        if self.types and (kind := kind_of(values)) not in self.types:
            raise ValueError(f"{where}: model_type must be {' or '.join(map(repr, self.types))}: got {kind!r}")
        try:
            build, mapping = self.build(values)
            return eqx.filter_eval_shape(build, jr.key(0)), mapping
        except Unsupported as error:
            raise ValueError(f"{where}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{where}: is not the config of a {self.name}: {reason}") from None


def kind_of(values: Mapping[str, Any]) -> Any:
    """The architecture that config.json names: transformers' `model_type`, diffusers' `_class_name`, or the library
    that a key gives away.
    """
    other = next((kind for key, kind in _LIBRARIES.items() if key in values), None)
    return values.get("model_type") or values.get("_class_name") or other


_LIBRARIES = {"architecture": "timm", "model_cfg": "openclip"}


class Unsupported(ValueError):
    """An option of a config that our model has no field for."""


def require_fixed(values: Mapping[str, Any], fixed: Mapping[str, tuple[Any, Any]], family: str) -> None:
    """Checks the options of a config that a model has no field for.

    Args:
        values: of config.json.
        fixed: by name the one value that is supported, and the published default.
        family: in the message.

    Raises:
        Unsupported: an option has another value.
    """
    for name, (wanted, default) in fixed.items():
        if (got := values.get(name, default)) != wanted:
            raise Unsupported(f"{name} must be {wanted!r}, as {family}'s: got {got!r}")


def integers(values: Mapping[str, Any], sizes: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Sizes of a config.

    Args:
        values: of config.json.
        sizes: by our name the published one, and its default.
    """
    return {ours: integer(values, theirs, default) for ours, (theirs, default) in sizes.items()}


def integer(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A size of a config; without a default it must be there.

    Raises:
        Unsupported: it is no whole number.
    """
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise Unsupported(f"{name} must be an integer: got {value!r}")
    return int(value)


def require_parts(model: Any, mapping: Table) -> None:
    """Raises `ValueError` unless a model has the parameters of the rows, and no others."""
    paths, start = table.paths(model), f"model must be of {mapping.family}'s architecture to be written as one"
    for row in mapping.rows:
        if not any(table.names_path(row.path, path) for path in paths):
            raise ValueError(f"{start}: it has no {row.path}")
    for path in paths:
        if not any(table.names_path(row.path, path) for row in mapping.rows):
            raise ValueError(f"{start}, in which there is no {path}")


def require_same(same: bool, family: str, parts: str) -> None:
    """Raises `ValueError` with the parts of a published architecture unless the condition holds."""
    if not same:
        raise ValueError(f"model must be of {family}'s architecture to be written as one ({parts}): got another")


def evenly(mesh: Mesh) -> Place:
    """A placement that shares every array out over all devices, along its longest axis that they divide; small ones are
    whole.
    """

    def place(path: str, shape: tuple[int, ...]) -> NamedSharding:
        free = [axis for axis, size in enumerate(shape) if size % mesh.size == 0]
        spec: list[Any] = [None] * len(shape)
        if free and math.prod(shape) >= SMALLEST:
            spec[max(free, key=lambda axis: shape[axis])] = mesh.axis_names
        return NamedSharding(mesh, PartitionSpec(*spec))

    return place
