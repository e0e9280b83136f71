"""Run by test_explicit_places.py in a process of its own: calls on explicit mesh axes of eight virtual devices, each
mapped over its independent axes, against the same calls on one device.

Prints, as JSON, the number of cases and those that fail and why; EQXGEN_FULL=1 takes every case. The kernels are those of TPUs, by name, in Pallas' interpreter: such a
kernel is refused in a program that XLA partitions.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kernels import ALiBi, dot_product_attention, group_norm, layer_norm, masks
from tests.full import FULL

SIZES = {"data": 2, "model": 4}
KERNEL = "mosaic_tpu"
SUMS = ("all-reduce",)
# The gradient of key heads that each device has whole is whole on each device too.
SHARED = ("all-reduce", "all-gather")
DRAW = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of floating arrays and their specs, and the communication that its program may hold."""

    function: Callable[..., Any]
    arrays: tuple[Any, ...]
    specs: tuple[PartitionSpec, ...]
    words: tuple[str, ...] = ()
    derivative: str = "gradient"


def normal(*shape: int) -> Any:
    return jnp.asarray(DRAW.standard_normal(shape), jnp.float32)


def sines(results: Any) -> Any:
    return sum(jnp.sum(jnp.sin(jnp.where(jnp.isfinite(y), y, 0))) for y in jax.tree.leaves(results))


def attend(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> Any:
    return dot_product_attention(q, k, v, *rest, return_residual=True, **{"implementation": KERNEL} | options)


def packed(ids: Any, spec: PartitionSpec, **options: Any) -> Callable[..., Any]:
    """Attention with documents, dropout and a bias; the ids are sharded too."""

    def function(q: Any, k: Any, v: Any, bias: Any) -> Any:
        mask = masks.Segments(jax.sharding.reshard(ids, spec) if jax.typeof(q).sharding.spec[0] else ids)
        return attend(q, k, v, bias, mask, dropout_rate=0.2, dropout_key=jax.random.key(1), **options)

    return function


def cases() -> dict[str, Case]:
    spec = PartitionSpec
    split, batch = spec("data", None, "model"), spec("data")
    q, few, alike = normal(2, 9, 4, 8), normal(2, 9, 2, 8), normal(2, 9, 4, 8)
    ids = jnp.asarray(np.sort(DRAW.integers(0, 3, (2, 9)), 1))
    x, row, shift = normal(4, 8, 16), normal(16), normal(4, 1, 16)
    adaptive = lambda x, h, row, shift: layer_norm(
        x, row, row, residual=h, modulation=(shift, shift), implementation=KERNEL
    )
    groups = lambda x, row: jax.vmap(
        lambda x: group_norm(x, row, row, groups=4, batch_dims=0, activation="silu", implementation=KERNEL)
    )(x)
    mapped = lambda *arrays: jax.vmap(lambda *a: attend(*a))(*arrays)
    xla = lambda *arrays: attend(*arrays, is_causal=True, implementation="xla")
    slopes = lambda q, k, slopes: attend(q, k, k, ALiBi(slopes), is_causal=True)
    documents = (q, alike, alike, normal(1, 4, 1, 9)), (split, split, split, spec(None, "model")), SUMS
    short = {
        "documents, dropout and a shared bias": Case(packed(ids, batch, implementation="xla"), *documents),
        "fewer key heads than devices": Case(attend, (q, few, few), (split, batch, batch), SHARED),
        "a sharded mapped axis": Case(mapped, (q, alike, alike), (split,) * 3),
        "layer norm": Case(
            adaptive, (x, x + 1, row, shift), (spec("data", "model"),) * 2 + (spec(), spec("data")), SUMS
        ),
    }
    if not FULL:
        return short
    return short | {
        "documents by the kernel": Case(packed(ids, batch), *documents),
        "one key head": Case(attend, (q, few[:, :, :1], few[:, :, :1]), (split, batch, batch), SUMS),
        "slopes": Case(slopes, (q, alike, normal(4)), (split, split, spec("model")), SUMS),
        "no axis sharded": Case(attend, (q, few, few), (spec(),) * 3),
        "no batch axis": Case(attend, (q[0], alike[0], alike[0]), (spec(None, "model"),) * 3),
        "two batch axes": Case(attend, (normal(2, 4, 5, 2, 8),) * 3, (spec("data", "model"),) * 3),
        "a mapped axis around a sharded one": Case(mapped, (normal(3, 2, 5, 4, 8),) * 3, (spec(None, *split),) * 3),
        "forward mode": Case(xla, (q, alike, alike), (split,) * 3, derivative="tangent"),
        "second derivative": Case(xla, (q, alike, alike), (split,) * 3, derivative="second"),
        "group norm, mapped": Case(groups, (x, row), (batch, spec()), SUMS),
        "layer norm, second derivative": Case(
            lambda x, row: layer_norm(x, row, row), (x, row), (spec("data", "model"), spec()), SUMS, "second"
        ),
    }


def derived(case: Case) -> Callable[..., Any]:
    """The results and their derivative."""
    every = tuple(range(len(case.arrays)))
    gradient = jax.grad(lambda *arrays: sines(case.function(*arrays)), every)

    def along(function: Callable[..., Any], arrays: tuple) -> Any:
        return jax.jvp(function, arrays, tuple(jnp.cos(x) for x in arrays))

    if case.derivative == "gradient":
        return lambda *arrays: (case.function(*arrays), gradient(*arrays))
    return lambda *arrays: along(case.function if case.derivative == "tangent" else gradient, arrays)


def failure(case: Case, mesh: Any) -> str | None:
    wanted = jax.tree.leaves(jax.jit(derived(case))(*case.arrays))
    with jax.set_mesh(mesh):
        placed = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(case.arrays, case.specs)]
        try:
            program = jax.jit(derived(case)).lower(*placed).compile()
        except (NotImplementedError, ValueError, TypeError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        found = jax.tree.leaves(jax.block_until_ready(program(*placed)))
    moves = {"all-gather", "all-to-all", "collective-permute", "all-reduce"} - set(case.words)
    if moved := [word for word in sorted(moves) if f" {word}(" in program.as_text()]:
        return f"the program holds {', '.join(moved)}"
    for got, want in zip(found, wanted, strict=True):
        if not np.allclose(got, want, rtol=2e-5, atol=2e-5):
            return f"numbers differ by {np.max(np.abs(np.asarray(got) - np.asarray(want))):.1e}"
    return None


def main() -> None:
    mesh = jax.make_mesh(tuple(SIZES.values()), tuple(SIZES))
    found = {name: failure(case, mesh) for name, case in cases().items()}
    json.dump({"cases": len(found), "failed": {name: why for name, why in found.items() if why}}, sys.stdout)


if __name__ == "__main__":
    main()
