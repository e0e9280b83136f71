"""How a program on several devices splits attention: over examples and key heads, without moving a key.

XLA cannot see through a loop or a kernel that one example's heads are independent, and would gather.
"""

from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


def split(function, operands, roles: list[str], out_roles: list[str], *, kv_heads: int, heads: int):
    """`function(*operands)`, partitioned along the axes `b`, `h` (heads) and `g` (key heads) that the roles name, one letter per axis."""

    def specs(mesh, arg_shapes, roles, shapes):
        first = arg_shapes[0].sharding
        spec = (*first.spec, None, None) if isinstance(first, NamedSharding) else (None, None)
        batch, head = spec[0], spec[1]
        names = (head,) if isinstance(head, str) else (head or ())
        count = 1
        for name in names:
            count *= mesh.shape[name]
        head = head if kv_heads % count == 0 else None
        place = {"b": batch, "h": head, "g": head}
        return [
            NamedSharding(mesh, PartitionSpec(*(place.get(r) if size > 1 else None for r, size in zip(role, shape.shape))))
            for role, shape in zip(roles, shapes)
        ]

    def partition(mesh, arg_shapes, result_shapes):
        return (
            mesh,
            function,
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
        partition=partition, infer_sharding_from_operands=infer, sharding_rule=rule, need_replication_factors=tuple(alone), **sizes
    )
    return wrapped(*operands)


def _rule(operands, roles, out_roles, function, repeat: int, kv_heads: int) -> tuple[str, list[str]]:
    """The rule for Shardy: shared factors for examples and heads, and one factor for each other axis, which stays whole."""
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
