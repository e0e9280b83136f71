"""Attention, its logsumexp and every gradient in float64 NumPy, from the formulas alone; dropout takes the op's
bits.
"""

import numpy as np

from kernels import _dropout
from kernels.attention import checks
from kernels.attention.problem import unsqueeze
from tests.kernels.attention_cases import ALIBI_OFFSET


def wave(x):
    """Weights that differ from element to element."""
    return np.sin(1.0 + np.arange(np.size(x))).reshape(np.shape(x))


def allowed(case, mask):
    """(batch, heads, q_seq, kv_seq): may the query see the key?"""
    i, j = (
        np.arange(case.q_seq, dtype=np.int32).reshape(1, 1, -1, 1),
        np.arange(case.kv_seq, dtype=np.int32).reshape(1, 1, 1, -1),
    )
    bound = checks.bound_mask(mask, (case.batch,), case.heads, case.q_seq, case.kv_seq)
    views = [x if isinstance(x, int) else np.asarray(unsqueeze(x, axes)) for axes, x in zip(bound.axes, bound.arrays())]
    return np.broadcast_to(bound.allowed(i, j, *views), (case.batch, case.heads, case.q_seq, case.kv_seq))


def oracle(case, arrays, rest, d_out=None, d_lse=None):
    """(out, logsumexp) and the gradients by name, for these cotangents or those of `scalar` in `attention_cases`."""
    x = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    repeat, scale = case.heads // case.kv_heads, case.head_dim**-0.5
    q = x["query"].swapaxes(1, 2)
    k, v = (x[name].swapaxes(1, 2).repeat(repeat, 1) for name in ("key", "value"))
    capped = scale * q @ k.swapaxes(2, 3)
    if case.soft_cap is not None:
        capped = case.soft_cap * np.tanh(capped / case.soft_cap)
    i, j = (
        np.arange(case.q_seq, dtype=np.int32).reshape(1, 1, -1, 1),
        np.arange(case.kv_seq, dtype=np.int32).reshape(1, 1, 1, -1),
    )
    distance = np.abs(i + ALIBI_OFFSET - j)
    logits = capped + x.get("bias", 0.0)
    if "slopes" in x:
        logits = logits - x["slopes"].reshape(1, -1, 1, 1) * distance
    seen = allowed(case, rest["mask"]) if rest.get("mask") is not None else np.ones(logits.shape, bool)

    weights = np.where(seen, np.exp(np.where(seen, logits, 0.0)), 0.0)
    total = weights.sum(-1, keepdims=True)
    weights = weights / np.where(total == 0, 1.0, total)
    kept = np.ones_like(weights)
    if case.dropout_rate:
        seeds = np.asarray(_dropout.seeds(rest["dropout_key"], case.batch, case.heads))[:, :, None, None]
        kept = np.asarray(_dropout.keep(seeds[..., 0], seeds[..., 1], i, j, case.dropout_rate)) / (
            1 - case.dropout_rate
        )
    out = ((weights * kept) @ v).swapaxes(1, 2)
    with np.errstate(divide="ignore"):
        lse = np.log(total[..., 0]).swapaxes(1, 2)

    d_out = (wave(out) if d_out is None else d_out).swapaxes(1, 2)
    d_lse = np.where(np.isfinite(lse), wave(lse) if d_lse is None else d_lse, 0.0).swapaxes(1, 2)[..., None]
    d_weights = kept * (d_out @ v.swapaxes(2, 3))
    d_logits = weights * (d_weights - (d_weights * weights).sum(-1, keepdims=True) + d_lse)
    d_capped = d_logits if case.soft_cap is None else d_logits * (1 - (capped / case.soft_cap) ** 2)
    grouped = lambda g: g.reshape(case.batch, case.kv_heads, repeat, *g.shape[2:]).sum(2).swapaxes(1, 2)
    grads = {
        "query": (scale * d_capped @ k).swapaxes(1, 2),
        "key": grouped(scale * d_capped.swapaxes(2, 3) @ q),
        "value": grouped((weights * kept).swapaxes(2, 3) @ d_out),
    }
    if "bias" in x:
        shared = tuple(axis for axis in range(4) if x["bias"].shape[axis] == 1)
        grads["bias"] = d_logits.sum(shared, keepdims=True)
    if "slopes" in x:
        grads["slopes"] = -(d_logits * distance).sum((0, 2, 3))
    return (out, lse), grads


def agree(got, case, arrays, rest, tolerance=2e-5):
    """((out, logsumexp), gradients) is that of the oracle, to a share of each array's greatest element."""
    (out, lse), grads = oracle(case, arrays, rest)
    wanted = {"out": out, "lse": lse} | grads
    given = {"out": got[0][0], "lse": got[0][1]} | got[1]
    for name, want in wanted.items():
        finite = np.abs(want[np.isfinite(want)])
        top = max(1.0, finite.max() if finite.size else 1.0)
        np.testing.assert_allclose(given[name], want, atol=tolerance * top, rtol=2e-4, err_msg=name)
