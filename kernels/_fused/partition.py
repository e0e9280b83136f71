"""Division of a fused op over devices, along axes on which its parts are independent.

XLA cannot derive that independence from a loop or a kernel, and would gather the operands. Where the sharding is known
while tracing, the op is mapped over it by `jax.shard_map`; elsewhere a rule of the op tells XLA how to partition it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec

from .._compat import mesh_axes


@dataclasses.dataclass(frozen=True)
class Axes:
    """The axes of an op's operands and results, one letter each.

    Attributes:
        operands, results: the letters of each array, such as "bhqx".
        factors: Shardy factors of each letter along which the op may be divided, such as {"b": "b", "h": "(g r)"}; a
            letter is divided along its first factor. All other axes stay whole.
        divisors: the sizes of first factors that the number of devices must divide.
        sizes: the sizes of the other factors in parentheses.
    """

    operands: tuple[str, ...]
    results: tuple[str, ...]
    factors: Mapping[str, str]
    divisors: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def first(self, letter: str) -> str:
        """The factor along which a letter is divided."""
        return self.factors[letter].strip("()").split()[0]

    def placement(self, role: str, parts: Iterable[Any]) -> dict[str, Any]:
        """The mesh axes of each letter for an array of this role with its axes sharded over `parts`."""
        places = {self.first(letter): names for letter, names in zip(role, parts) if letter in self.factors and names}
        return {letter: places.get(self.first(letter)) for letter in self.factors}


@dataclasses.dataclass(frozen=True)
class Places:
    """The mesh axes over which `jax.shard_map` divides an op.

    Attributes:
        parts: the mesh axes of each axis of the first operand, whose sizes they divide.
        manual: the mesh axes that the map makes manual, those of `parts` among them.
    """

    parts: tuple[tuple[str, ...], ...]
    manual: tuple[str, ...]


def shard(
    function: Callable[..., tuple],
    operands: Sequence[Any],
    results: Sequence[Any],
    roles: Sequence[str],
    out_roles: Sequence[str],
    axes: Axes,
    places: Places,
) -> Any:
    """`function(*operands)` by `jax.shard_map`, for results of the shapes of `results`; sums are those of `divide`."""
    placement = axes.placement(roles[0], places.parts)

    def local(*operands):
        return _sums(function(*operands), out_roles, results, placement)

    specs = lambda roles, arrays: tuple(_spec(placement, role, x.shape) for role, x in zip(roles, arrays))
    mapped = jax.shard_map(
        local,
        in_specs=specs(roles, operands),
        out_specs=specs(out_roles, results),
        axis_names=set(places.manual),
        check_vma=False,
    )
    return mapped(*operands)


def divide(
    function: Callable[..., tuple], operands: Sequence[Any], roles: Sequence[str], out_roles: Sequence[str], axes: Axes
) -> Any:
    """`function(*operands)`, partitioned along the factors of `axes` as its first operand is.

    A result that has size 1 along a divided axis is the sum over it, such as the gradient of a bias that all examples
    share.
    """

    def infer(mesh, arg_shapes, result_shapes):
        return tuple(_shardings(mesh, _placement(axes, mesh, roles[0], arg_shapes[0]), out_roles, result_shapes))

    def partition(mesh, arg_shapes, result_shapes):
        placement = _placement(axes, mesh, roles[0], arg_shapes[0])

        def local(*operands):
            return _sums(function(*operands), out_roles, result_shapes, placement)

        return (
            mesh,
            functools.partial(_PART.bind, function=local if any(placement.values()) else function),
            tuple(_shardings(mesh, placement, out_roles, result_shapes)),
            tuple(_shardings(mesh, placement, roles, arg_shapes)),
        )

    rule, whole = _rule(axes, operands, roles, jax.eval_shape(function, *operands), out_roles)
    sizes: Any = axes.sizes
    # The cast to a nested program keeps constants out of the outer one, where `custom_partitioning` takes none.
    wrapped = custom_partitioning(jax.jit(function))
    wrapped.def_partition(
        partition=partition,
        infer_sharding_from_operands=infer,
        sharding_rule=rule,
        need_replication_factors=tuple(whole),
        decode_shardings=False,
        **sizes,
    )
    return wrapped(*operands)


_PART = Primitive("eqxgen_part")
_PART.multiple_results = True


@_PART.def_abstract_eval
def _(*avals, function):
    return [jax.typeof(x) for x in jax.eval_shape(function, *avals)]


def _lower_part(context, *operands, function):
    """A device's part of a call. It has no mesh, while that of `jax.set_mesh` is still set when XLA partitions."""
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        context = context.replace(avals_in=[x.update(sharding=None) for x in context.avals_in])
        return mlir.lower_fun(function, multiple_results=True)(context, *operands)


mlir.register_lowering(_PART, _lower_part)


def _placement(axes: Axes, mesh, role: str, shape) -> dict[str, Any]:
    """The mesh axes of each letter, from the sharding of the first operand."""
    placement = axes.placement(role, mesh_axes(shape.sharding, mesh, len(shape.shape)))
    for letter, names in placement.items():
        if axes.divisors.get(axes.first(letter), 0) % math.prod(mesh.shape[name] for name in _names(names)):
            placement[letter] = None
    return placement


def _names(names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _shardings(mesh, placement, roles, shapes) -> list[NamedSharding]:
    return [NamedSharding(mesh, _spec(placement, role, x.shape)) for role, x in zip(roles, shapes)]


def _spec(placement, role: str, shape: tuple[int, ...]) -> PartitionSpec:
    return PartitionSpec(*(placement.get(letter) if size > 1 else None for letter, size in zip(role, shape)))


def _sums(parts, roles, whole, placement) -> tuple:
    return tuple(_summed(x, role, y.shape, placement) for role, x, y in zip(roles, parts, whole))


def _summed(x, role: str, shape: tuple[int, ...], placement):
    """A device's part of a result of this shape, added to the other devices' where each has the whole shape."""
    names = [placement[letter] for letter, size in zip(role, shape) if size == 1 and placement.get(letter)]
    axes = [axis for name in names for axis in _names(name)]
    if not axes:
        return x
    return jax.lax.psum(x.astype(jax.numpy.promote_types(x.dtype, jax.numpy.float32)), axes).astype(x.dtype)


def _rule(axes: Axes, operands, roles, results, out_roles) -> tuple[str, list[str]]:
    """The rule for Shardy: the shared factors, and one factor of its own for each axis that stays whole."""
    whole: list[str] = []

    def factors(role, shape):
        names = []
        for letter, size in zip(role, shape):
            if size > 1 and letter in axes.factors:
                names.append(axes.factors[letter])
            else:
                whole.append(f"w{len(whole)}")
                names.append(whole[-1])
        return " ".join(names)

    left = ", ".join(factors(role, x.shape) for role, x in zip(roles, operands))
    right = ", ".join(factors(role, x.shape) for role, x in zip(out_roles, results))
    return f"{left} -> {right}", whole
