"""Whole train steps of `bench.gpu`: ours, the same with `jax.nn`'s attention and plain norms, and PyTorch's eager and compiled.

The transformer of MaskGIT-base and of DiT-B/2 alone: blocks of `eqxgen.nn` on random tokens, mean square of the output, AdamW, bfloat16
products on float32 parameters. Embeddings and heads are left out, and with DiT its modulation too, which the project does not have yet.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from bench.gpu_race import Clock, race, torch_side, try_sides
from eqxgen import ops
from eqxgen.nn import Stack, TransformerBlock

# Examples, tokens, width, heads, layers, and where the norms are.
STEPS = {"DiT-B/2-shaped": (64, 256, 768, 12, 12, "pre"), "MaskGIT-base-shaped": (32, 257, 768, 8, 24, "post")}
TINY = {"tiny": (2, 8, 16, 2, 2, "pre")}


@contextlib.contextmanager
def plain_ops() -> Iterator[None]:
    """`eqxgen.nn` on `jax.nn`'s attention and on norms in XLA's operations."""
    before = ops.dot_product_attention, ops.layer_norm

    def attention(q, k, v, *, dropout_rate=0.0, dropout_key=None, **rest):
        return jax.nn.dot_product_attention(q, k, v, **rest)

    ops.dot_product_attention = attention  # pyright: ignore[reportAttributeAccessIssue]
    ops.layer_norm = functools.partial(before[1], implementation="xla")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        ops.dot_product_attention, ops.layer_norm = before  # pyright: ignore[reportAttributeAccessIssue]


def ours(size: tuple[int, int, int, int, int, str]) -> Callable[[int], None]:
    """A train step in JAX that keeps its state between calls."""
    batch, tokens, dim, heads, depth, placement = size
    model = Stack(lambda key: TransformerBlock(dim, heads, placement=placement, key=key), depth, key=jr.key(0))  # pyright: ignore[reportArgumentType]
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    optimizer = optax.adamw(1e-4)
    x = jr.normal(jr.key(1), (batch, tokens, dim), jnp.bfloat16)

    def loss(arrays, x):
        half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), arrays)
        y = jax.vmap(eqx.combine(half, static))(x)
        return jnp.mean(y.astype(jnp.float32) ** 2)

    def step(arrays, state, x):
        value, grads = jax.value_and_grad(loss)(arrays, x)
        updates, state = optimizer.update(grads, state, arrays)
        return optax.apply_updates(arrays, updates), state, value

    held = [arrays, optimizer.init(arrays)]
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*held, x).compile()

    def run(calls: int) -> None:
        for _ in range(calls):
            *held[:], value = compiled(*held, x)
        jax.block_until_ready(value)

    return run


def in_plain_jax(size: tuple[int, int, int, int, int, str]) -> Callable[[int], None]:
    with plain_ops():
        return ours(size)


def in_torch(size: tuple[int, int, int, int, int, str], compile: bool) -> Callable[[int], None]:
    """The same step in PyTorch's own encoder layers."""
    import torch

    batch, tokens, dim, heads, depth, placement = size
    place = "cuda" if torch.cuda.is_available() else "cpu"
    layer = torch.nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=placement == "pre"
    )
    model = torch.nn.TransformerEncoder(layer, depth, enable_nested_tensor=False).to(place).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=1e-4, fused=place == "cuda")
    x = torch.randn(batch, tokens, dim, device=place, dtype=torch.bfloat16)
    forward = torch.compile(model) if compile else model

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(place, torch.bfloat16):
            loss = forward(x).float().square().mean()
        loss.backward()
        optimizer.step()

    return torch_side(step)


def steps(clock: Clock, tiny: bool) -> Iterator[dict[str, Any]]:
    """Milliseconds of a step, and times of ours."""
    for name, size in (TINY if tiny else STEPS).items():
        if clock.left() < 0:
            yield {"case": name, "left out": "the time budget"}
            continue
        makers = {
            "ours": lambda size=size: ours(size),
            "jax.nn attention, plain norms": lambda size=size: in_plain_jax(size),
            "torch eager": lambda size=size: in_torch(size, False),
            "torch compiled": lambda size=size: in_torch(size, True),
        }
        if tiny:
            makers.pop("torch compiled")
        sides, reasons = try_sides(makers)
        times = race(sides, 0.05 if tiny else 6.0)
        ratios = {n: t / times["ours"] for n, t in times.items() if n != "ours"} if "ours" in times else {}
        yield {"case": name, "ms": times, "times ours": ratios, "left out": reasons}
