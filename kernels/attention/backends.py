"""Which kernel computes attention on which platform.

The platform is that of the program being lowered and not of the process, so a program compiled ahead of time for a TPU
on a host without one takes the TPU's kernel.
"""

import dataclasses
import os
from collections.abc import Callable

import jax

from .. import _dispatch, _triton
from . import choice, cudnn, mosaic_gpu, mosaic_tpu, partition, reference, trial, triton_cuda, xla
from .bias import ALiBi
from .problem import Extras, Setting

OP = "dot_product_attention"
# What is built once on trial before it is taken.
ON_CUDA = {"cudnn": cudnn, "mosaic_gpu": mosaic_gpu, "triton": triton_cuda}


@dataclasses.dataclass(frozen=True)
class Target:
    """What a program is lowered for.

    Attributes:
        platform: cpu, tpu, cuda or rocm.
        split: whether XLA divides the work over devices by itself.
        partly: whether it does so inside a `jax.shard_map` that divides it along other axes, where XLA asks nobody how.
    """

    platform: str
    split: bool
    partly: bool = False


def _candidates(
    target: Target | None,
    q,
    k,
    v,
    extras: Extras,
    setting: Setting,
    direction: str = "forward",
    implementation: str | None = None,
):
    """Every implementation with the reason why it cannot run, best first. A target of None is not known yet."""
    platform = target and target.platform

    def mosaic_tpu_reason():
        if platform not in (None, "tpu") and not _interpret():
            return f"it compiles for TPU only, and this program is compiled for {platform}"
        if target and target.split:
            return "XLA cannot split a Mosaic kernel over devices: call it inside jax.shard_map"
        return mosaic_tpu.supports(q, k, v, extras, setting)

    def on_cuda(name: str, unavailable: Callable[[], str | None] = lambda: None):
        if platform not in (None, "cuda"):
            return f"it runs on NVIDIA GPUs only, and this program is compiled for {platform}"
        if target and target.partly:
            return "XLA cannot split a kernel over the axes that jax.shard_map leaves to it: make all of them manual"
        reason = ON_CUDA[name].supports(q, k, v, extras, setting)
        # While tracing the platform is not known, and a program may be traced where it cannot be lowered.
        if reason or platform is None:
            return reason
        return unavailable() or trial.build_failure(ON_CUDA[name], direction, q, k, v, extras, setting)

    def mosaic_gpu_reason():
        if target and target.split:
            return "XLA cannot split a Mosaic kernel over devices: call it inside jax.shard_map"
        return on_cuda("mosaic_gpu", lambda: mosaic_gpu.device_reason(implementation == "mosaic_gpu"))

    names = {
        "tpu": ("mosaic_tpu",),
        "cuda": choice.order(choice.device(), q, k, extras, direction) if platform == "cuda" else (),
    }
    every = {
        "xla": lambda: None,
        "mosaic_tpu": mosaic_tpu_reason,
        "cudnn": lambda: on_cuda("cudnn"),
        "mosaic_gpu": mosaic_gpu_reason,
        "triton": lambda: on_cuda("triton", _triton.unavailable),
        "reference": lambda: None,
    }
    return {name: every[name] for name in (*names.get(platform or "", ()), *every)}


def _interpret() -> bool:
    """The test suite runs the TPU kernels on the CPU by setting this variable."""
    return bool(os.environ.get("EQXGEN_INTERPRET"))


def check(implementation: str | None, q, k, v, extras: Extras, setting: Setting) -> None:
    """Raise now, while tracing, where the named implementation is unknown or cannot run this call on any platform."""
    if implementation is not None:
        _dispatch.choose(OP, implementation, _candidates(None, q, k, v, extras, setting))


def _roles(tree) -> list[str]:
    """The axes of q, k, v and of each leaf of the extras."""
    extras = jax.tree.unflatten(tree, list(range(tree.num_leaves)))
    roles = {}
    if isinstance(extras.bias, ALiBi):
        roles |= {extras.bias.slopes: "bh", extras.bias.offset: "b"}
    elif extras.bias is not None:
        roles[extras.bias] = "bhqk"
    if extras.mask is not None:
        # A Python integer in a mask is part of the program; a leaf's number comes wrapped so that the two stay apart.
        wrapped = jax.tree.unflatten(tree, [_Number(i) for i in range(tree.num_leaves)])
        roles |= {x.number: axes for x, axes in zip(wrapped.mask.arrays(), wrapped.mask.axes) if isinstance(x, _Number)}
    if extras.seeds is not None:
        roles[extras.seeds] = "bhx"
    return ["bhqx", "bgkx", "bgkx", *(roles[i] for i in range(tree.num_leaves))]


def _can_split(target: Target) -> bool:
    # libtpu does not call back into Python to partition.
    return target.split and not target.partly and target.platform != "tpu"


@dataclasses.dataclass(frozen=True)
class _Number:
    number: int


def forward(target: Target, *operands, tree, setting: Setting, implementation: str | None):
    """(out, lse) by the implementation asked for, or by the platform's best."""
    heads, kv_heads = operands[0].shape[1], operands[1].shape[1]

    def local(*operands):
        q, k, v, *leaves = operands
        extras = jax.tree.unflatten(tree, leaves)
        candidates = _candidates(target, q, k, v, extras, setting, "forward", implementation)
        name = _dispatch.choose(OP, implementation, candidates)
        if name == "mosaic_tpu":
            return mosaic_tpu.forward(q, k, v, extras, setting, interpret=target.platform != "tpu")
        if name in ON_CUDA:
            return ON_CUDA[name].forward(q, k, v, extras, setting)
        return {"xla": xla, "reference": reference}[name].attend(q, k, v, extras, setting)

    if not _can_split(target):
        return local(*operands)
    return partition.split(local, operands, _roles(tree), ["bhqx", "bhq"], heads=heads, kv_heads=kv_heads)


def backward(target: Target, *operands, tree, setting: Setting, implementation: str | None, with_bias: bool):
    """Cotangents of q, k, v and perhaps of the bias."""
    cut = 3 + tree.num_leaves
    heads, kv_heads = operands[0].shape[1], operands[1].shape[1]

    def local(*operands):
        (q, k, v), leaves, (out, lse, dout, dlse) = operands[:3], operands[3:cut], operands[cut:]
        extras = jax.tree.unflatten(tree, leaves)
        candidates = _candidates(target, q, k, v, extras, setting, "backward", implementation)
        name = _dispatch.choose(OP, implementation, candidates)
        if name == "mosaic_tpu":
            interpret = target.platform != "tpu"
            return mosaic_tpu.backward(
                q, k, v, extras, setting, out, lse, dout, dlse, with_bias=with_bias, interpret=interpret
            )
        if name == "xla" or name in ON_CUDA:
            backend = ON_CUDA.get(name, xla)
            return backend.backward(q, k, v, extras, setting, out, lse, dout, dlse, with_bias=with_bias)

        def function(q, k, v, *bias):
            return reference.attend(q, k, v, jax.tree.unflatten(tree, [*bias, *leaves[len(bias) :]]), setting)

        return jax.vjp(function, q, k, v, *leaves[: int(with_bias)])[1]((dout, dlse))

    roles = _roles(tree)
    if not _can_split(target):
        return local(*operands)
    out_roles = roles[:4] if with_bias else roles[:3]
    return partition.split(
        local, operands, [*roles, "bhqx", "bhq", "bhqx", "bhq"], out_roles, heads=heads, kv_heads=kv_heads
    )
