"""Arrays for a shape of `bench.ops.attention_shapes`, the call they make, and a mask that is chosen at run time."""

import contextlib
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.ops.attention_shapes import MASKS
from kernels import ALiBi, dot_product_attention, masks
from kernels.attention.xla import tiling as sizes

ALIBI_OFFSET = 2


@contextlib.contextmanager
def tiles(forward, backward, short=0):
    """Within it xla has these tiles, so that small shapes need several, and takes problems of up to `short` tokens
    whole.
    """
    before = sizes.FORWARD_TILES, sizes.BACKWARD_TILES, sizes.SHORT
    sizes.FORWARD_TILES, sizes.BACKWARD_TILES, sizes.SHORT = forward, backward, short
    jax.clear_caches()
    try:
        yield
    finally:
        sizes.FORWARD_TILES, sizes.BACKWARD_TILES, sizes.SHORT = before
        jax.clear_caches()


def whole():
    """Within it xla takes every short problem whole, as it does for users."""
    return tiles(sizes.FORWARD_TILES, sizes.BACKWARD_TILES, 128)


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
        arrays["bias"] = ALiBi(arrays.pop("slopes"), ALIBI_OFFSET)
    return dot_product_attention(**arrays, **rest, return_residual=True, implementation=implementation)


def weighted(out, lse):
    """A number in which every output and every logsumexp has its own weight."""
    wave = lambda x: jnp.sin(1.0 + jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
    return jnp.sum(out.astype(jnp.float32) * wave(out)) + jnp.sum(jnp.where(jnp.isfinite(lse), lse, 0.0) * wave(lse))


def scalar(arrays, rest, implementation):
    return weighted(*call(arrays, rest, implementation))


def measure(arrays, rest, implementation):
    """((out, logsumexp), gradients of `scalar`)."""

    def value(arrays):
        both = call(arrays, rest, implementation)
        return weighted(*both), both

    grads, both = jax.grad(value, has_aux=True)(arrays)
    return both, grads


@functools.partial(jax.tree_util.register_dataclass, data_fields=("which", "parts"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class Pick(masks.Mask):
    """The part of number `which`, one number per example, so that one program serves them all: a mask of one's own."""

    which: Any
    parts: tuple[masks.Mask, ...]

    @property
    def axes(self):
        return sum((part.axes for part in self.parts), ("b",))

    def arrays(self):
        return sum((part.arrays() for part in self.parts), (self.which,))

    def replace(self, arrays):
        which, *rest = arrays
        return Pick(which, tuple(part.replace(tuple(cut)) for part, cut in zip(self.parts, self._cuts(rest))))

    def check(self, q_seq, kv_seq):
        return Pick(self.which, tuple(part.check(q_seq, kv_seq) for part in self.parts))

    def allowed(self, i, j, which, *arrays):
        seen = False
        for n, (part, cut) in enumerate(zip(self.parts, self._cuts(arrays))):
            seen = seen | ((which == n) & part.allowed(i, j, *cut))
        return seen

    def block_bounds(self, i0, i1, j0, j1, which, *spans):
        any_ = all_ = False
        for n, (part, cut) in enumerate(zip(self.parts, self._cuts(spans))):
            a, b = part.block_bounds(i0, i1, j0, j1, *cut)
            any_, all_ = any_ | ((which[0] == n) & a), all_ | ((which[0] == n) & b)
        return any_, all_

    def _cuts(self, arrays):
        at = 0
        for part in self.parts:
            yield arrays[at : at + len(part.axes)]
            at += len(part.axes)


def all_masks(draw, case, pattern_seed=0):
    """One of each kind. What is part of the program depends on `pattern_seed` alone."""
    seeded = lambda name: np.random.default_rng(pattern_seed) if name == "pattern" else draw
    return tuple(make(seeded(name), case) for name, make in MASKS.items())
