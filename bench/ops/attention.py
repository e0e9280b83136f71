"""Contenders of attention: ours, `jax.nn`, PyTorch and tokamax on the same arrays; bytes and errors of ours."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.race import Side, both, jax_side, torch_side
from kernels import dot_product_attention

Arrays = list[jax.Array]


def draw(shape: tuple[int, ...], dtype: Any, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32), dtype)


def operands(batch: int, seq: int, heads: int, head_dim: int, dtype: Any = jnp.bfloat16) -> Arrays:
    """Query, key, value and the output's cotangent, in random numbers."""
    return [draw((batch, seq, heads, head_dim), dtype, seed) for seed in range(4)]


def maker(attend: Callable, arrays: Arrays, extra: tuple, phase: str) -> Callable[[], Side]:
    """The maker of a contender: a function of query, key, value and the extra arrays, in one of `PHASES`."""
    q, k, v, dout = arrays
    return lambda: jax_side(attend, q, k, v, *extra, phase=phase, cotangent=dout)


def torch_maker(arrays: Arrays, causal: bool, phase: str, dtype: str = "bfloat16") -> Callable[[], Side]:
    """The maker of PyTorch's contender."""

    def make() -> Side:
        import torch

        place = "cuda" if torch.cuda.is_available() else "cpu"
        options = {"device": place, "dtype": getattr(torch, dtype)}
        turned = (torch.tensor(np.asarray(x, np.float32), **options).transpose(1, 2).contiguous() for x in arrays)
        q, k, v, dout = turned
        inputs = [x.requires_grad_() for x in (q, k, v)]
        attend = torch.nn.functional.scaled_dot_product_attention
        return torch_side(lambda: attend(q, k, v, is_causal=causal), inputs, dout, phase)

    return make


def tokamax_maker(arrays: Arrays, causal: bool, phase: str) -> Callable[[], Side]:
    def make() -> Side:
        import tokamax  # pyright: ignore[reportMissingImports]

        return maker(functools.partial(tokamax.dot_product_attention, is_causal=causal), arrays, (), phase)()

    return make


def memory(seq: int, heads: int = 8, head_dim: int = 64) -> dict[str, float]:
    """Bytes of a compiled causal forward and backward pass in float32."""
    x = jax.ShapeDtypeStruct((1, seq, heads, head_dim), jnp.float32)
    attend = functools.partial(dot_product_attention, is_causal=True)
    analysis = jax.jit(functools.partial(both, attend)).lower(x, x, x, x).compile().memory_analysis()
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    temporary = analysis.temp_size_in_bytes
    return {"temporary bytes": temporary, "held bytes": held, "temporary / held": temporary / held}


def forward_mode(attend: Callable, q: Any, k: Any, v: Any, *tangents: Any) -> tuple[Any, Any]:
    """The output and its derivative along tangents of query, key and value."""
    return jax.jvp(attend, (q, k, v), tangents)


def as_meanflow(attend: Callable, q: Any, k: Any, v: Any, *tangents: Any) -> tuple[Any, Any]:
    """Value and gradients of a loss like MeanFlow's: squared error of the output against its derivative, held still."""

    def loss(q: Any, k: Any, v: Any) -> Any:
        out, change = forward_mode(attend, q, k, v, *tangents)
        return jnp.sum(jnp.square(out - jax.lax.stop_gradient(change)))

    return jax.value_and_grad(loss, (0, 1, 2))(q, k, v)


FORWARD_MODE = {"derivative": forward_mode, "derivative and gradients": as_meanflow}


def temporary(function: Callable, *arrays: Any) -> int:
    """Temporary bytes of a compiled function: peak memory beyond arguments and results."""
    return jax.jit(function).lower(*arrays).compile().memory_analysis().temp_size_in_bytes


def exact(q: jax.Array, k: jax.Array, v: jax.Array, dout: jax.Array, causal: bool) -> list[np.ndarray]:
    """The output and the gradients of q, k and v in float64."""
    q64, k64, v64, dout64 = (np.swapaxes(np.asarray(x, np.float64), 1, 2) for x in (q, k, v, dout))
    scale = q64.shape[-1] ** -0.5
    s = scale * q64 @ np.swapaxes(k64, 2, 3)
    if causal:
        s = np.where(np.tri(*s.shape[2:], dtype=bool), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = dout64 @ np.swapaxes(v64, 2, 3)
    ds = scale * p * (dp - (p * dp).sum(-1, keepdims=True))
    found = p @ v64, ds @ k64, np.swapaxes(ds, 2, 3) @ q64, np.swapaxes(p, 2, 3) @ dout64
    return [np.swapaxes(x, 1, 2) for x in found]


def accuracy(dtype: str, problems: int) -> dict[str, float]:
    """Root mean square errors against float64, ours over `jax.nn`'s, over random shapes."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in ("out", "dq", "dk", "dv")}
    for _ in range(problems):
        batch, seq, heads = rng.integers(1, 4), rng.integers(1, 700), rng.integers(1, 5)
        causal, shape = bool(rng.integers(2)), (batch, seq, heads, int(rng.choice([16, 64, 96, 128])))
        *inputs, dout = (jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(4))
        true = exact(*inputs, dout, causal)
        ours, theirs = (
            _errors(functools.partial(attend, is_causal=causal), inputs, dout, true)
            for attend in (dot_product_attention, jax.nn.dot_product_attention)
        )
        for name, our, their in zip(found, ours, theirs):
            # One key alone has no gradient except by rounding.
            found[name] += [our / their] if their > 1e-9 else []
    summaries = (("median", statistics.median), ("largest", max))
    return {
        f"{name} error over jax.nn's, {what}": float(f(errors))
        for name, errors in found.items()
        for what, f in summaries
    }


def _errors(attend: Callable, inputs: Arrays, dout: jax.Array, true: list[np.ndarray]) -> list[float]:
    out, gradients = jax.jit(functools.partial(both, attend))(dout, *inputs)
    difference = (np.asarray(x, np.float64) - want for x, want in zip((out, *gradients), true))
    return [float(np.sqrt(np.mean(x**2))) for x in difference]
