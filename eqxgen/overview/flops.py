"""Arithmetic operations of a traced program, in total and for each marked part."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

MARK = re.compile(r"~(\d+)~")
"""The mark of a part: `jax.named_scope("~7~")`."""
AGAIN = "rematted_computation"
"""Name in JAX of the recomputation of `jax.checkpoint`."""


def flops(jaxpr: Any) -> int:
    """Operations of a program over all devices of its `shard_map`s, counted as in `by_mark`."""
    return by_mark(jaxpr).total()


def by_mark(jaxpr: Any, mark: int = 0, times: int = 1) -> Counter[int]:
    """Operations of products and convolutions by innermost mark; `mark` is that of the program itself.

    A multiplication and an addition are two operations, as usual; elementwise operations do not count. A `scan` counts
    with its length, other loops count once, and a `cond` counts its largest branch. Recomputation by `jax.checkpoint`
    or
    in the backward pass of attention does not count: these are the operations of the model, as in model FLOPs
    utilisation (Chowdhery et al. 2022, "PaLM", appendix B). Attention counts without its mask.
    """
    counts: Counter[int] = Counter()
    for equation in jaxpr.eqns:
        names = str(equation.source_info.name_stack)
        if AGAIN in names:
            continue
        found = MARK.findall(names)
        here = int(found[-1]) if found else mark
        if own := _operations(equation):
            counts[here] += times * own
            continue
        turns = _turns(equation)
        inner = [by_mark(part, here, times * turns) for part in _inside(equation)]
        if equation.primitive.name == "cond":
            inner = [max(inner, key=Counter.total)]
        for part in inner:
            counts.update(part)
    return counts


def _operations(equation: Any) -> int:
    shapes: list[Any] = [getattr(x.aval, "shape", ()) for x in equation.invars]
    out: Any = getattr(equation.outvars[0].aval, "shape", ()) if equation.outvars else ()
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            return 2 * math.prod(out) * math.prod(shapes[0][axis] for axis in contracted)
        case "conv_general_dilated":
            # rhs_spec has the kernel's axes (outputs, inputs of one group, *spatial).
            inputs, *spatial = equation.params["dimension_numbers"].rhs_spec[1:]
            places = math.prod(shapes[1][axis] for axis in spatial)
            return 2 * math.prod(out) * places * shapes[1][inputs] // math.prod(equation.params["lhs_dilation"])
        case "eqxgen_attention" | "eqxgen_attention_tangent" | "eqxgen_attention_backward" as name:
            (batch, q_seq, heads, head_dim), (_, kv_seq, *_), (*_, v_head_dim) = shapes[:3]
            passes = 1 if name == "eqxgen_attention" else 2
            # By a ring the queries see the keys of all its devices, and the operands are those of one.
            passes *= getattr(getattr(equation.params["op"], "geometry", None), "devices", 1)
            return passes * 2 * batch * heads * q_seq * kv_seq * (head_dim + v_head_dim)
        case _:
            return 0


def _turns(equation: Any) -> int:
    """Repetitions of the inner program, by a loop or by devices."""
    match equation.primitive.name:
        case "scan":
            return equation.params["length"]
        case "shard_map":
            mesh = equation.params["mesh"]
            return math.prod(mesh.shape[axis] for axis in equation.params["newly_manual_axes"])
        case "pallas_call":  # a norm: no large products
            return 0
        case _:
            return 1


def _inside(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part
