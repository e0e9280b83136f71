"""Attention as three JAX primitives, so that one op has every derivative, folds `vmap` into its batch and picks its
kernel per platform.

`attend` is the op. `tangent` is its forward-mode derivative, linear in the tangents; its transpose is `backward`, the
fused backward pass. The derivatives of those two come from `plain`, which is ordinary JAX, so there is one of every
order. `jax.custom_vjp` would refuse forward mode, and `jax.custom_jvp` could not transpose to a kernel.

Operands are (q, k, v, *leaves of extras); the bias, an array or ALiBi's slopes, is the first leaf where there is one.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import _compat
from . import backends, plain
from .problem import Extras, Setting, accumulator

OUTPUT_NAME, LOGSUMEXP_NAME = "attention_output", "attention_logsumexp"


def attend(q, k, v, extras: Extras, setting: Setting, *, implementation: str | None):
    """Attention by a backend; see `reference.attend` for the arguments and results."""
    leaves, tree = jax.tree.flatten(extras)
    operands = _align(q, k, v, *leaves)
    return tuple(attend_p.bind(*operands, tree=tree, setting=setting, implementation=implementation))


def _align(*operands):
    """All operands varying over the same manual axes of a `shard_map`; the transpose of that cast is the sum a gradient
    needs.
    """
    axes = functools.reduce(lambda a, b: a | b, (jax.typeof(x).manual_axis_type.varying for x in operands))
    return tuple(jax.lax.pcast(x, tuple(axes - jax.typeof(x).manual_axis_type.varying), to="varying") for x in operands)


def _has_bias(tree) -> bool:
    return jax.tree.unflatten(tree, [0] * tree.num_leaves).bias is not None


def _primitive(name: str, compute) -> Primitive:
    """A primitive that `compute(target, *operands, **params)` lowers; see `backends`."""
    primitive = Primitive(name)
    primitive.multiple_results = True

    @functools.cache
    def compiled(params):
        return jax.jit(functools.partial(primitive.bind, **dict(params)))

    def run(*operands, **params):
        with jax.disable_jit(False):
            return compiled(tuple(params.items()))(*operands)

    primitive.def_impl(run)
    _compat.needs_devices(primitive)
    for platform in ("cpu", "tpu", "cuda", "rocm"):
        mlir.register_lowering(primitive, functools.partial(_lower, compute, platform), platform=platform)
    return primitive


def _lower(compute, platform: str, context, *operands, **params):
    # A program that XLA partitions by itself says how many devices it has; one inside `shard_map`, which axes are
    # manual.
    axes = context.module_context.axis_context
    mesh, manual = getattr(axes, "mesh", None), getattr(axes, "manual_axes", frozenset())
    partly = (
        mesh is not None and bool(manual) and any(size > 1 for name, size in mesh.shape.items() if name not in manual)
    )
    split = partly or getattr(axes, "num_devices", 1) > 1
    function = functools.partial(compute, backends.Target(platform, split, partly))
    return mlir.lower_fun(function, multiple_results=True)(context, *operands, **params)


def _pair_avals(q, v):
    out = q.update(shape=(*q.shape[:3], v.shape[3]), weak_type=False)
    return out, _drop_last(q)


def _drop_last(q):
    spec = q.sharding.spec
    sharding = q.sharding.update(spec=spec.update(partitions=tuple(spec)[:3]))
    return q.update(shape=q.shape[:3], dtype=accumulator(q.dtype), sharding=sharding, weak_type=False)


# attend: (q, k, v, *leaves) -> (out, lse)

attend_p = _primitive("eqxgen_attention", backends.forward)


@attend_p.def_abstract_eval
def _attend_avals(q, k, v, *leaves, **params):
    return _pair_avals(q, v)


def _attend_jvp(primals, tangents, *, tree, setting, implementation):
    params = {"tree": tree, "setting": setting, "implementation": implementation}
    out, lse = attend_p.bind(*primals, **params)
    out, lse = checkpoint_name(out, OUTPUT_NAME), checkpoint_name(lse, LOGSUMEXP_NAME)
    count = 4 if _has_bias(tree) and type(tangents[3]) is not ad.Zero else 3
    moving = _align(primals[0], *(ad.instantiate_zeros(t) for t in tangents[:count]))[1:]
    return (out, lse), tangent_p.bind(*primals, out, lse, *moving, **params)


ad.primitive_jvps[attend_p] = _attend_jvp


# tangent: (q, k, v, *leaves, out, lse, *tangents of q, k, v and perhaps the bias) -> (tangent of out, tangent of lse)


def _function(leaves, tree, setting, count: int):
    """Plain attention as a function of its first `count` operands, the bias being the fourth."""

    def function(q, k, v, *bias):
        return plain.attend(q, k, v, jax.tree.unflatten(tree, [*bias, *leaves[len(bias) :]]), setting)

    return function


def _tangent(target, *operands, tree, setting, implementation):
    primals, leaves, _, moving = _split(operands, tree)
    return jax.jvp(_function(leaves, tree, setting, len(moving)), primals[: len(moving)], moving)[1]


def _split(operands, tree):
    """(q, k, v, first leaf), all leaves, (out, lse), what is left."""
    cut = 3 + tree.num_leaves
    return tuple(operands[:4]), tuple(operands[3:cut]), operands[cut : cut + 2], tuple(operands[cut + 2 :])


tangent_p = _primitive("eqxgen_attention_tangent", _tangent)


@tangent_p.def_abstract_eval
def _tangent_avals(q, k, v, *rest, **params):
    return _pair_avals(q, v)


def _tangent_jvp(primals, tangents, **params):
    def whole(*operands):
        return _tangent(None, *operands, **params)

    return _through(tangent_p, whole, primals, tangents, params)


def _through(primitive, function, primals, tangents, params):
    """The JVP of a primitive from its form in ordinary JAX. `out` and `lse` depend on the other operands: nothing flows
    through them.
    """
    cut = 3 + params["tree"].num_leaves
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero and i not in (cut, cut + 1)]

    def of_moving(*values):
        operands = list(primals)
        for i, value in zip(moving, values):
            operands[i] = value
        return tuple(function(*operands))

    _, out_tangents = jax.jvp(of_moving, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving))
    return primitive.bind(*primals, **params), out_tangents


ad.primitive_jvps[tangent_p] = _tangent_jvp


def _tangent_transpose(cotangents, *operands, tree, setting, implementation):
    *primals, d_out, d_lse = operands[: 5 + tree.num_leaves]
    moving = operands[5 + tree.num_leaves :]
    linear = [ad.is_undefined_primal(x) for x in moving]
    with_bias = len(moving) == 4 and linear[3]
    cotangents = _align(primals[0], *(ad.instantiate_zeros(c) for c in cotangents))[1:]
    grads = backward_p.bind(
        *primals,
        d_out,
        d_lse,
        *cotangents,
        tree=tree,
        setting=setting,
        implementation=implementation,
        with_bias=with_bias,
    )
    return [None] * (5 + tree.num_leaves) + [grads[i] if is_linear else None for i, is_linear in enumerate(linear)]


ad.primitive_transposes[tangent_p] = _tangent_transpose


# backward: (q, k, v, *leaves, out, lse, cotangent of out, cotangent of lse) -> cotangents of q, k, v and perhaps the
# bias

backward_p = _primitive("eqxgen_attention_backward", backends.backward)


@backward_p.def_abstract_eval
def _backward_avals(q, k, v, *rest, with_bias, **params):
    return tuple(x.update(weak_type=False) for x in ((q, k, v, rest[0]) if with_bias else (q, k, v)))


def _backward_jvp(primals, tangents, *, with_bias, **params):
    tree, setting = params["tree"], params["setting"]

    def whole(*operands):
        primals, leaves, _, cotangents = _split(operands, tree)
        count = 4 if with_bias else 3
        return jax.vjp(_function(leaves, tree, setting, count), *primals[:count])[1](tuple(cotangents))

    return _through(backward_p, whole, primals, tangents, dict(params, with_bias=with_bias))


ad.primitive_jvps[backward_p] = _backward_jvp


def _backward_transpose(cotangents, *operands, tree, setting, implementation, with_bias):
    fixed = operands[: 5 + tree.num_leaves]
    linear = [ad.is_undefined_primal(x) for x in operands[5 + tree.num_leaves :]]
    moving = _align(fixed[0], *(ad.instantiate_zeros(c) for c in cotangents))[1:]
    tangents = tangent_p.bind(*fixed, *moving, tree=tree, setting=setting, implementation=implementation)
    return [None] * len(fixed) + [t if is_linear else None for t, is_linear in zip(tangents, linear)]


ad.primitive_transposes[backward_p] = _backward_transpose


# vmap: every operand has a leading batch axis; the mapped axis joins it.


def _fold(x, dim, size: int, batch: int, *, shared: bool):
    """An operand with the mapped axis folded into its batch. One that is `shared` by all may keep a batch of 1."""
    if dim is None:
        if shared and x.shape[0] == 1:
            return x
        x = jnp.broadcast_to(x[None], (size, *x.shape))
    else:
        x = jnp.moveaxis(x, dim, 0)
    return jnp.broadcast_to(x, (size, batch, *x.shape[2:])).reshape(size * batch, *x.shape[2:])


def _batch_rule(primitive, operands, dims, **params):
    end = 5 + params["tree"].num_leaves
    size = next(x.shape[d] for x, d in zip(operands, dims) if d is not None)
    size_of = lambda i: operands[i].shape[0 if dims[i] is None or dims[i] > 0 else 1]
    batch = size_of(0)
    # A bias and its tangent keep one shape; a gradient for each mapped example needs a bias for each.
    shared = set(range(3, end - 2))
    bias_gradient = primitive is backward_p and params["with_bias"]
    if primitive is tangent_p and len(operands) == end + 4:
        if dims[3] is None and dims[end + 3] is None:
            shared.add(end + 3)
        else:
            shared.remove(3)
    elif bias_gradient:
        shared.remove(3)
    folded = [_fold(x, dim, size, batch, shared=i in shared) for i, (x, dim) in enumerate(zip(operands, dims))]
    results = [x.reshape(size, batch, *x.shape[1:]) for x in primitive.bind(*folded, **params)]
    if bias_gradient and size_of(3) == 1:
        results[3] = results[3].sum(1, keepdims=True)
    return results, [0] * len(results)


for _p in (attend_p, tangent_p, backward_p):
    batching.primitive_batchers[_p] = functools.partial(_batch_rule, _p)
