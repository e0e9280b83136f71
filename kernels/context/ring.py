"""Attention by a ring: keys and values go from device to device, and each adds the part of its queries.

The parts are merged by their logsumexp. The backward pass sends keys and values around again, with their gradients, and
computes each part from the logsumexp of the whole row; it stores no keys but its own.

Source: Liu et al. 2023, "Ring Attention with Blockwise Transformers"; Brandon et al. 2023 ("Striped Attention") for the
    balance under a causal mask, here in the zig-zag order.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._fused import vary_alike
from ..attention import backends, primitives
from ..attention.problem import ALiBi, Extras, Setting, accumulator
from ..masks import Causal
from .geometry import Geometry

FAR = 1 << 30


def attend(q, k, v, extras: Extras, setting: Setting, geometry: Geometry, implementation: str | None):
    """(out, logsumexp) of this device's queries, as `reference.attend` gives them for whole sequences."""
    if implementation == "cudnn":
        raise NotImplementedError(
            "context_attention: implementation 'cudnn' cannot run with method='ring': it has no gradient for a part of "
            "the keys; use method='all_to_all'"
        )
    leaves, tree = jax.tree.flatten(extras)
    # The parts differ between devices, even where the operands are the same.
    *operands, _ = vary_alike(q, k, v, *leaves, geometry.index())
    op = Ring(tree, setting, implementation, geometry=geometry)
    q, k, v, *leaves = operands
    rows = lambda x: x[:, : x.shape[1] // geometry.chunks]
    first = geometry.extras(op._extras(leaves), (rows(q).shape[1], rows(k).shape[1]), jnp.int32(0), 0, 0)
    backends.check(implementation, rows(q), rows(k), rows(v), first, setting)
    return tuple(primitives.PRIMITIVES.bind(op, *operands))


@dataclasses.dataclass(frozen=True)
class Ring(primitives.Attention):
    """`(q, k, v, *leaves) -> (out, logsumexp)` of a device's part of the sequences, inside a `jax.shard_map`."""

    geometry: Geometry = dataclasses.field(kw_only=True)

    def axes(self, q, k, v, *leaves) -> None:
        return None

    def forward(self, target, q, k, v, *leaves):
        return self._pass(q, k, v, self._guarded(target, leaves))

    def plain(self, q, k, v, *leaves):
        return self._pass(q, k, v, self._extras(leaves))

    def backward(self, target, primals, saved, cotangents, count):
        if self.implementation == "reference":  # its gradients are those of a call of its own
            return self.pullback(primals, saved, cotangents, count)
        (q, k, v, *leaves), rows = primals, (*saved, *cotangents)
        extras, travelling = self._split(self._guarded(target, leaves))
        wide, with_bias = accumulator(q.dtype), count > 3
        zeros = lambda *arrays: vary_alike(q, *(jnp.zeros(x.shape, wide) for x in arrays))[1:]
        bias = _leaf(extras.bias) if with_bias else None
        start = (*zeros(q), *zeros(*([] if bias is None else [bias])))

        def step(source, carried, sums):
            def pair(sums, a, b):
                (dq, *dbias), (dk, dv) = sums
                part = self._part(q, carried, extras, source, a, b)
                out, lse, dout, dlse = (self.geometry.part(x, a, axis) for x, axis in zip(rows, (1, 2, 1, 2)))
                given = out, lse, dout, dlse
                more = primitives.gradients(
                    *part, self.setting, *given, with_bias=with_bias, implementation=self.implementation
                )
                dq = self.geometry.add(dq, more[0].astype(wide), a, 1)
                dk, dv = (self.geometry.add(x, y.astype(wide), b, 1) for x, y in zip((dk, dv), more[1:3]))
                if bias is not None:
                    dbias = [dbias[0] + self._whole(extras.bias, more[3], source, a, b).astype(wide)]
                return (dq, *dbias), (dk, dv)

            return self._pairs(pair, (sums, zeros(k, v)))

        def turn(state, t):
            carried, sums, grads = state
            # The next keys and the gradients of these travel while these are computed.
            after, grads = self._rotated(carried), self._rotated(grads)
            sums, more = step(self._source(t), carried, sums)
            return (after, sums, jax.tree.map(jnp.add, grads, more)), None

        own, last = (k, v, *travelling), self.geometry.devices - 1
        sums, grads = step(self.geometry.index(), own, start)
        if last > 0:
            state = self._rotated(own), sums, grads
            (carried, sums, grads), _ = jax.lax.scan(turn, state, jnp.arange(1, last, dtype=jnp.int32))
            grads = self._rotated(grads)
            sums, more = step(self._source(last), carried, sums)
            # The last turn brings them home.
            grads = self._rotated(tuple((x + y).astype(z.dtype) for x, y, z in zip(grads, more, (k, v))))
        (dq, *dbias), (dk, dv) = sums, grads
        dbias = [x.astype(y.dtype) for x, y in zip(dbias, leaves)]
        return [dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), *dbias]

    def _pass(self, q, k, v, extras: Extras):
        """(out, logsumexp) by one turn of the ring."""
        extras, travelling = self._split(extras)
        wide = accumulator(q.dtype)
        out = jnp.zeros((*q.shape[:3], v.shape[3]), wide)
        lse = jnp.full((q.shape[0], q.shape[2], q.shape[1]), -jnp.inf, wide)
        start = vary_alike(q, out, lse)[1:]

        def step(source, carried, sums):
            def pair(sums, a, b):
                part = self._part(q, carried, extras, source, a, b)
                more = primitives.attend(*part, self.setting, implementation=self.implementation)
                own = (self.geometry.part(x, a, axis) for x, axis in zip(sums, (1, 2)))
                return tuple(self.geometry.put(x, y, a, z) for x, y, z in zip(sums, merged(*own, *more), (1, 2)))

            return self._pairs(pair, sums)

        def turn(state, t):
            carried, sums = state
            # The next keys travel while these are computed.
            return (self._rotated(carried), step(self._source(t), carried, sums)), None

        steps = jnp.arange(self.geometry.devices - 1, dtype=jnp.int32)
        (carried, sums), _ = jax.lax.scan(turn, ((k, v, *travelling), start), steps)
        out, lse = step(self._source(self.geometry.devices - 1), carried, sums)
        return out.astype(q.dtype), lse

    def _pairs(self, function, sums):
        """`sums = function(sums, a, b)` for each chunk `a` of the queries and each chunk `b` of the keys."""
        chunks = self.geometry.chunks
        if chunks == 1:
            return function(sums, 0, 0)
        body = lambda sums, pair: (function(sums, pair // chunks, pair % chunks), None)
        return jax.lax.scan(body, sums, jnp.arange(chunks * chunks, dtype=jnp.int32))[0]

    def _part(self, q, carried, extras: Extras, source, a, b):
        """(q, k, v, extras) of a chunk of queries and a chunk of the keys that came from a device."""
        k, v, *travelling = carried
        extras = self._joined(extras, travelling)
        q, k, v = (self.geometry.part(x, chunk, 1) for x, chunk in ((q, a), (k, b), (v, b)))
        return q, k, v, self.geometry.extras(extras, (q.shape[1], k.shape[1]), source, a, b)

    def _whole(self, bias, part, source, a, b):
        """The gradient of a bias from that of a chunk's part."""
        if isinstance(bias, ALiBi):
            return part
        return jax.vjp(lambda x: self.geometry.cut("bhqk", x, source, a, b), bias)[1](part)[0]

    def _rotated(self, arrays):
        """What the device before this one holds."""
        count = self.geometry.devices
        ring = [(i, (i + 1) % count) for i in range(count)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.geometry.axis_name, ring), arrays)

    def _source(self, step):
        """The device whose keys are here after so many steps."""
        return jax.lax.rem(self.geometry.index() - step + self.geometry.devices, jnp.int32(self.geometry.devices))

    def _guarded(self, target, leaves) -> Extras:
        """The extras, with a mask on NVIDIA GPUs: cuDNN takes calls without one, and no logsumexp of a whole row."""
        extras = self._extras(leaves)
        if extras.mask is None and target.platform == "cuda":
            return dataclasses.replace(extras, mask=Causal(FAR))
        return extras

    def _split(self, extras: Extras) -> tuple[Extras, list[Any]]:
        """The extras and the arrays of the mask that travel with the keys."""
        if extras.mask is None:
            return extras, []
        return extras, [x for x, goes in zip(extras.mask.arrays(), _goes(extras)) if goes]

    def _joined(self, extras: Extras, travelling) -> Extras:
        """The extras with the arrays that came with the keys."""
        if not travelling:
            return extras
        mask: Any = extras.mask
        came = iter(travelling)
        arrays = tuple(next(came) if goes else x for x, goes in zip(mask.arrays(), _goes(extras)))
        return dataclasses.replace(extras, mask=mask.replace(arrays))


def merged(out, lse, more, more_lse):
    """(out, logsumexp) over the keys of two parts: `out` and `more` are (batch, seq, heads, dim), and the logsumexps
    (batch, heads, seq). A row that sees no key in either stays 0 and -inf.
    """
    top = jax.lax.stop_gradient(jnp.maximum(lse, more_lse))
    top = jnp.where(top == -jnp.inf, 0.0, top)
    left, right = jnp.exp(lse - top), jnp.exp(more_lse - top)
    total = left + right
    empty = total == 0.0
    total = jnp.where(empty, 1.0, total)
    rows = lambda x: jnp.swapaxes(x, 1, 2)[..., None]
    out = out * rows(left / total) + more.astype(out.dtype) * rows(right / total)
    return out, jnp.where(empty, -jnp.inf, top + jnp.log(total))


def _goes(extras: Extras) -> list[bool]:
    """For each array of the mask: it has numbers of keys alone, which go with them."""
    mask: Any = extras.mask
    return ["k" in axes and "q" not in axes and not isinstance(x, int) for axes, x in zip(mask.axes, mask.arrays())]


def _leaf(bias):
    return bias.slopes if isinstance(bias, ALiBi) else bias
