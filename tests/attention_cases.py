"""Arrays for a shape of `bench.shapes`, and the call they make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kernels import ALiBi, dot_product_attention
from kernels.attention import xla

# The programs here run once: compiling them is the cost.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TILES = ("FORWARD_TILE", "FORWARD_TILE_OPEN", "BACKWARD_TILE", "BACKWARD_TILE_OPEN")


def set_tiles(*tiles):
    """Set xla's tiles, so that small shapes need several, and return those before."""
    before = [getattr(xla, name) for name in TILES]
    for name, tile in zip(TILES, tiles):
        setattr(xla, name, tile)
    jax.clear_caches()
    return before


def inputs(case, *, seed=0, dtype=jnp.float32):
    """(differentiable arrays by name, the other arguments)."""
    draw = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(draw.standard_normal(shape), dtype)
    arrays = {
        "query": normal(case.batch, case.q_seq, case.heads, case.head_dim),
        "key": normal(case.batch, case.kv_seq, case.kv_heads, case.head_dim),
        "value": normal(case.batch, case.kv_seq, case.kv_heads, case.v_head_dim),
    }
    if case.bias is not None:
        full = (case.batch, case.heads, case.q_seq, case.kv_seq)
        arrays["bias"] = normal(*(size if has else 1 for size, has in zip(full, case.bias)))
    if case.alibi:
        arrays["slopes"] = jnp.asarray(draw.uniform(0.1, 1.0, case.heads), jnp.float32)
    rest = {"logits_soft_cap": case.soft_cap, "dropout_rate": case.dropout_rate}
    if case.mask is not None:
        rest["mask"] = case.mask(draw, case)
    if case.dropout_rate:
        rest["dropout_key"] = jax.random.key(seed)
    return arrays, rest


def call(arrays, rest, implementation):
    """(out, logsumexp)."""
    arrays = dict(arrays)
    if "slopes" in arrays:
        arrays["bias"] = ALiBi(arrays.pop("slopes"), 2)
    return dot_product_attention(**arrays, **rest, return_residual=True, implementation=implementation)


def scalar(arrays, rest, implementation):
    """A number in which every output and every logsumexp has its own weight."""
    out, lse = call(arrays, rest, implementation)
    wave = lambda x: jnp.sin(1.0 + jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
    return jnp.sum(out.astype(jnp.float32) * wave(out)) + jnp.sum(jnp.where(jnp.isfinite(lse), lse, 0.0) * wave(lse))
