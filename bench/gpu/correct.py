"""Correctness of every GPU kernel: values and gradients on random data against float64, with XLA's error as the unit.

A kernel is right where no array's error is more than twice that of XLA's form (FlashAttention's rule), rounding apart.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.gpu.attention import OURS, Task
from bench.ops.attention_shapes import MASKS, Attention
from bench.ops.norm_shapes import GROUP, LAYER, RMS, Case
from bench.race import Turn
from tests.kernels.attention_cases import inputs, measure

_shape = functools.partial(Attention, 2, 1003, 1003, 4, 4)
_wide = lambda dim, **rest: _shape(head_dim=dim, v_head_dim=dim, **rest)
_both = lambda draw, a: MASKS["segments"](draw, a) & MASKS["causal"](draw, a)
# Every width, mask, option and dtype; the most informative first.
ATTENTION: dict[str, tuple[str, Attention]] = {
    "D128 causal": ("bfloat16", _wide(128, mask=MASKS["causal"])),
    "D64 packed, grouped": ("bfloat16", Attention(2, 1003, 1003, 4, 2, 64, 64, mask=_both)),
    "D64 bias, cap, dropout": ("float16", _wide(64, bias=(False, True, True, True), soft_cap=5.0, dropout_rate=0.1)),
    "D256": ("bfloat16", _wide(256)),
    "D192/128 window": ("float16", _shape(head_dim=192, v_head_dim=128, mask=MASKS["window"])),
    "D32 bias": ("bfloat16", _wide(32, bias=(True, True, True, True))),
    "D96 alibi prefix": ("bfloat16", _wide(96, mask=MASKS["prefix"], alibi=True)),
    "D64 float32 lengths": ("float32", _wide(64, mask=MASKS["lengths"])),
    "D128 block sparse, dropout": ("bfloat16", _wide(128, mask=MASKS["pattern"], dropout_rate=0.1)),
    "D64 dense, query bias": ("float16", _wide(64, mask=MASKS["dense"], bias=(False, False, True, False))),
    "D64 causal offset, multi query": ("bfloat16", Attention(2, 1003, 1003, 4, 1, 64, 64, mask=MASKS["causal offset"])),
    "D256 float32 causal": ("float32", _wide(256, mask=MASKS["causal"])),
    "D256 causal, key bias": ("float16", _wide(256, mask=MASKS["causal"], bias=(True, False, False, True))),
}
TINY = {
    "D8 window": (
        "float16",
        Attention(q_seq=17, kv_seq=23, heads=2, mask=MASKS["window"], bias=(False, True, True, True)),
    )
}

_silu = (("groups", 32), ("activation", "silu"))
NORMS: dict[str, Case] = {
    "layer": Case(LAYER, (1003, 768), bias=True),
    "layer, modulation": Case(LAYER, (8, 123, 1152), scale=False, modulation=(8, 1, 1152)),
    "rms, residual": Case(RMS, (1003, 4096), residual=True),
    "group, silu": Case(GROUP, (16, 64, 320), bias=True, options=_silu),
    "group, silu, in parts": Case(GROUP, (3, 64, 64, 320), bias=True, options=_silu),
    "group, modulation": Case(GROUP, (16, 64, 320), bias=True, modulation=(16, 1, 320), options=_silu),
    "layer, residual, long": Case(LAYER, (64, 20000), bias=True, residual=True),
    "layer, residual, modulation": Case(LAYER, (8, 123, 768), bias=True, residual=True, modulation=(8, 1, 768)),
}
TINY_NORMS = {"layer": Case(LAYER, (5, 12), bias=True)}


def attention(tiny: bool) -> Iterator[Task]:
    """Output, logsumexp and every gradient, that of the logsumexp included."""
    for name, (dtype, case) in (TINY if tiny else ATTENTION).items():
        yield f"{name} {dtype}", functools.partial(_attention_row, case, dtype, ("xla",) if tiny else OURS)


def _attention_row(case: Attention, dtype: str, names: tuple[str, ...], turn: Turn) -> dict[str, Any]:
    arrays, rest = inputs(case, dtype=jnp.dtype(dtype))
    call = lambda name: lambda arrays: measure(arrays, rest, name)
    return judge(call, (arrays,), turn, names)


def norms(tiny: bool) -> Iterator[Task]:
    """Result and every gradient."""
    for dtype in ("bfloat16", "float32"):
        for name, case in (TINY_NORMS if tiny else NORMS).items():
            yield f"{name} {dtype}", functools.partial(_norm_row, case, dtype, "xla" if tiny else "triton")


def _norm_row(case: Case, dtype: str, name: str, turn: Turn) -> dict[str, Any]:
    call = lambda name: functools.partial(case.forward_and_backward, implementation=name)
    return judge(call, (case.arguments(dtype), case.cotangent(dtype)), turn, (name,))


def judge(call: Callable[[str], Callable], arguments: tuple, turn: Turn, names: tuple[str, ...]) -> dict[str, Any]:
    """Each kernel's worst array: its error in units of what is allowed, and whether that is at most 1."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x.astype(jnp.float32)), jnp.float64), arguments)
        exact = jax.tree.map(np.asarray, jax.jit(call("reference"))(*wide))
    plain = errors(jax.jit(call("xla"))(*arguments), exact)
    rounding = float(jnp.finfo(jax.tree.leaves(arguments)[0].dtype).eps)
    row: dict[str, Any] = {"xla's error": max(plain), "of allowed": {}, "right": {}, "left out": {}}
    for name in names:
        got, reason = turn.attempt(name, lambda name=name: jax.block_until_ready(jax.jit(call(name))(*arguments)))
        if reason is not None:
            row["left out"][name] = reason
            continue
        shares = [error / (2 * base + rounding) for error, base in zip(errors(got, exact), plain)]
        row["of allowed"][name] = max(shares)
        row["right"][name] = max(shares) <= 1
    return row


def errors(got: Any, exact: Any) -> list[float]:
    """The largest error of each array, as a share of its largest number; infinite where a number that is not finite
    differs.
    """
    return [
        _error(np.asarray(g, np.float64), np.asarray(t, np.float64))
        for g, t in zip(jax.tree.leaves(got), jax.tree.leaves(exact))
    ]


def _error(got: np.ndarray, exact: np.ndarray) -> float:
    odd = ~np.isfinite(exact)
    if not np.array_equal(got[odd], exact[odd], equal_nan=True):
        return float("inf")
    difference, size = np.abs(got[~odd] - exact[~odd]), np.abs(exact[~odd])
    worst = float(difference.max(initial=0.0)) / max(float(size.max(initial=0.0)), 1e-9)
    return worst if np.isfinite(worst) else float("inf")
