"""How a program on several devices splits attention: over examples and key heads, without moving a key.

XLA cannot see through a loop or a kernel that one example's heads are independent, and would gather.
"""

from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from .problem import accumulator


def split(function, operands, roles: list[str], out_roles: list[str], *, kv_heads: int, heads: int):
    """`function(*operands)`, partitioned along the axes `b`, `h` (heads) and `g` (key heads) that the roles name, one
    letter per axis.

    A result that has size 1 along one of them is the sum over it, such as the gradient of a bias that all examples
    share.
    """

    def places(mesh, arg_shapes):
        first = arg_shapes[0].sharding
        spec = (*first.spec, None, None) if isinstance(first, NamedSharding) else (None, None)
        batch, head = spec[0], spec[1]
        names = (head,) if isinstance(head, str) else (head or ())
        count = 1
        for name in names:
            count *= mesh.shape[name]
        head = head if kv_heads % count == 0 else None
        return {"b": batch, "h": head, "g": head}

    def specs(mesh, arg_shapes, roles, shapes):
        place = places(mesh, arg_shapes)
        return [
            NamedSharding(
                mesh, PartitionSpec(*(place.get(r) if size > 1 else None for r, size in zip(role, shape.shape)))
            )
            for role, shape in zip(roles, shapes)
        ]

    def partition(mesh, arg_shapes, result_shapes):
        place = places(mesh, arg_shapes)

        def local(*operands):
            parts = function(*operands)
            return tuple(
                _summed(x, role, whole.shape, place) for role, x, whole in zip(out_roles, parts, result_shapes)
            )

        return (
            mesh,
            local if place["b"] or place["h"] else function,
            tuple(specs(mesh, arg_shapes, out_roles, result_shapes)),
            tuple(specs(mesh, arg_shapes, roles, arg_shapes)),
        )

    def infer(mesh, arg_shapes, result_shapes):
        return tuple(specs(mesh, arg_shapes, out_roles, result_shapes))

    rule, alone = _rule(operands, roles, out_roles, function, heads // kv_heads, kv_heads)
    sizes: Any = {"r": heads // kv_heads} if heads != kv_heads and kv_heads > 1 else {}
    # The cast to a nested program keeps constants out of the outer one, where `custom_partitioning` takes none.
    wrapped = custom_partitioning(jax.jit(function))
    wrapped.def_partition(
        partition=partition,
        infer_sharding_from_operands=infer,
        sharding_rule=rule,
        need_replication_factors=tuple(alone),
        **sizes,
    )
    return wrapped(*operands)


def _summed(x, role: str, shape: tuple[int, ...], place):
    """A device's part of a result of this shape, added to the other devices' where each has the whole shape."""
    names = [place[letter] for letter, size in zip(role, shape) if size == 1 and place.get(letter)]
    axes = [axis for name in names for axis in ((name,) if isinstance(name, str) else name)]
    return jax.lax.psum(x.astype(accumulator(x.dtype)), axes).astype(x.dtype) if axes else x


def _rule(operands, roles, out_roles, function, repeat: int, kv_heads: int) -> tuple[str, list[str]]:
    """The rule for Shardy: shared factors for examples and heads, and one factor for each other axis, which stays
    whole.
    """
    alone: list[str] = []
    head = "(g r)" if repeat > 1 else "g"

    def factors(role, shape):
        names = []
        for letter, size in zip(role, shape):
            if size > 1 and (letter == "b" or (letter in "gh" and kv_heads > 1)):
                names.append({"b": "b", "g": "g", "h": head}[letter])
            else:
                alone.append(f"w{len(alone)}")
                names.append(alone[-1])
        return " ".join(names)

    results = jax.eval_shape(function, *operands)
    left = ", ".join(factors(role, x.shape) for role, x in zip(roles, operands))
    right = ", ".join(factors(role, x.shape) for role, x in zip(out_roles, results))
    return f"{left} -> {right}", alone
