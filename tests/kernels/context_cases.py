"""Run by test_context.py in a process of its own: attention over a sequence that is sharded over virtual devices, in
float64, against one device. Prints, as JSON, the largest relative difference of each row's values and gradients.

  python -m tests.kernels.context_cases [short|long|special]
"""

import functools
import json
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
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
        (_, aux), grads = result
        return tuple(back(x, (1,)) for x in aux), tuple(back(g, a) for g, a in zip(grads, axes_of_moving))

    if not second:
        got, want = (got,), (want,)
    names = ("value", "gradient"), ("tangent", "second order")
    # The total is a sum whose terms cancel, so it is not compared.
    return {
        name: difference(x, y)
        for part, a, ((_, aux), grads) in zip(names, got, want)
        for name, x, y in zip(part, unmoved(a), (aux, grads))
    }


def _each(move, x, devices: int, axes):
    x = np.asarray(x)
    for axis in axes:
        x = move(x, devices, axis=axis)
    return x


SHORT = [
    ("causal segments", 2, "ring", "contiguous", True, True),
    ("bias", 4, "ring", "zigzag", False, False),
    ("window, 2 key heads", 2, "all_to_all", "zigzag", True, False),
]
# Devices, method, order, check_vma and whether to take the second order too.
WAYS = [
    (4, "ring", "zigzag", True, True),
    (8, "ring", "contiguous", True, False),
    (2, "ring", "zigzag", False, False),
    (8, "all_to_all", "zigzag", True, False),
    (2, "all_to_all", "contiguous", False, False),
]


def cases(kind: str):
    """`(seq, name, devices, method, order, vma, second)` of each comparison."""
    if kind == "short":
        return [(48, *case) for case in SHORT]
    names = rows(48)
    small = [(48, name, *way) for way in WAYS for name in names]
    alone = [(48, "bias", 1, *way[1:]) for way in WAYS]
    # Enough tokens on a device for loops over tiles.
    tiled = [(2560, name, 4, "ring", "zigzag", True, False) for name in names]
    return tiled + small + alone


def special() -> dict[str, float]:
    """Dropout, numbers that are not finite, a batch over an explicit mesh axis, and memory."""
    mesh = jax.make_mesh((4,), ("context",), devices=jax.devices()[:4])
    tokens, key, rate = P(None, "context"), jax.random.key(3), 0.25
    q, k, weights = (draw.standard_normal((1, 48, HEADS, size)) for size in (DIM, DIM, 48))
    seen = np.broadcast_to(np.eye(48)[None, :, None], (1, 48, HEADS, 48)).copy()  # values that read the weights off

    def mapped(function, places=mesh, specs=(tokens,) * 4, out=tokens, **options):
        placed = jax.jit(jax.shard_map(function, mesh=places, in_specs=specs, out_specs=out, **options))
        return lambda *x: placed(*(jax.device_put(a, NamedSharding(places, s)) for a, s in zip(x, specs)))

    def dropped(q, k, v, w, **options):
        attend = lambda v: context_attention(
            q, k, v, axis_name="context", dropout_rate=rate, dropout_key=key, is_causal=True, **options
        )
        out, pull = jax.vjp(attend, v)
        return out, pull(w)[0]

    plain = np.asarray(dot_product_attention(q, k, seen, is_causal=True))
    ring, gradient = map(np.asarray, mapped(functools.partial(dropped, method="ring"))(q, k, seen, weights))
    kept = ring != 0
    pairs = np.einsum("bqhk,bqhv->bkhv", ring, weights)
    found = {
        "ring: difference of the kept weights": float(np.max(np.abs(np.where(kept, ring * (1 - rate) - plain, 0)))),
        "ring: share of the kept weights": float(kept.sum() / (plain != 0).sum()),
        "ring: difference of the value's gradient": difference([gradient], [pairs]),
    }
    heads, _ = mapped(functools.partial(dropped, method="all_to_all"))(q, k, seen, weights)
    one = dot_product_attention(q, k, seen, dropout_rate=rate, dropout_key=key, is_causal=True)
    found["all_to_all: difference of the dropped weights from one device's"] = difference([heads], [one])

    k[0, 30, 2], v = np.nan, draw.standard_normal((1, 48, HEADS, V_DIM))
    v[0, 41, 3] = np.inf
    attend = functools.partial(context_attention, axis_name="context", method="ring")
    got = mapped(lambda q, k, v: attend(q, k, v, is_causal=True), specs=(tokens,) * 3)(q, k, v)
    want = np.asarray(dot_product_attention(q, k, v, is_causal=True))
    finite = np.isfinite(want)
    found["other rows than one device's are not finite"] = int((np.isfinite(got) != finite).sum())
    found["difference of the rows that are finite"] = difference([np.asarray(got)[finite]], [want[finite]])

    both = jax.make_mesh((2, 4), ("data", "context"), axis_types=(AxisType.Explicit, AxisType.Explicit))
    q, k, v = (draw.standard_normal((BATCH, 48, HEADS, size)) for size in (DIM, DIM, V_DIM))
    total = lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v, is_causal=True)))
    with jax.set_mesh(both):
        placed = [jax.device_put(x, NamedSharding(both, P("data", "context"))) for x in (q, k, v)]
        part = jax.shard_map(
            jax.grad(total, (0, 1, 2)), in_specs=(tokens,) * 3, out_specs=(tokens,) * 3, axis_names={"context"}
        )
        got = jax.jit(part)(*placed)
    whole = lambda q, k, v: jnp.sum(jnp.sin(dot_product_attention(q, k, v, is_causal=True)))
    found["data over an explicit axis: difference"] = difference(got, jax.jit(jax.grad(whole, (0, 1, 2)))(q, k, v))
    square = jax.make_mesh((2, 2), ("a", "b"), devices=jax.devices()[:4])
    names, over = ("a", "b"), P(None, ("a", "b"))
    for implementation in (None, "reference"):
        attend = functools.partial(
            context_attention, axis_name=names, method="ring", is_causal=True, implementation=implementation
        )
        # JAX's `vmap` folds the examples into the op's batch.
        total = lambda q, k, v, attend=attend: jnp.sum(jnp.sin(jax.vmap(attend)(q, k, v)))
        got = mapped(jax.grad(total, (0, 1, 2)), square, (over,) * 3, (over,) * 3)(q, k, v)
        want = jax.jit(jax.grad(whole, (0, 1, 2)))(q, k, v)
        found[f"vmap over two mesh axes, {implementation}: difference"] = difference(got, want)
    found["memory of 8 devices over 4"] = _memory(8) / _memory(4)
    return found


def _memory(devices: int) -> int:
    """Temporary bytes of a device's gradients, for 1024 tokens on each."""
    mesh = jax.make_mesh((devices,), ("context",), devices=jax.devices()[:devices])
    spec = P(None, "context")
    x = jax.ShapeDtypeStruct((1, 1024 * devices, 2, 64), jnp.float32, sharding=NamedSharding(mesh, spec))
    total = lambda q, k, v: jnp.sum(jnp.sin(context_attention(q, k, v, axis_name="context", method="ring")))
    part = jax.shard_map(jax.grad(total, (0, 1, 2)), mesh=mesh, in_specs=(spec,) * 3, out_specs=(spec,) * 3)
    compiled: Any = jax.jit(part).lower(x, x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    if sys.argv[1] == "special":
        print(json.dumps(special()))
        return
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
