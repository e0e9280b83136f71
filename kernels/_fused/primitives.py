"""Three primitives for a family of fused ops, with every derivative, batching and lowering.

`forward` is the op. `tangent` is its forward-mode derivative, linear in the tangents; its transpose is `backward`, the
fused backward pass. The derivatives of those two are taken of the op in ordinary JAX, so every order exists.
`jax.custom_vjp` has no forward mode, and `jax.custom_jvp` cannot be transposed to a kernel.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import _compat
from .._blocks import known
from . import partition
from . import target as targets
from .op import Op
from .partition import Axes
from .target import Target


def vary_alike(*arrays: Any) -> tuple[Any, ...]:
    """All arrays varying over the manual axes of a `jax.shard_map` over which any of them does.

    The transpose of that cast is the sum which the gradient of a shared array needs.
    """
    axes = functools.reduce(lambda a, b: a | b, map(_varying, arrays))
    return tuple(jax.lax.pcast(x, tuple(sorted(axes - _varying(x))), to="varying") for x in arrays)


def _varying(x) -> frozenset[str]:
    return jax.typeof(x).manual_axis_type.varying


class Primitives:
    """The primitives `NAME`, `NAME_tangent` and `NAME_backward`.

    Operands are the op's for `forward`; for the other two they are (*primals, *saved, *linear), where the parameter
    `cut` holds the number of primals and of primals and saved arrays.
    """

    def __init__(self, name: str, *, partitioned: bool = False):
        self.partitioned = partitioned
        self.forward = self._primitive(name, _forward)
        self.tangent = self._primitive(f"{name}_tangent", _tangent)
        self.backward = self._primitive(f"{name}_backward", _backward)
        self.forward.def_abstract_eval(lambda *avals, op: list(op.shapes(*avals)))
        self.tangent.def_abstract_eval(_tangent_avals)
        self.backward.def_abstract_eval(_backward_avals)
        ad.primitive_jvps[self.forward] = self._forward_jvp
        ad.primitive_jvps[self.tangent] = functools.partial(_linear_jvp, self.tangent, _plain_tangent)
        ad.primitive_jvps[self.backward] = functools.partial(_linear_jvp, self.backward, _plain_backward)
        ad.primitive_transposes[self.tangent] = self._tangent_transpose
        ad.primitive_transposes[self.backward] = self._backward_transpose

    def bind(self, op: Op, *operands: Any) -> list[Any]:
        """The outputs of an op."""
        return self.forward.bind(*operands, op=op)

    def _primitive(self, name: str, compute: Callable[..., Any]) -> Primitive:
        primitive = Primitive(name)
        primitive.multiple_results = True
        compiled = functools.cache(lambda params: jax.jit(functools.partial(primitive.bind, **dict(params))))

        @primitive.def_impl
        def run(*operands, **params):
            # With jit switched off there would be no compiler to choose a kernel.
            with jax.disable_jit(False):
                return compiled(tuple(params.items()))(*operands)

        if self.partitioned:
            _compat.needs_devices(primitive)
        compute = functools.partial(compute, self.partitioned)
        mlir.register_lowering(primitive, functools.partial(_lower, compute, ""))
        for platform in targets.PLATFORMS:
            mlir.register_lowering(primitive, functools.partial(_lower, compute, platform), platform=platform)
        batching.fancy_primitive_batchers[primitive] = functools.partial(self._batch, primitive)
        return primitive

    def _forward_jvp(self, operands, tangents, *, op: Op):
        outputs = self.bind(op, *operands)
        for i, name in enumerate(op.names):
            outputs[i] = checkpoint_name(outputs[i], name)
        given = tuple(None if type(t) is ad.Zero else t for t in tangents)
        primals, saved, moving = op.linearise(tuple(operands), tuple(outputs), given)
        while len(moving) > op.core and moving[-1] is None:
            moving = moving[:-1]
        moving = _vary_like(primals[0], [_zero(p) if t is None else t for p, t in zip(primals, moving)])
        cut = len(primals), len(primals) + len(saved)
        results = self.tangent.bind(*primals, *saved, *moving, op=op, cut=cut)
        return outputs, [*results, *(_symbolic_zero(x) for x in outputs[op.results :])]

    def _tangent_transpose(self, cotangents, *operands, op: Op, cut):
        fixed, linear = operands[: cut[1]], [ad.is_undefined_primal(x) for x in operands[cut[1] :]]
        if not op.sparse:
            cotangents = [ad.instantiate_zeros(c) for c in cotangents]
        given = tuple(type(c) is not ad.Zero for c in cotangents)
        if not any(given):
            return [None] * len(operands)
        count = len(linear)
        while count > op.core and not linear[count - 1]:
            count -= 1
        moving = _vary_like(fixed[0], [c for c, is_given in zip(cotangents, given) if is_given])
        grads = self.backward.bind(*fixed, *moving, op=op, cut=cut, given=given, count=count)
        return [None] * len(fixed) + [grads[i] if is_linear else None for i, is_linear in enumerate(linear)]

    def _backward_transpose(self, cotangents, *operands, op: Op, cut, given, count):
        fixed, linear = operands[: cut[1]], [ad.is_undefined_primal(x) for x in operands[cut[1] :]]
        moving = _vary_like(fixed[0], [ad.instantiate_zeros(c) for c in cotangents])
        tangents = self.tangent.bind(*fixed, *moving, op=op, cut=cut)
        wanted = [t for t, is_given in zip(tangents, given) if is_given]
        return [None] * len(fixed) + [t if is_linear else None for t, is_linear in zip(wanted, linear)]

    def _batch(self, primitive, axis, operands, dims, *, op: Op, **params):
        if all(d is None for d in dims):
            results = primitive.bind(*operands, op=op, **params)
            return results, [None] * len(results)
        names = _mapped_over(axis) if op.places else ()
        if (mapped := op.mapped()) is not None:
            operands = [batching.bdim_at_front(x, d, axis.size) for x, d in zip(operands, dims)]
            parts = (names, *op.places.parts) if op.places else ()
            results = primitive.bind(*operands, op=_placed(mapped, parts), **params)
        else:
            results = _fold(primitive, operands, dims, axis.size, names, op, params)
        return results, [0] * len(results)


# Lowering


def _lower(compute: Callable[..., Any], platform: str, context, *operands, **params):
    function = functools.partial(compute, targets.of(platform, context))
    with _compat.outside_maps():
        return mlir.lower_fun(function, multiple_results=True)(context, *operands, **params)


def _forward(ruled: bool, target: Target, *operands, op: Op):
    def local(target, *operands):
        return tuple(op.forward(target, *operands))

    roles = lambda axes: (axes.operands, axes.results)
    return _divided(local, roles, lambda: _shapes(op, operands), ruled, target, op, operands, len(operands))


def _tangent(_: bool, target: Target, *operands, op: Op, cut):
    def local(_, *operands):
        return tuple(op.tangent(*_split(operands, cut)))

    moving = len(operands) - cut[1]
    roles = lambda axes: ([*_fixed(axes, cut), *axes.operands[:moving]], axes.results)
    results = lambda: _shapes(op, operands[: cut[0]])[: op.results]
    return _divided(local, roles, results, False, target, op, operands, cut[0])


def _backward(ruled: bool, target: Target, *operands, op: Op, cut, given, count):
    def local(target, *operands):
        primals, saved, cotangents = _split(operands, cut)
        return tuple(op.backward(target, primals, saved, _fill(cotangents, given), count))

    def roles(axes):
        moving = [role for role, is_given in zip(axes.results, given) if is_given]
        return [*_fixed(axes, cut), *moving], axes.operands[:count]

    return _divided(local, roles, lambda: operands[:count], ruled, target, op, operands, cut[0])


def _divided(local, roles, results, ruled: bool, target: Target, op: Op, operands, primals: int):
    """`local(target, *operands)`: mapped over the op's places, or partitioned by its rule, or left to XLA."""
    axes = op.axes(*operands[:primals]) if target.split else None
    if axes is None:
        return local(target, *operands)
    places = op.places if known(*(size for x in operands for size in x.shape)) else None
    if places is not None and not (inner := target.inside(places.manual)).split:
        own, out = roles(axes)
        return partition.shard(functools.partial(local, inner), operands, results(), own, out, axes, places)
    if ruled and target.divisible:
        own, out = roles(axes)
        return partition.divide(functools.partial(local, target), operands, own, out, axes)
    return local(target, *operands)


def _shapes(op: Op, operands):
    return op.shapes(*map(jax.typeof, operands))


def _fixed(axes: Axes, cut) -> list[str]:
    """The roles of the primals and of the saved arrays, which are the last outputs."""
    return [*axes.operands, *axes.results[len(axes.results) - (cut[1] - cut[0]) :]]


def _split(operands, cut) -> tuple[tuple, tuple, tuple]:
    return tuple(operands[: cut[0]]), tuple(operands[cut[0] : cut[1]]), tuple(operands[cut[1] :])


def _fill(cotangents, given) -> tuple:
    cotangents = iter(cotangents)
    return tuple(next(cotangents) if is_given else None for is_given in given)


# Abstract values


def _tangent_avals(*avals, op: Op, cut):
    return list(op.shapes(*avals[: cut[0]]))[: op.results]


def _backward_avals(*avals, op: Op, cut, given, count):
    return [x.update(weak_type=False) for x in avals[:count]]


# Derivatives


def _plain_tangent(primals, saved, linear, *, op: Op):
    return op.tangent(primals, saved, linear)


def _plain_backward(primals, saved, linear, *, op: Op, given, count):
    return op.pullback(primals, saved, _fill(linear, given), count)


def _linear_jvp(primitive, plain, operands, tangents, *, cut, **params):
    """The JVP of `tangent` or `backward`: itself where only its linear operands move, else that of its form in ordinary
    JAX. The saved arrays are functions of the primals, and their tangents are not used.
    """
    outputs = primitive.bind(*operands, cut=cut, **params)
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero and not cut[0] <= i < cut[1]]
    if not moving:
        return outputs, [_symbolic_zero(x) for x in outputs]
    if moving[0] >= cut[1]:
        linear = _vary_like(operands[0], [ad.instantiate_zeros(t) for t in tangents[cut[1] :]])
        return outputs, primitive.bind(*operands[: cut[1]], *linear, cut=cut, **params)

    def of_moving(*values):
        every = list(operands)
        for i, value in zip(moving, values):
            every[i] = value
        return tuple(plain(*_split(every, cut), **params))

    return outputs, jax.jvp(of_moving, tuple(operands[i] for i in moving), tuple(tangents[i] for i in moving))[1]


def _vary_like(first, arrays) -> tuple[Any, ...]:
    return vary_alike(first, *arrays)[1:]


def _zero(primal):
    return ad.instantiate_zeros(_symbolic_zero(primal))


def _symbolic_zero(primal):
    return ad.Zero(jax.typeof(primal).to_tangent_aval())


# vmap


def _mapped_over(axis) -> tuple[str, ...]:
    """The explicit mesh axes over which a mapped axis is sharded. JAX has none where the mesh has automatic axes, as it
    has here.
    """
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        return tuple(axis.explicit_mesh_axis or ())


def _placed(op: Op, parts) -> Op:
    """The op with its places over these parts, if it has any."""
    if op.places is None:
        return op
    places: Any = dataclasses.replace(op.places, parts=tuple(parts)) if parts else None
    return dataclasses.replace(op, places=places)  # pyright: ignore[reportArgumentType]


def _fold(primitive, operands, dims, size: int, names: tuple[str, ...], op: Op, params) -> list[Any]:
    """The results with the mapped axis in front, computed on operands that have it folded into their batch.

    An operand that all examples share keeps a batch of 1, and so does its tangent; a gradient for each mapped example
    needs a copy for each. The mapped axis, sharded over `names`, is folded inside a batch that is divided already, so
    that each device has one stretch of both; where both are divided, the call is left to XLA.
    """
    inside = False
    if op.places is not None:
        own, *rest = op.places.parts
        inside = bool(own) and not names
        op = _placed(op, () if own and names else (own or names, *rest))
    batch = operands[0].shape[1 if dims[0] == 0 else 0]
    cut, count = params.get("cut", (len(operands),) * 2), params.get("count", op.core)
    shared = set(range(op.core, cut[0])) - set(range(op.core, count))
    if "cut" in params and "count" not in params:
        for i in range(op.core, len(operands) - cut[1]):
            pair = i, cut[1] + i
            alike = all(dims[j] is None for j in pair)
            shared = shared | set(pair) if alike else shared - set(pair)
    folded = [_folded(x, d, size, batch, inside, shared=i in shared) for i, (x, d) in enumerate(zip(operands, dims))]
    results = [_unfolded(x, size, batch, inside) for x in primitive.bind(*folded, op=op, **params)]
    for i in range(op.core, min(count, len(results))):
        if operands[i].shape[1 if dims[i] == 0 else 0] == 1:
            results[i] = results[i].sum(1, keepdims=True)
    return results


def _folded(x, dim: int | None, size: int, batch: int, inside: bool, *, shared: bool):
    if dim is None:
        if shared and x.shape[0] == 1:
            return x
        x = jnp.broadcast_to(x[None], (size, *x.shape))
    else:
        x = jnp.moveaxis(x, dim, 0)
    x = jnp.broadcast_to(x, (size, batch, *x.shape[2:]))
    return (jnp.swapaxes(x, 0, 1) if inside else x).reshape(size * batch, *x.shape[2:])


def _unfolded(x, size: int, batch: int, inside: bool):
    if inside:
        return jnp.swapaxes(x.reshape(batch, size, *x.shape[1:]), 0, 1)
    return x.reshape(size, batch, *x.shape[1:])
