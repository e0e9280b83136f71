"""A linear map that carries its own transpose through forward mode, second order, vmap and shard_map.

`jax.custom_vjp` has no forward mode, and `jax.custom_derivatives.linear_call` neither a batching rule nor a derivative
in its residuals, so this is a primitive of our own. A map is a hashable object with

    apply(res, lin) -> tuple of outputs     linear in lin, plain JAX (it is differentiated in res)
    transpose(res, cts) -> cotangents       of the same structure as lin; a cotangent of None stands for zero

where `res` and `lin` are tuples of arrays. Every output has the type of `lin[0]`; there are `outputs` of them.
"""

import dataclasses
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

linear_p = Primitive("eqxgen_linear")
linear_p.multiple_results = True


def linear(rule: Any, res: tuple, lin: tuple) -> tuple:
    """`rule.apply(res, lin)`, whose transpose in lin is `rule.transpose`."""
    return tuple(linear_p.bind(*res, *lin, rule=rule, count=len(res)))


@dataclasses.dataclass(frozen=True)
class Mapped:
    """`rule` over a leading axis of every linear argument and of the residuals marked in `batched`."""

    rule: Any
    batched: tuple[bool, ...]

    @property
    def outputs(self) -> int:
        return self.rule.outputs

    def apply(self, res, lin):
        return self._over_axis(self.rule.apply, res, lin)

    def transpose(self, res, cts):
        return self._over_axis(self.rule.transpose, res, cts)

    def _over_axis(self, function, res, rest):
        return jax.vmap(function, in_axes=(tuple(0 if b else None for b in self.batched), 0))(res, rest)


def _impl(*args, rule, count):
    return list(rule.apply(args[:count], args[count:]))


def _abstract_eval(*avals, rule, count):
    return [avals[count]] * rule.outputs


def _jvp(primals, tangents, *, rule, count):
    res, lin = primals[:count], primals[count:]
    parts = []
    if any(type(t) is not ad.Zero for t in tangents[count:]):
        parts.append(linear(rule, res, tuple(ad.instantiate_zeros(t) for t in tangents[count:])))
    moved = [i for i in range(count) if type(tangents[i]) is not ad.Zero]
    if moved:

        def of_moved(*values):
            merged = dict(enumerate(res)) | dict(zip(moved, values))
            return rule.apply(tuple(merged.values()), lin)

        parts.append(jax.jvp(of_moved, tuple(res[i] for i in moved), tuple(tangents[i] for i in moved))[1])
    return list(linear(rule, res, lin)), [sum(terms[1:], terms[0]) for terms in zip(*parts)]


def _transpose(cts, *args, rule, count):
    res, lin = args[:count], args[count:]
    cts = tuple(None if type(ct) is ad.Zero else ct for ct in cts)
    if all(ct is None for ct in cts):
        return [None] * len(args)
    grads = rule.transpose(res, cts)
    return [None] * count + [g if ad.is_undefined_primal(a) else None for g, a in zip(grads, lin)]


def _batch(args, dims, *, rule, count):
    size = next(a.shape[d] for a, d in zip(args, dims) if d is not None)
    batched = tuple(d is not None for d in dims[:count])
    res = [batching.bdim_at_front(a, d, size) if d is not None else a for a, d in zip(args[:count], dims[:count])]
    # Every linear argument is given the axis, so that the sum over it in a cotangent is the transpose of that
    # broadcast.
    lin = [batching.bdim_at_front(a, d, size) for a, d in zip(args[count:], dims[count:])]
    return linear(Mapped(rule, batched), tuple(res), tuple(lin)), [0] * rule.outputs


linear_p.def_impl(_impl)
linear_p.def_abstract_eval(_abstract_eval)
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.primitive_batchers[linear_p] = _batch
mlir.register_lowering(linear_p, mlir.lower_fun(_impl, multiple_results=True))
