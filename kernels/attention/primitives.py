"""Attention as a fused op: its operands, its derivatives, and its axes for programs on several devices.

Operands are (q, k, v, *leaves of extras); the bias, an array or ALiBi's slopes, is the first leaf if there is one.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from .._fused import Axes, Op, Places, Primitives, Target, vary_alike
from . import backends, plain
from .problem import ALiBi, Extras, Setting, accumulator

OUTPUT_NAME, LOGSUMEXP_NAME = "attention_output", "attention_logsumexp"
QUERY, KEY, ROWS = "bqhx", "bkgx", "bhq"  # the axes of q, of k and v, of the logsumexp
PRIMITIVES = Primitives("eqxgen_attention", partitioned=True)


def attend(q, k, v, extras: Extras, setting: Setting, *, implementation: str | None, places: Places | None = None):
    """Attention by a backend; see `reference.attend` for the arguments and results.

    Args:
        places: the mesh axes over which batch and heads are divided. Key heads that they do not divide are repeated.
    """
    k, v = _repeated(k, v, places)
    leaves, tree = jax.tree.flatten(extras)
    return tuple(PRIMITIVES.bind(Attention(tree, setting, implementation, places), *vary_alike(q, k, v, *leaves)))


def gradients(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, implementation: str | None
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias, by a backend.

    Keys and values may be some of those that `out` and `lse` were computed from: the cotangents are then those of the
    whole call, of which `q` and the bias get a part. `reference` and `cudnn` compute `lse` again and cannot do that.
    """
    leaves, tree = jax.tree.flatten(extras)
    operands = vary_alike(q, k, v, *leaves, out, lse, dout, dlse)
    cut, count = (3 + len(leaves), 5 + len(leaves)), 3 + with_bias
    op = Attention(tree, setting, implementation)
    return PRIMITIVES.backward.bind(*operands, op=op, cut=cut, given=(True, True), count=count)


def _repeated(k, v, places: Places | None):
    """Key and value with the fewest key heads that the devices of the heads divide; the query's are a multiple."""
    if places is None:
        return k, v
    sizes, heads = jax.sharding.get_abstract_mesh().shape, k.shape[2]
    wanted = math.lcm(heads, math.prod(sizes[name] for name in places.parts[2]))
    return (k, v) if wanted == heads else tuple(jnp.repeat(x, wanted // heads, 2) for x in (k, v))


@dataclasses.dataclass(frozen=True)
class Attention(Op):
    """`(q, k, v, *leaves) -> (out, logsumexp)`, with gradients for q, k, v and the bias."""

    tree: Any
    setting: Setting
    implementation: str | None
    places: Places | None = None

    core = 3
    names = OUTPUT_NAME, LOGSUMEXP_NAME

    @property
    def results(self) -> int:
        return 2

    @property
    def movable(self) -> int:
        return 3 + (self._extras(range(self.tree.num_leaves)).bias is not None)

    def shapes(self, q, k, v, *leaves):
        batch, q_seq, heads, _ = q.shape
        over_batch, over_seq, over_heads, _ = q.sharding.spec
        spec = q.sharding.spec.update(partitions=(over_batch, over_heads, over_seq))
        shape, dtype = (batch, heads, q_seq), accumulator(q.dtype)
        rows = q.update(shape=shape, dtype=dtype, sharding=q.sharding.update(spec=spec), weak_type=False)
        return q.update(shape=(*q.shape[:3], v.shape[3]), weak_type=False), rows

    def forward(self, target: Target, q, k, v, *leaves):
        return backends.forward(target, q, k, v, self._extras(leaves), self.setting, self.implementation)

    def backward(self, target: Target, primals, saved, cotangents, count):
        (q, k, v, *leaves), with_bias = primals, count > 3
        operands = q, k, v, self._extras(leaves), self.setting, *saved, *cotangents
        return backends.backward(target, *operands, with_bias=with_bias, implementation=self.implementation)

    def plain(self, q, k, v, *leaves):
        return plain.attend(q, k, v, self._extras(leaves), self.setting)

    def axes(self, q, k, v, *leaves) -> Axes | None:
        heads, kv_heads = q.shape[2], k.shape[2]
        operands = QUERY, KEY, KEY, *self._leaf_axes()
        if kv_heads == 1:
            return Axes(operands, (QUERY, ROWS), {"b": "b"})
        repeat = heads // kv_heads
        factors = {"b": "b", "g": "g", "h": "(g r)" if repeat > 1 else "g"}
        return Axes(operands, (QUERY, ROWS), factors, {"g": kv_heads}, {"r": repeat} if repeat > 1 else {})

    def _extras(self, leaves) -> Extras:
        return jax.tree.unflatten(self.tree, list(leaves))

    def _leaf_axes(self) -> list[str]:
        extras, roles = self._extras(range(self.tree.num_leaves)), {}
        if isinstance(extras.bias, ALiBi):
            roles |= {extras.bias.slopes: "bh", extras.bias.offset: "b"}
        elif extras.bias is not None:
            roles[extras.bias] = "bhqk"
        if extras.mask is not None:
            # A static integer of a mask is no leaf, so the numbers of its leaves are wrapped.
            mask = self._extras(map(_Leaf, range(self.tree.num_leaves))).mask
            roles |= {x.number: axes for x, axes in zip(mask.arrays(), mask.axes) if isinstance(x, _Leaf)}
        if extras.seeds is not None:
            roles[extras.seeds] = "bhx"
        return [roles[i] for i in range(self.tree.num_leaves)]


@dataclasses.dataclass(frozen=True)
class _Leaf:
    number: int
