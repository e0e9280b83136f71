"""Gradients over devices: each device differentiates its own part by parameters that vary, and one sum over the devices
follows. `mean_gradients` is that of a batch on a mesh, as a step takes it; `train.gradients` builds on the same two
functions inside a program of one's own.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PRNGKeyArray, PyTree

from eqxgen.nn import split_over

from ..parallel.gather import forgetting, gathered, part_specs
from ..parallel.mesh import manual_axes, mapped_axes
from ..params.paths import dotted
from ..precision import LossScale, NoLossScale, Policy, to_compute, to_output
from ..precision.scale import widen
from .recipe import Context, Loss, Sums


def device_gradients(
    function: Callable[..., tuple[Array, Any]],
    params: PyTree,
    *arguments: Any,
    axes: tuple[str, ...],
    specs: PyTree | None = None,
) -> tuple[PyTree, Any]:
    """Gradients by the first argument of this device's own value, in float32 at least, and what comes beside the value.

    A parameter that varies has the gradient of the device's own loss with and without `check_vma`; the sum or the mean
    over devices is left to `over_devices`.

    Args:
        function: (params, *arguments) -> (value, others).
        axes: mesh axes of the surrounding `shard_map`; () without one.
        specs: how each parameter is split over the axes; by default it is whole.
    """
    params = over_devices(vary, params, axes, specs)
    grads, others = jax.grad(function, has_aux=True)(params, *arguments)
    return jax.tree.map(widen, grads), others


def vary(x: Array, axes: tuple[str, ...]) -> Array:
    """The array as one that may differ over some axes."""
    rest = tuple(name for name in axes if name not in jax.typeof(x).manual_axis_type.varying)
    return jax.lax.pcast(x, rest, to="varying") if rest else x


def over_devices(
    exchange: Callable[[Array, tuple[str, ...]], Array],
    tree: PyTree,
    axes: tuple[str, ...],
    specs: PyTree | None = None,
) -> PyTree:
    """`exchange(array, axes)` over those of the axes along which an array is not split already."""

    def each(x: Array, spec: PartitionSpec) -> Array:
        rest = tuple(name for name in axes if name not in spec)
        return exchange(x, rest) if rest else x

    whole = lambda x: PartitionSpec()
    return jax.tree.map(each, tree, jax.tree.map(whole, tree) if specs is None else specs)


def mean_gradients(
    loss: Loss,
    model: PyTree,
    batch: dict[str, Array],
    key: PRNGKeyArray,
    mesh: Mesh,
    policy: Policy = Policy(),  # noqa: B008
    scale: LossScale = NoLossScale(),  # noqa: B008
    accumulate: int = 1,
    moved: PyTree = eqx.is_inexact_array,
    context: Context = Context(),  # noqa: B008
    whole: Callable[..., PyTree] | None = None,
) -> tuple[PyTree, dict[str, Array], PyTree]:
    """Gradients, times the loss scale, of the mean loss over a batch split along the mesh's `BATCH` axes, and each
    example along `context` by `Context.tokens`; the mean metrics on every device; the model state after the batch.

    The sum over the devices is taken once, after all micro-batches. A gradient is placed as its parameter.

    Args:
        batch: `index` numbers the examples; each draws from `fold_in(key, index)`, so that its draws depend on
            neither the devices nor the micro-batches. `weight` is 1, or 0 for padding.
        policy: the types of the computation; gradients are added up in float32 at least.
        scale: the loss scale.
        accumulate: micro-batches on each device, one after another, with the model state handed on.
        moved: the parameters to differentiate by, as `eqx.partition` takes them.
        context: model state, frozen parts and step.
        whole: see `Turn.whole`.

    Raises:
        ValueError: the state that the loss returns differs over devices, or has another structure.
    """
    arrays, static = eqx.partition((model, context.frozen), eqx.is_array)
    specs = part_specs(arrays, mesh)
    params, fixed = eqx.partition(arrays, (moved, False))
    param_specs, fixed_specs = (
        jax.tree.map(lambda spec, x: None if x is None else spec, specs, tree) for tree in (params, fixed)
    )
    batch_axes = manual_axes(mesh)
    sequence, experts, blocks = (name if mesh.shape[name] > 1 else None for name in ("context", "expert", "pipeline"))
    axes = batch_axes if sequence is None else (*batch_axes, sequence)

    def local(params, fixed, state, step, batch, key, scale):
        def called(function, params, state, batch, known=None, part=0):
            keys = jax.vmap(functools.partial(jr.fold_in, key))(batch["index"])
            parts = tuple(to_compute(policy, part) for part in eqx.combine(params, fixed, static))
            # Experts stay where they are: tokens go to them.
            model, frozen = gathered(parts, eqx.combine(specs, static), ("fsdp",))
            with split_over(sequence=sequence, experts=experts, blocks=blocks, order="zigzag"):
                return function(model, batch, keys, Context(state, frozen, step, axes, known, accumulate, part))

        def total(params, state, batch, number):
            sums = called(loss, params, state, batch, known, number)
            sums = Sums(
                to_output(policy, sums.loss),
                sums.weight,
                to_output(policy, dict(sums.metrics)),
                _same_state(state, sums.state, axes),
            )
            if isinstance(scale, NoLossScale):
                return sums.loss, (sums, 1)
            # A mean is scaled: of a sum over many tokens the first factor of a loss scale would overflow. Devices
            # divide by one number, as gradients of parameters in parts are summed before they are multiplied by it.
            weight = jax.lax.stop_gradient(sums.weight)
            weight = jax.lax.pmean(vary(weight, axes), axes) if axes else weight
            part = jnp.where(weight > 0, weight, 1)
            return scale.scale(sums.loss) / part, (sums, part)

        def wide(params, state, batch, number):
            function = forgetting(total, specs, ("fsdp",))
            grads, (sums, part) = device_gradients(function, params, state, batch, number, axes=axes, specs=param_specs)
            return jax.tree.map(lambda g: g * part, grads), sums

        known = None
        if whole is not None and accumulate > 1:
            varying = over_devices(vary, params, axes, param_specs)
            parts = jax.lax.map(lambda batch: called(whole, varying, state, batch), _micro(batch, accumulate))
            known = jax.tree.map(lambda x: jnp.sum(x, axis=0), parts)
            known = jax.lax.psum(known, axes) if axes else known
        grads, sums = _accumulated(wide, params, state, batch, accumulate, axes)
        counted = (sums.loss, sums.weight, dict(sums.metrics))
        return (
            over_devices(jax.lax.psum, grads, axes, param_specs),
            jax.lax.psum(over_devices(vary, counted, axes), axes),
            sums.state,
        )

    if axes:
        copied = PartitionSpec()
        local = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(param_specs, fixed_specs, copied, copied, PartitionSpec(batch_axes), copied, copied),
            out_specs=(param_specs, copied, copied),
            axis_names=mapped_axes(mesh),
        )
    step = jnp.asarray(context.step, jnp.int32)
    grads, (loss_sum, weight, sums), state = local(params, fixed, context.state, step, batch, key, scale)
    grads = jax.tree.map(lambda g: g / weight, grads[0])
    return grads, {name: value / weight for name, value in {"loss": loss_sum, **sums}.items()}, state


def _same_state(before: PyTree, after: PyTree, axes: tuple[str, ...]) -> PyTree:
    """The state after a loss, or that before it where the loss leaves it."""
    if after is None:
        return before
    if jax.tree.structure(after) != jax.tree.structure(before):
        raise ValueError(
            "Sums.state must have the structure of Context.state: got "
            f"{jax.tree.structure(after)}, not {jax.tree.structure(before)}; give the program's init_state"
        )

    def one(path: Any, old: Any, new: Any) -> Any:
        if not eqx.is_array(new):
            return new
        if (jnp.shape(old), jnp.result_type(old)) != (new.shape, new.dtype):
            raise ValueError(
                f"Sums.state must keep shapes and types: {dotted(path)} was {jax.typeof(old)}, became "
                f"{jax.typeof(new)}; cast it back"
            )
        if differing := [name for name in axes if name in jax.typeof(new).manual_axis_type.varying]:
            raise ValueError(
                f"Sums.state must be the same on every device: {dotted(path)} differs over {', '.join(differing)}; sum "
                "it by context.sum, or give the layer context.axes"
            )
        return jax.lax.stop_gradient(new)

    return jax.tree_util.tree_map_with_path(one, before, after)


def _accumulated(
    grad: Callable, params: PyTree, state: PyTree, batch: dict[str, Array], count: int, axes: tuple[str, ...]
) -> tuple[PyTree, Sums]:
    """Sums of gradients and of `Sums` over micro-batches, of which one at a time is in memory."""
    if count == 1:
        return grad(params, state, batch, 0)

    def add(carry, given):
        (total, state), (batch, number) = carry, given
        # Without it the TPU compiler, which looks at sums over devices in loops for those that could be made after it,
        # stops at a second derivative's (while_loop_all_reduce_code_motion.cc).
        grads, sums = grad(params, state, batch, number)
        grads = jax.tree.map(jax.lax.optimization_barrier, grads)  # one by one, as they vary over other axes each
        return (jax.tree.map(jnp.add, total, grads), sums.state), sums._replace(state=None)

    zero = lambda x: vary(jnp.zeros(x.shape, widen(x).dtype), axes)
    given = (_micro(batch, count), jnp.arange(count))
    (grads, state), sums = jax.lax.scan(add, (jax.tree.map(zero, params), state), given)
    return grads, jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)._replace(state=state)


def _micro(batch: dict[str, Array], count: int) -> dict[str, Array]:
    """The micro-batches along a new first axis."""
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
