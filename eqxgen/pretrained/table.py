"""One declarative mapping a family, between the arrays of published files and the parameters of our model.

Every parameter of the model is filled, and every array of the files is read or listed as ignored with its reason. The
same table reads and writes, to the bit. Leaves are read one at a time, and of a sharded one each device is given its
part alone.
"""

import fnmatch
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, DTypeLike, PyTree

from eqxgen.pretrained.families import recognised
from eqxgen.pretrained.formats.copies import copied, fresh
from eqxgen.pretrained.formats.stored import Stored, printable
from eqxgen.pretrained.transforms import SAME, Transform

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that parallel training and compilation put before every name."""


class Row(NamedTuple):
    """A parameter and its published arrays.

    Attributes:
        path: of the parameter, such as `stack.blocks.{}.mlp.up.weight`: each `{}` is the number of a block, be the
            blocks a list, or one module whose arrays have a leading axis for them.
        names: of the published array, or of several that the transform joins; with the same `{}` in the same order.
        how: the transform.
    """

    path: str
    names: str | tuple[str, ...]
    how: Transform = SAME

    @property
    def all_names(self) -> tuple[str, ...]:
        return (self.names,) if isinstance(self.names, str) else self.names


class Tied(NamedTuple):
    """A published array that repeats another: it must be equal to it, and may be there in its stead.

    Attributes:
        name: of the copy; `{}` stands for any number.
        of: the array that a row names.
        written: the published library needs the copy in the file.
    """

    name: str
    of: str
    written: bool = False


@dataclass(frozen=True)
class Table:
    """A mapping between published names and parameters.

    Args:
        family: its name in messages, such as GPT-2.
        rows: of several rows of one path the first whose arrays are in the file is read, and the first is written.
            Rows of parameters that the model is without, such as biases, are passed over.
        tied: arrays that repeat others.
        ignored: reason by pattern of names (`*` stands for anything) that no parameter is for.
        prefixes: of names, which the files of some libraries have and those of others have not.
        renames: newer spelling by ending of a name in older files: `{".gamma": ".weight"}`.
    """

    family: str
    rows: tuple[Row, ...]
    tied: tuple[Tied, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)

    def short(self, name: str) -> str:
        """The name without prefixes, in its newer spelling."""
        while (prefix := next((p for p in (*WRAPPERS, *self.prefixes) if name.startswith(p)), None)) is not None:
            name = name[len(prefix) :]
        old = next((old for old in self.renames if name.endswith(old)), None)
        return name if old is None else name.removesuffix(old) + self.renames[old]


class Coverage(NamedTuple):
    """Use of every array of a file.

    Attributes:
        read: names of arrays that parameters are made of.
        ignored: reason by name.
        missing: names that the model needs.
        extra: names that nothing is known of.
        cropped: number of rows that are left out, by name.
    """

    read: tuple[str, ...]
    ignored: Mapping[str, str]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    cropped: Mapping[str, int] = {}

    @property
    def line(self) -> str:
        """The report in one line."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.ignored.items():
            reasons.setdefault(reason, []).append(name)
        parts = [f"{len(self.read)} arrays read"]
        parts += [f"{some(names)} ignored: {reason}" for reason, names in reasons.items()]
        parts += [f"{count} more rows of {name} than the model has left out" for name, count in self.cropped.items()]
        parts += [f"{some(names)} {what}" for what in ("missing", "extra") if (names := getattr(self, what))]
        return printable("; ".join(parts))


class Matched(NamedTuple):
    """Parameters as they are stored.

    Attributes:
        leaves: by path in the model, in its order; nothing is read yet.
        coverage: of the file.
    """

    leaves: dict[str, Stored]
    coverage: Coverage


def match(table: Table, arrays: Mapping[str, Stored], shapes: PyTree, where: object = "file") -> Matched:
    """The parameters of a model in a file's arrays. Shapes and types are compared, and nothing is read but what is
    tied.

    Args:
        table: of the family.
        arrays: of the file, by published name.
        shapes: the model, or its shapes as `eqx.filter_eval_shape` gives them.
        where: the file or folder, for messages.

    Raises:
        ValueError: an array is missing, is not of the model, has another shape or type, or differs from the one that
            it repeats.
    """
    given = _shortened(table, arrays, where)
    ignored = _tied(table, given, where)
    leaves: dict[str, Stored] = {}
    missing: list[tuple[int, str]] = []
    order = {row.path: place for place, row in reversed([*enumerate(table.rows)])}
    used: dict[str, None] = {}
    cropped: dict[str, int] = {}
    for path, leaf, rows in _routed(table, shapes):
        parts = next((part for part in rows if all(n in given for n in part.names)), None)
        if parts is None:
            missing += [(order[rows[0].row.path], name) for name in rows[0].names if name not in given]
            continue
        used |= dict.fromkeys(parts.names)
        if not missing:
            leaves[path] = _leaf(path, leaf, parts, given, where, cropped)
    for name in given.keys() - used.keys():
        reason = next((why for pattern, why in table.ignored.items() if _like(name, table.short(pattern))), None)
        if reason is not None:
            ignored[name] = reason
    extra = tuple(sorted(name for name in given if name not in used and name not in ignored))
    coverage = Coverage(
        tuple(used), ignored, tuple(name for _, name in sorted(missing, key=lambda each: each[0])), extra, cropped
    )
    _complete(table, coverage, where, recognised(arrays))
    return Matched(leaves, coverage)


def read(
    table: Table,
    arrays: Mapping[str, Stored],
    shapes: PyTree,
    where: object = "file",
    *,
    dtype: DTypeLike | None = None,
    place: Callable[[str, tuple[int, ...]], Sharding] | None = None,
) -> tuple[PyTree, Coverage]:
    """The model with the parameters of a file; see `match`.

    Args:
        table: of the family.
        arrays: of the file, by published name.
        shapes: the model, or its shapes as `eqx.filter_eval_shape` gives them.
        where: the file or folder, for messages.
        dtype: of floating-point parameters; by default each has the one that it is stored in, such as bfloat16.
        place: the sharding of a parameter by its path and shape, of which each device is given its part.
    """
    matched = match(table, arrays, shapes, where)
    return filled(shapes, matched.leaves, dtype, place), matched.coverage


def filled(
    shapes: PyTree,
    leaves: Mapping[str, Stored],
    dtype: DTypeLike | None = None,
    place: Callable[[str, tuple[int, ...]], Sharding] | None = None,
) -> PyTree:
    """A model with its parameters, which are read one after another; the arguments are those of `read`."""
    wanted, rest = eqx.partition(shapes, _is_array)

    found = []
    for path, stored in leaves.items():
        kind = stored.dtype if dtype is None or not jnp.issubdtype(stored.dtype, jnp.floating) else dtype
        found.append(placed(stored, kind, None if place is None else place(path, stored.shape)))
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(wanted), found), rest)


def written(table: Table, model: PyTree) -> dict[str, Stored]:
    """The published arrays of a model by name, each made when it is read.

    Raises:
        ValueError: a parameter is none of the published architecture.
    """
    found: dict[str, Stored] = {}
    shares: dict[str, dict[int, Stored]] = {}
    for path, leaf, rows in _routed(table, model, short=False):
        parts = rows[0]
        for layer, numbers in parts.layers():
            names = [name.format(*numbers) for name in parts.row.all_names]
            pieces = _pieces(parts.row.how, leaf.shape[parts.stacked :], str(leaf.dtype))
            if not pieces:  # a constant, which is checked
                _checked_constant(path, parts.row.how, np.asarray(leaf))
            for which, (name, shape) in enumerate(zip(names, pieces)):
                dtype = np.dtype(parts.row.how.dtype or leaf.dtype)
                piece = Stored(shape, dtype, functools.partial(_piece, leaf, layer, parts.row.how, which, dtype))
                number, count = parts.row.how.share
                if count == 1:
                    found[name] = piece
                else:
                    shares.setdefault(name, {})[number] = piece
    found |= {name: _joined([part for _, part in sorted(given.items())]) for name, given in shares.items()}
    for tied in table.tied:
        if tied.written and tied.of in found:
            found[tied.name] = found[tied.of]
    return found


def placed(stored: Stored, dtype: DTypeLike, sharding: Sharding | None = None) -> Array:
    """A stored array on its devices, of which each is given its part."""
    if sharding is None:
        return jax.device_put(_own(np.asarray(stored.read(...)), dtype))
    parts: dict[str, np.ndarray] = {}  # devices that have the same part share one reading

    def part(index: Any) -> np.ndarray:
        if repr(index) not in parts:
            parts[repr(index)] = _own(np.asarray(stored.read(index)), dtype)
        return parts[repr(index)]

    return jax.make_array_from_callback(stored.shape, sharding, part)


def _own(array: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """The values in memory of their own: JAX does not copy them again, and the file may change."""
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if array.dtype != dtype:
        return array.astype(dtype)
    return array if array.flags.writeable else copied(fresh(array.shape, array.dtype), array)


def some(names: Any) -> str:
    """The number of some names and the first three."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} ({', '.join(names[:3])}{more})"


def paths(model: PyTree) -> list[str]:
    """The paths of a model's arrays, in its order."""
    return [path for path, _ in _arrays(model)]


def names_path(pattern: str, path: str) -> bool:
    """True where the path of a row names this one."""
    return _pattern(pattern).fullmatch(path) is not None


class _Parts(NamedTuple):
    """A row at one parameter.

    Attributes:
        row: with its names shortened.
        numbers: of the blocks; None where the parameter has a leading axis for them.
        sizes: of the leading axes.
    """

    row: Row
    numbers: tuple[int | None, ...]
    sizes: tuple[int, ...]

    @property
    def stacked(self) -> int:
        return len(self.sizes)

    @property
    def names(self) -> list[str]:
        return [name.format(*numbers) for _, numbers in self.layers() for name in self.row.all_names]

    def layers(self, index: tuple[slice, ...] = ()) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        """Position in the leading axes and numbers of the blocks, of each layer that a part of the axes holds."""
        ranges = [range(size)[cut] for size, cut in zip(self.sizes, index or (slice(None),) * self.stacked)]
        for layer in itertools.product(*ranges):
            places = iter(layer)
            yield layer, [next(places) if number is None else number for number in self.numbers]


def _routed(table: Table, shapes: PyTree, *, short: bool = True) -> Iterator[tuple[str, Any, list[_Parts]]]:
    """Each parameter with the rows that name it."""
    rows = [(row._replace(names=tuple(map(table.short, row.all_names))) if short else row) for row in table.rows]
    patterns = [(row, _pattern(row.path)) for row in rows]
    for path, leaf in _arrays(shapes):
        found = []
        for row, pattern in patterns:
            if (hit := pattern.fullmatch(path)) is not None:
                numbers = tuple(None if number is None else int(number) for number in hit.groups())
                found.append(_Parts(row, numbers, leaf.shape[: numbers.count(None)]))
        if not found:
            raise ValueError(
                f"model must be of {table.family}'s architecture, in which there is no parameter {path}: got another"
            )
        yield path, leaf, found


@functools.cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\{\}\.", r"(?:(\d+)\.)?").replace(r"\.\{\}", r"(?:\.(\d+))?"))


def _shortened(table: Table, arrays: Mapping[str, Stored], where: object) -> dict[str, Stored]:
    given: dict[str, Stored] = {}
    for name, stored in arrays.items():
        if (short := table.short(name)) in given:
            raise ValueError(printable(f"{where}: array {name} must be there once: got it under two names"))
        given[short] = stored
    return given


def _tied(table: Table, given: dict[str, Stored], where: object) -> dict[str, str]:
    """Moves the copies out of the way; gives the reason by name."""
    reasons: dict[str, str] = {}
    for tied in table.tied:
        of, pattern = table.short(tied.of), table.short(tied.name).replace("{}", "*")
        for name in [name for name in given if name != of and _like(name, pattern)]:
            copy = given.pop(name)
            if of not in given:
                given[of] = copy
                continue
            if not _equal(copy, given[of]):
                raise ValueError(
                    printable(f"{where}: {name} must equal {of}, as {table.family}'s config ties them: they differ")
                )
            reasons[name] = f"the same as {of}"
    return reasons


def _equal(one: Stored, other: Stored) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and np.array_equal(one.read(...), other.read(...))


def _like(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern.replace("{}", "*").replace("[", "[[]"))


def _leaf(
    path: str, leaf: Any, parts: _Parts, given: Mapping[str, Stored], where: object, cropped: dict[str, int]
) -> Stored:
    """The parameter as a stored array that is put together when it is read."""
    pieces = _pieces(parts.row.how, leaf.shape[parts.stacked :], str(leaf.dtype))
    crop, kinds = parts.row.how.crop, []
    for _, numbers in parts.layers():
        for name, shape in zip((name.format(*numbers) for name in parts.row.all_names), pieces, strict=True):
            stored = given[name]
            if parts.row.how.share[1] > 1:
                shape = (shape[0] * parts.row.how.share[1], *shape[1:])
            _check(where, name, stored, shape, leaf.dtype, crop)
            if stored.shape != shape:
                cropped[name] = stored.shape[0] - shape[0]
            kinds.append(stored.dtype)
    stay = not kinds or parts.row.how.dtype is not None
    dtype = np.dtype(leaf.dtype if stay else functools.reduce(jnp.promote_types, kinds))
    return Stored(leaf.shape, dtype, functools.partial(_assembled, parts, leaf.shape, dtype, given))


def _assembled(
    parts: _Parts, shape: tuple[int, ...], dtype: np.dtype, given: Mapping[str, Stored], index: Any
) -> np.ndarray:
    """A part of a parameter, made in memory of its own."""
    index = (slice(None),) * len(shape) if index is ... else tuple(index)
    index = tuple(slice(*cut.indices(size)) for cut, size in zip(index, shape, strict=True))
    leading, rest, inner = index[: parts.stacked], index[parts.stacked :], shape[parts.stacked :]
    sizes = [len(range(size)[cut]) for size, cut in zip(shape, index)]
    layers = [numbers for _, numbers in parts.layers(leading)]
    made = fresh((len(layers), *sizes[parts.stacked :]), dtype)
    for place, numbers in enumerate(layers):
        into = made[place, ...]
        stored = [_share(given[name.format(*numbers)], *parts.row.how.share) for name in parts.row.all_names]
        if parts.row.how.read is SAME.read:
            copied(into, stored[0].read(rest or ...))
            continue
        layer = np.asarray(parts.row.how.read(tuple(one.read(...) for one in stored)))
        if layer.size != math.prod(inner):  # a constant
            layer = np.broadcast_to(layer, inner)
        if into.shape == inner:  # the axes of a view may be merged as they are copied
            copied(into.reshape(layer.shape), layer)
        else:
            copied(into, layer.reshape(inner)[rest])
    return made.reshape(sizes)


def _share(stored: Stored, number: int, count: int) -> Stored:
    """One of the equal parts of an array along its first axis."""
    if count == 1:
        return stored
    size = stored.shape[0] // count
    part = lambda index: stored.read((slice(number * size, (number + 1) * size),))[index]
    return Stored((size, *stored.shape[1:]), stored.dtype, part)


def _joined(parts: list[Stored]) -> Stored:
    """Arrays one after another along their first axis."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Stored(shape, parts[0].dtype, lambda index: np.concatenate([part.read(...) for part in parts])[index])


@functools.cache
def _pieces(how: Transform, shape: tuple[int, ...], dtype: str) -> list[tuple[int, ...]]:
    """Shapes of the published arrays of a parameter."""
    return [piece.shape for piece in jax.eval_shape(how.write, jax.ShapeDtypeStruct(shape, dtype))]


def _piece(leaf: Any, layer: tuple[int, ...], how: Transform, which: int, dtype: np.dtype, index: Any) -> np.ndarray:
    return np.asarray(how.write(np.asarray(leaf[layer]))[which])[index].astype(dtype, copy=False)


def _checked_constant(path: str, how: Transform, array: np.ndarray) -> None:
    try:
        how.write(array)
    except ValueError as error:
        raise ValueError(f"model.{path} {error}") from None


def _check(where: object, name: str, stored: Stored, shape: tuple[int, ...], dtype: Any, crop: bool) -> None:
    kind, word = (jnp.floating, "floating-point") if jnp.issubdtype(dtype, jnp.inexact) else (jnp.integer, "integers")
    fits = stored.shape == shape
    if crop and stored.shape[1:] == shape[1:] and len(stored.shape) == len(shape):
        fits = stored.shape[0] >= shape[0]
    if not (fits and jnp.issubdtype(stored.dtype, kind)):
        raise ValueError(
            printable(
                f"{where}: array {name} must be {word}{list(shape)}, as the config says: got "
                f"{stored.dtype}{list(stored.shape)}"
            )
        )


def _complete(table: Table, coverage: Coverage, where: object, family: str | None) -> None:
    """Raises `ValueError` for arrays that are missing or not of the model.

    Args:
        family: that the arrays look like.
    """
    if coverage.missing:
        other = family is not None and len(coverage.missing) > len(coverage.read)
        if other and family != re.sub(r"\W", "", table.family).lower():
            what = (
                f"of a {table.family} are missing ({coverage.missing[0]}, ...): they look like those of {family}: give"
            )
            raise ValueError(printable(f'{where}: {len(coverage.missing)} arrays {what} family="{family}"'))
        what = f"is missing{_more(coverage.missing)}: is it a {table.family} of the sizes that its config names?"
        raise ValueError(printable(f"{where}: array {coverage.missing[0]} {what}"))
    if coverage.extra:
        what = f"is not of a {table.family} of this config{_more(coverage.extra)}"
        raise ValueError(printable(f"{where}: array {coverage.extra[0]} {what}"))


def _more(names: tuple[str, ...]) -> str:
    """The others of some names, after the first."""
    if len(names) == 1:
        return ""
    return f", and {len(names) - 1} more ({', '.join(names[1:3])}{', ...' if len(names) > 3 else ''})"


def _arrays(tree: PyTree) -> list[tuple[str, Any]]:
    flat = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, _is_array))[0]
    return [(jax.tree_util.keystr(key, simple=True, separator="."), leaf) for key, leaf in flat]


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
