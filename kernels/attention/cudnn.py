"""cuDNN's flash attention through `jax.nn`, for calls with the same result as this op's definition."""

import jax
import jax.numpy as jnp

from .. import _cuda, masks
from .problem import Extras, Setting

OLDEST = 80


def supports(q, k, v, extras: Extras, setting: Setting) -> str | None:
    """The reason why `jax.nn`'s cuDNN path refuses this call or has another result, or None."""
    capability = _cuda.capability()
    if capability is not None and capability < OLDEST:
        return f"it runs on compute capability {OLDEST / 10} and newer: this device is {capability / 10}"
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes bfloat16 and float16: got {q.dtype}"
    if setting.soft_cap is not None:
        return "it has no soft cap"
    if setting.dropout_rate > 0.0:
        return "it draws other dropout bits than this op's"
    if extras.bias is not None:
        return "it has no gradient for a bias that broadcasts"
    offset = extras.mask.offset if isinstance(extras.mask, masks.Causal) else None
    if extras.mask is not None and not (isinstance(offset, int) and offset == 0):
        return (
            "its masked rows, and what is not finite under a mask, differ from this op's, except with no mask or "
            "`is_causal=True`"
        )
    if q.shape[-1] != v.shape[-1]:
        return f"its values must have the head_dim of its keys: got {v.shape[-1]} and {q.shape[-1]}"
    if q.shape[-1] > 256 or q.shape[-1] % 8:
        return f"its head_dim is a multiple of 8 up to 256: got {q.shape[-1]}"
    return None


def attend(q, k, v, extras: Extras, setting: Setting):
    """(out, logsumexp) as `reference.attend` gives them."""
    out, lse = jax.nn.dot_product_attention(
        q,
        k,
        v,
        scale=setting.scale,
        is_causal=extras.mask is not None,
        return_residual=True,
        implementation="cudnn",
    )
    return out, jnp.swapaxes(lse, 1, 2).astype(jnp.float32)


def gradients(q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool):
    """Cotangents of q, k and v; a call with a bias is refused, and `jax.nn` recomputes its output.

    `jax.nn` takes the logsumexp for a constant, so a cotangent of it that is not 0 is added here:
    d lse = scale * (p k) dq + scale * p q dk, attention with keys for values, and the gradient of those values.
    """
    dq, dk, dv = jax.vjp(lambda q, k, v: attend(q, k, v, extras, setting)[0], q, k, v)[1](dout)

    def with_logsumexp(dq, dk):
        weight = setting.scale * jnp.swapaxes(dlse, 1, 2)[..., None]
        seen, transpose = jax.vjp(lambda values: attend(q, k, values, extras, setting)[0], k)
        add = lambda x, y: (x.astype(jnp.float32) + y.astype(jnp.float32)).astype(x.dtype)
        return add(dq, weight * seen), add(dk, transpose((weight * q).astype(q.dtype))[0])

    dq, dk = jax.lax.cond(jnp.any(dlse != 0), with_logsumexp, lambda *x: x, dq, dk)
    return dq, dk, dv
