"""The implementations of attention, their order on each platform, and the choice among them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from .. import _dispatch, _fused, _trial, _triton
from .._blocks import SYMBOLIC, known
from .._fused import Target
from . import choice, cudnn, mosaic_gpu, mosaic_tpu, reference, triton, xla
from .problem import Extras, Setting, accumulator

OP = "dot_product_attention"
# Built once on trial before it is chosen.
ON_CUDA = {"cudnn": cudnn, "mosaic_gpu": mosaic_gpu, "triton": triton}


def check(implementation: str | None, q, k, v, extras: Extras, setting: Setting) -> None:
    """Raise while tracing if the named implementation is unknown or cannot run this call on any platform."""
    if implementation is not None:
        _dispatch.choose(OP, implementation, _candidates(None, "forward", implementation, q, k, v, extras, setting))


def forward(target: Target, q, k, v, extras: Extras, setting: Setting, implementation: str | None):
    """(out, logsumexp) by the named implementation, or by the platform's best."""
    operands = q, k, v, extras, setting
    name = _dispatch.choose(OP, implementation, _candidates(target, "forward", implementation, *operands))
    if name == "mosaic_tpu":
        return mosaic_tpu.attend(*operands, interpret=target.platform != "tpu")
    backend: Any = ({"xla": xla, "reference": reference} | ON_CUDA)[name]
    return backend.attend(*operands)


def backward(
    target: Target, q, k, v, extras: Extras, setting: Setting, *rows, with_bias: bool, implementation: str | None
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias.

    Args:
        rows: the output and the logsumexp, and their cotangents.
    """
    operands = q, k, v, extras, setting
    name = _dispatch.choose(OP, implementation, _candidates(target, "backward", implementation, *operands))
    if name == "mosaic_tpu":
        interpret = target.platform != "tpu"
        return mosaic_tpu.gradients(*operands, *rows, with_bias=with_bias, kind=target.kind, interpret=interpret)
    if name != "reference":
        return ON_CUDA.get(name, xla).gradients(*operands, *rows, with_bias=with_bias)
    leaves, tree = jax.tree.flatten(extras)

    def function(q, k, v, *bias):
        return reference.attend(q, k, v, jax.tree.unflatten(tree, [*bias, *leaves[len(bias) :]]), setting)

    return jax.vjp(function, q, k, v, *leaves[: int(with_bias)])[1](rows[2:])


def _candidates(
    target: Target | None, direction: str, implementation: str | None, q, k, v, extras: Extras, setting: Setting
) -> Mapping[str, Callable[[], str | None]]:
    """The reason why each implementation cannot run, or None, best first. While tracing the target is None."""
    platform = target and target.platform
    symbolic = None if known(*q.shape, *k.shape) else SYMBOLIC

    def mosaic_tpu_reason():
        return symbolic or _fused.refusal(target, "tpu") or mosaic_tpu.supports(q, k, v, extras, setting)

    def on_cuda(name: str, unavailable: Callable[[], str | None] = lambda: None, *, divisible: bool = True):
        reason = symbolic or _fused.refusal(target, "cuda", divisible=divisible)
        reason = reason or ON_CUDA[name].supports(q, k, v, extras, setting)
        # A program may be traced on a host that cannot lower it.
        if reason or target is None:
            return reason
        return unavailable() or build_failure(ON_CUDA[name], direction, q, k, v, extras, setting)

    def mosaic_gpu_reason():
        unavailable = lambda: mosaic_gpu.device_reason(implementation == "mosaic_gpu")
        return on_cuda("mosaic_gpu", unavailable, divisible=False)

    best = {
        "tpu": ("mosaic_tpu",),
        "cuda": choice.order(choice.device(), q, k, extras, direction) if platform == "cuda" and not symbolic else (),
    }
    every = {
        "xla": lambda: None,
        "mosaic_tpu": mosaic_tpu_reason,
        "cudnn": lambda: on_cuda("cudnn"),
        "mosaic_gpu": mosaic_gpu_reason,
        "triton": lambda: on_cuda("triton", _triton.unavailable),
        "reference": lambda: None,
    }
    return {name: every[name] for name in (*best.get(platform or "", ()), *every)}


def build_failure(backend: Any, direction: str, q, k, v, extras: Extras, setting: Setting) -> str | None:
    """The compiler's error for the "forward" or "backward" pass of this call by a backend's module, or None."""
    leaves, tree = jax.tree.flatten(extras)
    operands = [q, k, v, *leaves]
    if direction == "backward":
        batch, q_seq, heads, _ = q.shape
        out = jax.ShapeDtypeStruct((batch, q_seq, heads, v.shape[3]), q.dtype)
        numbers = jax.ShapeDtypeStruct((batch, heads, q_seq), accumulator(q.dtype))
        operands += [out, numbers, out, numbers]
    return _trial.build_failure(_run, *operands, backend=backend, tree=tree, setting=setting)


def _run(q, k, v, *rest, backend: Any, tree: Any, setting: Setting):
    extras, rows = jax.tree.unflatten(tree, rest[: tree.num_leaves]), rest[tree.num_leaves :]
    if not rows:
        return backend.attend(q, k, v, extras, setting)
    return backend.gradients(q, k, v, extras, setting, *rows, with_bias=extras.bias is not None)
