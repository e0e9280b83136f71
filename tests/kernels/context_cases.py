"""Run by test_context.py in a process of its own: attention over a sequence that is sharded over virtual devices, in
float64, against one device. Prints, as JSON, the largest relative difference of each row's values and gradients.

  python -m tests.kernels.context_cases [short|long]
"""

import json
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from kernels import ALiBi, context_attention, dot_product_attention, from_zigzag, masks, to_zigzag

BATCH, HEADS, DIM, V_DIM = 2, 8, 8, 6
PREFIX = np.array([5, 17])
KEYS = np.array([43, 9])
QUERIES = np.array([48, 30])


class Row(NamedTuple):
    """A call. `arrays` has numbers for each token or pair, which are sharded; `call` adds them to the arguments."""

    arrays: Any = ()
    specs: Any = ()
    axes: Any = ()
    call: Any = lambda *arrays: {}
    kv_heads: int = 8
    movable: int = 0


draw = np.random.default_rng(0)


def rows(seq: int) -> dict[str, Row]:
    """The table for sequences of this length."""
    ids = np.sort(draw.integers(0, 3, (BATCH, seq)), 1)
    apart = np.where(draw.random((BATCH, seq)) < 0.1, 7, ids)  # a key of no document
    dense = draw.random((BATCH, 1, seq, seq)) < 0.6
    dense[0, 0, 3] = False
    bias = draw.standard_normal((HEADS, seq, seq))
    slopes = np.asarray(0.1 * np.arange(1, HEADS + 1))
    blocks = masks.BlockSparse.strided(-(-seq // 8), block=8, stride=3)
    pairs = P(None, None, "context", None)
    lengths = {"query_seq_lengths": QUERIES * seq // 48, "key_value_seq_lengths": KEYS * seq // 48}
    return {
        "no mask": Row(),
        "causal": Row(call=lambda: {"is_causal": True}),
        "window, 2 key heads": Row(call=lambda: {"mask": masks.Window(11, 2)}, kv_heads=2),
        "causal segments": Row(
            (ids,), (P(None, "context"),), ((1,),), lambda x: {"mask": masks.Causal() & masks.Segments(x)}
        ),
        "segments of queries and keys": Row(
            (ids, apart),
            (P(None, "context"),) * 2,
            ((1,), (1,)),
            lambda q, k: {"mask": masks.Segments(q, k) | masks.Window(0, 0)},
        ),
        "lengths": Row(call=lambda: lengths),
        "causal, ALiBi": Row((slopes,), (P(),), ((),), lambda x: {"bias": ALiBi(x, 3), "is_causal": True}, 8, 1),
        "bias": Row((bias,), (P(None, "context"),), ((1, 2),), lambda x: {"bias": x}, 1, 1),
        "bias of keys": Row((bias[:, :1],), (P(),), ((2,),), lambda x: {"bias": x, "is_causal": True}, 8, 1),
        "dense": Row((dense,), (pairs,), ((2, 3),), lambda x: {"mask": x}),
        "prefix": Row(call=lambda: {"mask": masks.PrefixLM(PREFIX)}),
        "cached, soft cap": Row(call=lambda: {"mask": masks.Causal(PREFIX), "logits_soft_cap": 2.0, "scale": 0.5}),
        "sparse blocks": Row(call=lambda: {"mask": blocks}),
    }


def difference(got, want) -> float:
    """The largest difference, relative to the largest number."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    found = [np.max(np.abs(np.asarray(a) - np.asarray(b))) / max(np.max(np.abs(b)), 1e-300) for a, b in pairs]
    return float(np.max(found))  # NaN if any is


def loss(attend, row: Row, weights, total):
    """`loss(q, k, v, *arrays) -> (total, (out, logsumexp))` with a cotangent for each number."""

    def function(q, k, v, w, u, *arrays):
        out, lse = attend(q, k, v, return_residual=True, **row.call(*arrays))
        finite = jnp.where(lse == -jnp.inf, 0.0, lse)
        return total(jnp.sum(out * w) + jnp.sum(finite * u)), (out, finite)

    return function


def compare(seq: int, row: Row, devices: int, method: str, order: str, *, vma: bool, second: bool) -> dict[str, float]:
    """Largest relative differences of values, gradients and, with `second`, of forward over reverse mode."""
    shapes = {"q": (HEADS, DIM), "k": (row.kv_heads, DIM), "v": (row.kv_heads, V_DIM), "w": (HEADS, V_DIM)}
    main = [draw.standard_normal((BATCH, seq, *shape)) for shape in shapes.values()]
    main.append(draw.standard_normal((BATCH, seq, HEADS)))
    moving = (0, 1, 2, *range(5, 5 + row.movable))
    tangents = [draw.standard_normal(x.shape) for x in (*main[:3], *row.arrays[: row.movable])]

    def derivatives(function):
        gradient = jax.value_and_grad(function, moving, has_aux=True)

        def all_of(operands, tangents):
            if not second:
                return gradient(*operands)

            def of_moving(*first):
                every = list(operands)
                for i, x in zip(moving, first):
                    every[i] = x
                return gradient(*every)

            return jax.jvp(of_moving, tuple(operands[i] for i in moving), tuple(tangents))

        return all_of

    want = jax.jit(derivatives(loss(dot_product_attention, row, None, lambda x: x)))((*main, *row.arrays), tangents)

    mesh = jax.make_mesh((devices,), ("context",), devices=jax.devices()[:devices])
    moved = (lambda x, axes: _each(to_zigzag, x, devices, axes)) if order == "zigzag" else (lambda x, axes: x)
    back = (lambda x, axes: _each(from_zigzag, x, devices, axes)) if order == "zigzag" else (lambda x, axes: x)
    attend = lambda *a, **kw: context_attention(*a, axis_name="context", method=method, order=order, **kw)
    # Without the check the transpose of a sum is a sum, and each device has its own part of a shared array's gradient.
    total = (lambda x: jax.lax.psum(x, "context")) if vma else (lambda x: x)
    local = derivatives(loss(attend, row, None, total))

    def of_parts(operands, tangents):
        results = local(operands, tangents)
        if vma:
            return results

        def whole(result):
            (value, aux), grads = result
            own = [
                g if "context" in jax.tree.leaves(tuple(s)) else jax.lax.psum(g, "context")
                for g, s in zip(grads, specs_of_moving)
            ]
            return (jax.lax.psum(value, "context"), aux), tuple(own)

        return tuple(whole(x) for x in results) if second else whole(results)

    tokens = P(None, "context")
    specs = (*(tokens,) * 5, *row.specs)
    axes = (*((1,),) * 5, *row.axes)
    specs_of_moving, axes_of_moving = ([x[i] for i in moving] for x in (specs, axes))
    out = (P(), (tokens, tokens)), tuple(specs_of_moving)
    mapped = jax.shard_map(
        of_parts,
        mesh=mesh,
        in_specs=(specs, tuple(specs_of_moving)),
        out_specs=(out, out) if second else out,
        check_vma=vma,
    )

    def given(arrays, axes, specs):
        return tuple(jax.device_put(moved(x, a), NamedSharding(mesh, s)) for x, a, s in zip(arrays, axes, specs))

    got = jax.jit(mapped)(given((*main, *row.arrays), axes, specs), given(tangents, axes_of_moving, specs_of_moving))

    def unmoved(result):
        (value, aux), grads = result
        aux = tuple(back(x, (1,)) for x in aux)
        return (value, aux), tuple(back(g, a) for g, a in zip(grads, axes_of_moving))

    if not second:
        got, want = (got,), (want,)
    names = ("value", "gradient"), ("tangent", "second order")
    return {name: difference(x, y) for part, a, b in zip(names, got, want) for name, x, y in zip(part, unmoved(a), b)}


def _each(move, x, devices: int, axes):
    x = np.asarray(x)
    for axis in axes:
        x = move(x, devices, axis=axis)
    return x


SHORT = [
    ("no mask", 4, "ring", "contiguous", True, True),
    ("causal", 4, "ring", "zigzag", True, False),
    ("window, 2 key heads", 8, "ring", "contiguous", False, False),
    ("segments of queries and keys", 2, "ring", "zigzag", True, False),
    ("causal, ALiBi", 4, "ring", "zigzag", True, False),
    ("bias", 4, "ring", "zigzag", False, False),
    ("lengths", 2, "all_to_all", "zigzag", True, False),
    ("bias", 2, "all_to_all", "zigzag", True, False),
]


def cases(kind: str):
    """`(seq, name, devices, method, order, vma, second)` of each comparison."""
    if kind == "short":
        return [(48, *case) for case in SHORT]
    table = rows(48)
    every = [
        (48, name, devices, method, order, vma, devices == 4)
        for name in table
        for devices in (1, 2, 4, 8)
        for method, order in (("ring", "contiguous"), ("ring", "zigzag"), ("all_to_all", "zigzag"))
        for vma in (True, False)
    ]
    return every + [(2560, name, 8, "ring", order, True, False) for name in table for order in ("contiguous", "zigzag")]


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    found = {}
    tables: dict[int, dict[str, Row]] = {}
    for seq, name, devices, method, order, vma, second in cases(sys.argv[1]):
        row = tables.setdefault(seq, rows(seq))[name]
        differences = compare(seq, row, devices, method, order, vma=vma, second=second)
        label = f"{name}, {seq} tokens, {devices} devices, {method}, {order}, check_vma={vma}"
        found[label] = differences
        print(label, differences, file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
