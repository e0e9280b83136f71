"""How much arithmetic a traced program asks for, and in which of its marked parts."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

MARK = re.compile(r"~(\d+)~")
"""How a part is marked: `jax.named_scope("~7~")`."""


def by_mark(jaxpr: Any, mark: int = 0, times: int = 1) -> Counter[int]:
    """Operations of the products and convolutions under each mark, the innermost counting; `mark` is that of the program itself.

    A multiplication and an addition are two operations, as is usual; what is elementwise is not counted. Loops count as often as they
    turn, where that is known (`scan`); otherwise once. Of a `cond` the branch with the most operations counts.
    """
    counts: Counter[int] = Counter()
    for equation in jaxpr.eqns:
        found = MARK.findall(str(equation.source_info.name_stack))
        here = int(found[-1]) if found else mark
        if own := _operations(equation):
            counts[here] += times * own
            continue
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
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
            # The kernel's axes are given as (outputs, inputs of one group, *spatial).
            inputs, *spatial = equation.params["dimension_numbers"].rhs_spec[1:]
            places = math.prod(shapes[1][axis] for axis in spatial)
            return 2 * math.prod(out) * places * shapes[1][inputs] // math.prod(equation.params["lhs_dilation"])
        case "eqxgen_attention":
            (batch, heads, q_seq, head_dim), (*_, kv_seq, _), (*_, v_head_dim) = shapes[:3]
            return 2 * batch * heads * q_seq * kv_seq * (head_dim + v_head_dim)
        case _:
            return 0


def _inside(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part
