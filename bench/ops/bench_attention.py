"""Attention against `jax.nn`, PyTorch and tokamax; a sliding window against full attention; error against float64."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bench.machine import chosen, full
from bench.ops.attention import (
    FORWARD_MODE,
    accuracy,
    draw,
    maker,
    memory,
    operands,
    temporary,
    tokamax_maker,
    torch_maker,
)
from bench.ops.attention_shapes import ACCELERATOR_ATTENTION, CPU_ATTENTION
from bench.race import PHASES, jax_side
from kernels import dot_product_attention, masks

SHAPES = chosen(CPU_ATTENTION, ACCELERATOR_ATTENTION, 3)
ON_CPU = jax.default_backend() == "cpu"
HEADS, HEAD_DIM = (8, 64) if ON_CPU else (16, 128)
PASSES = (PHASES[0], PHASES[2]) if ON_CPU else PHASES


@pytest.mark.parametrize("phase", PASSES)
@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize(("batch", "seq"), SHAPES)
def bench_attention(race: Callable, batch: int, seq: int, mask: str, phase: str) -> None:
    dtypes = ("float32", "bfloat16") if ON_CPU else ("bfloat16",)
    arrays = {dtype: operands(batch, seq, HEADS, HEAD_DIM, dtype) for dtype in dtypes}
    first, causal = arrays[dtypes[0]], mask == "causal"
    ours = functools.partial(dot_product_attention, is_causal=causal)
    theirs = functools.partial(jax.nn.dot_product_attention, is_causal=causal)
    makers = {"ours": maker(ours, first, (), phase)}
    if ON_CPU or seq <= 4096:  # beyond, the logits alone are 16 GiB and more
        makers["jax.nn"] = maker(theirs, first, (), phase)
    if not ON_CPU:
        cudnn = functools.partial(theirs, implementation="cudnn")
        makers["jax.nn cudnn"] = maker(cudnn, first, (), phase)
    for dtype in dtypes[1:]:
        makers[f"ours {dtype}"] = maker(ours, arrays[dtype], (), phase)
        makers[f"torch {dtype}"] = torch_maker(arrays[dtype], causal, phase, dtype)
    makers |= {"torch": torch_maker(first, causal, phase, dtypes[0]), "tokamax": tokamax_maker(first, causal, phase)}
    race(makers, f"attention B{batch} T{seq}", settings={"dtype": dtypes[0], "heads": HEADS, "head_dim": HEAD_DIM})


@pytest.mark.parametrize("kind", FORWARD_MODE)
@pytest.mark.parametrize(("batch", "seq"), SHAPES)
def bench_jvp(race: Callable, batch: int, seq: int, kind: str) -> None:
    """Forward mode, as in MeanFlow's loss, against `jax.nn`, with the temporary bytes of both as facts."""
    dtype = "float32" if ON_CPU else "bfloat16"
    arrays = [draw((batch, seq, HEADS, HEAD_DIM), dtype, seed) for seed in range(6)]
    sides = {"ours": dot_product_attention, "jax.nn": jax.nn.dot_product_attention}
    functions = {name: functools.partial(FORWARD_MODE[kind], attend) for name, attend in sides.items()}
    makers = {name: functools.partial(jax_side, function, *arrays) for name, function in functions.items()}
    held = {name: temporary(function, *arrays) for name, function in functions.items()}
    facts = {f"temporary bytes, {name}": count for name, count in held.items()}
    ratio = {"temporary bytes, jax.nn / ours": held["jax.nn"] / max(held["ours"], 1)}
    settings = {"dtype": dtype, "heads": HEADS, "head_dim": HEAD_DIM}
    race(makers, f"attention, {kind} B{batch} T{seq}", settings=settings, **facts, **ratio)


@pytest.mark.parametrize("phase", PASSES)
def bench_window(race: Callable, phase: str) -> None:
    seq, size = (8192, 256) if full() else (2048, 128)
    arrays = operands(1, seq, HEADS, HEAD_DIM, jnp.float32 if ON_CPU else jnp.bfloat16)
    narrow = functools.partial(dot_product_attention, mask=masks.Window(size, 0))
    makers = {"ours": maker(narrow, arrays, (), phase), "full": maker(dot_product_attention, arrays, (), phase)}
    race(makers, f"attention, window {size} of T{seq}", least=3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def bench_accuracy(race: Callable, dtype: str) -> None:
    """One call's time, with the errors over `jax.nn`'s on random shapes as facts."""
    arrays: list[Any] = [draw((2, 257, 4, 64), dtype, seed) for seed in range(4)]
    problems = 40 if full() else 4
    errors = accuracy(dtype, problems) | {"settings": {"problems": problems}}
    race({"ours": maker(dot_product_attention, arrays, (), PHASES[2])}, f"attention, error in {dtype}", **errors)


@pytest.mark.skipif(not ON_CPU, reason="the memory analysis is that of XLA on a CPU")
@pytest.mark.parametrize("seq", [16384, 32768] if full() else [16384])
def bench_memory(benchmark: Any, seq: int) -> None:
    """Compilation time of a causal forward and backward pass, with its bytes as facts."""
    benchmark.group = "attention, memory"
    benchmark.extra_info |= benchmark.pedantic(memory, args=(seq,))
