"""The calls that the kernels compute."""

import jax.numpy as jnp

from ..problem import Extras, Setting
from .terms import refusal

MOST_DIM = 256


def supports(q, k, v, extras: Extras, setting: Setting) -> str | None:
    """The reason why the kernels cannot run on this call, or None."""
    if q.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        return f"the kernel computes float32, bfloat16 and float16: got {q.dtype}"
    if max(q.shape[-1], v.shape[-1]) > MOST_DIM:
        return f"head_dim above {MOST_DIM} does not fit the registers: got {max(q.shape[-1], v.shape[-1])}"
    for name, x in (("query", q), ("key", k), ("value", v)):
        if x.shape[1] * x.shape[2] * x.shape[3] >= 2**31:
            return f"it counts the elements of an example in 32 bits: got {name} with {x.shape[1:]}"
    if q.shape[1] * k.shape[1] >= 2**31 and extras.bias is not None:
        return f"it counts the elements of a head's bias in 32 bits: got {q.shape[1]} queries and {k.shape[1]} keys"
    return refusal(extras.mask)
