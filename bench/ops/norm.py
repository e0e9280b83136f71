"""Contenders of the norms: ours, the plain `jnp` formula, ours in XLA's operations, PyTorch, and a copy."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.ops.norm_shapes import Case
from bench.race import PHASES, Makers, Side, jax_side, torch_side


def plain(case: Case, arguments: dict[str, Any]) -> Any:
    """The textbook formula."""
    x = arguments["x"] + arguments["residual"] if case.residual else arguments["x"]
    options = dict(case.options)
    grouped = x.reshape(*x.shape[:-1], options.get("groups", 1), -1)
    axes = (*range(1, x.ndim - 1), x.ndim) if case.op == "group_norm" else (x.ndim,)
    if case.op != "rms_norm":
        grouped = grouped - jnp.mean(grouped, axes, keepdims=True)
    y = (grouped * jax.lax.rsqrt(jnp.mean(grouped**2, axes, keepdims=True) + 1e-5)).reshape(x.shape)
    y = y * arguments["scale"] if case.scale else y
    y = y + arguments["bias"] if case.bias else y
    y = _modulated(case, y, arguments)
    y = (jax.nn.silu(y) if "activation" in options else y).astype(x.dtype)
    return (y, x) if case.residual else y


def unfused(case: Case, arguments: dict[str, Any]) -> Any:
    """Our norm alone, with its residual or its modulation as separate operations."""
    rest = {k: v for k, v in arguments.items() if k not in ("residual", "modulation")}
    x = arguments["x"] + arguments["residual"] if case.residual else arguments["x"]
    y = Case(case.op, case.shape, case.scale, case.bias, options=case.options).call({**rest, "x": x})
    y = _modulated(case, y, arguments)
    return (y, x) if case.residual else y


def _modulated(case: Case, y: jax.Array, arguments: dict[str, Any]) -> jax.Array:
    if not case.modulation:
        return y
    shift, scale = arguments["modulation"]
    return y * (1 + scale) + shift


def makers(case: Case, dtype: str, phase: str, gpu: bool) -> Makers:
    """The contenders of one case in one of `PHASES`; on a GPU with a copy of x instead of PyTorch."""
    arguments, cotangent = case.arguments(dtype), case.cotangent(dtype)
    functions = {"ours": case.call, "plain": functools.partial(plain, case)}
    functions |= {"xla": functools.partial(case.call, implementation="xla")} if gpu else {}
    functions |= {"unfused": functools.partial(unfused, case)} if case.residual or case.modulation else {}
    found: dict[str, Callable[[], Side]] = {
        name: functools.partial(jax_side, function, arguments, phase=phase, cotangent=cotangent)
        for name, function in functions.items()
    }
    if gpu:
        return found | {"copy": functools.partial(jax_side, jnp.copy, arguments["x"])}
    known = not (case.residual or case.modulation) and case.op != "rms_norm"
    return found | ({"torch": functools.partial(_torch, case, arguments, cotangent, phase)} if known else {})


def _torch(case: Case, arguments: dict[str, Any], cotangent: Any, phase: str) -> Side:
    """PyTorch's native kernel in its own layout."""
    import torch

    options = dict(case.options)
    move = (lambda a: a.movedim(-1, 1).contiguous()) if case.op == "group_norm" else (lambda a: a)
    tensors = {name: torch.tensor(np.asarray(array)) for name, array in arguments.items()}
    tensors["x"] = move(tensors["x"])
    x, scale, bias = (tensors[name].requires_grad_() for name in ("x", "scale", "bias"))

    def norm() -> Any:
        if case.op == "layer_norm":
            return torch.nn.functional.layer_norm(x, case.shape[-1:], scale, bias)
        y = torch.nn.functional.group_norm(x, options["groups"], scale, bias)
        return torch.nn.functional.silu(y) if "activation" in options else y

    return torch_side(norm, [x, scale, bias], move(torch.tensor(np.asarray(cotangent))), phase)


def arrays_moved(case: Case, phase: str) -> int:
    """Arrays of x's shape that a phase must read or write."""
    # x, y and the residual and the sum; h, dy, dx and the cotangent of the sum.
    forward, backward = (4, 4) if case.residual else (2, 3)
    return dict(zip(PHASES, (forward, backward, forward + backward)))[phase]


def least_bytes(case: Case, itemsize: int = 4) -> int:
    """Bytes of the arrays of x's shape that one forward and one backward pass must read or write."""
    return arrays_moved(case, PHASES[2]) * itemsize * int(np.prod(case.shape))


def share_of_copy(case: Case, phase: str, ratio: float, ms: float) -> dict[str, float]:
    """Our bandwidth as a share of the copy's, by the copy's time over ours, and the copy's in GB/s, in 16 bits."""
    size = 2 * int(np.prod(case.shape)) * 2
    return {"of copy": ratio / 2 * arrays_moved(case, phase), "copy GB/s": size / ms / 1e6}
