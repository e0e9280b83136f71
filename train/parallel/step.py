"""One update, split over the devices of a mesh."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from train.parallel.gather import fsdp_specs, gathered
from train.parallel.mesh import AXES, BATCH
from train.parallel.rules import place


class Sums(NamedTuple):
    """What a loss says of some examples: sums over them, so that neither the split over devices nor an uneven batch changes the mean.

    Attributes:
        loss: the summed loss; the step minimises the sum over all devices divided by the sum of `weight`.
        weight: what the loss is a sum over: examples, or tokens, each times its `batch["weight"]`.
        metrics: further sums, each reported divided by `weight`.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: Mapping[str, Float[Array, ""]]


Axes = str | tuple[str, ...] | None

Loss = Callable[[Any, dict[str, Array], PRNGKeyArray, Axes], Sums]
"""(model, the device's part of a batch, one key per example, names of the mesh axes or None) -> Sums.

`batch["weight"]` is 1, or 0 for an example that only fills up an uneven batch: it must count for nothing. Whatever is not a sum over
examples, such as an average inside a logarithm, is first averaged over the mesh axes by `jax.lax.pmean`."""


class State(eqx.Module):
    """What a run consists of."""

    model: PyTree
    ema: PyTree
    opt_state: PyTree
    step: Array


def cast(tree: PyTree, dtype: jnp.dtype) -> PyTree:
    """Floating-point arrays in another type."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def gradients(
    loss: Loss, model: PyTree, batch: dict[str, Array], key: PRNGKeyArray, mesh: Mesh, dtype: jnp.dtype, accumulate: int = 1
) -> tuple[PyTree, dict[str, Array]]:
    """Gradients of the mean loss over a batch split along the mesh's `BATCH` axes, and the mean metrics on every device.

    The sum over the devices is taken once, after all micro-batches. A gradient lies where its parameter does.

    Args:
        batch: `index` numbers the examples; each draws from `fold_in(key, index)`, so that what it draws depends on neither the devices nor
            the micro-batches. `weight` is what each counts.
        dtype: of the computation.
        accumulate: micro-batches that each device walks through one after another.
    """
    arrays, static = eqx.partition(model, eqx.is_array)
    params, fixed = eqx.partition(arrays, eqx.is_inexact_array)
    specs = fsdp_specs(params, mesh)
    axes = manual_axes(mesh)

    def local(params, fixed, batch, key):
        # Varying parameters make this a gradient of the device's own sum, with and without check_vma; the sum over devices is ours below.
        params = _over(lambda x, axes: jax.lax.pcast(x, axes, to="varying"), params, specs, axes)

        def total(params, batch):
            keys = jax.vmap(functools.partial(jr.fold_in, key))(batch["index"])
            whole = gathered(cast(eqx.combine(params, fixed, static), dtype), eqx.combine(specs, fixed, static))
            sums = loss(whole, batch, keys, axes or None)
            return sums.loss.astype(jnp.float32), sums

        grads, sums = _accumulated(jax.grad(total, has_aux=True), params, batch, accumulate, axes)
        return _over(jax.lax.psum, grads, specs, axes), jax.lax.psum(sums, axes)

    if axes:
        local = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(specs, PartitionSpec(), PartitionSpec(axes), PartitionSpec()),
            out_specs=(specs, PartitionSpec()),
            axis_names=set(AXES) if mesh.shape["model"] == 1 else set(axes),
        )
    grads, sums = local(params, fixed, batch, key)
    grads = jax.tree.map(lambda g: g / sums.weight, grads)
    return grads, {name: value / sums.weight for name, value in {"loss": sums.loss, **sums.metrics}.items()}


def manual_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes over which the step itself splits its work and sums: all of the batch's, as kernels need it, where `model` has one place.

    Where it has more, the compiler splits each device's work over them; its partitioner then fails on manual axes of one place, so they are
    left out.
    """
    return tuple(name for name in BATCH if mesh.shape["model"] == 1 or mesh.shape[name] > 1)


def _over(exchange: Callable[[Array, tuple[str, ...]], Array], tree: PyTree, specs: PyTree, axes: tuple[str, ...]) -> PyTree:
    """`exchange(array, axes)` over those of the axes along which an array is not split already."""

    def each(x: Array, spec: PartitionSpec) -> Array:
        rest = tuple(name for name in axes if name not in spec)
        return exchange(x, rest) if rest else x

    return jax.tree.map(each, tree, specs)


def _accumulated(grad: Callable, params: PyTree, batch: dict[str, Array], count: int, axes: tuple[str, ...]) -> tuple[PyTree, Sums]:
    """Sums of gradients and of `Sums` over micro-batches, of which one at a time is in memory."""
    if count == 1:
        return grad(params, batch)
    micro = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)

    def add(total, batch):
        grads, sums = grad(params, batch)
        return jax.tree.map(jnp.add, total, grads), sums

    zeros = jax.tree.map(lambda x: jax.lax.pcast(jnp.zeros(x.shape, x.dtype), axes, to="varying"), params)
    grads, sums = jax.lax.scan(add, zeros, micro)
    return grads, jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def make_update(
    loss: Loss, optimiser: optax.GradientTransformation, mesh: Mesh, dtype: jnp.dtype, ema: float, accumulate: int = 1
) -> Callable[[tuple[dict[str, Array], PRNGKeyArray], State], tuple[State, dict[str, Array]]]:
    """The update, to be compiled: ((batch, key of the run), state) -> (state, metrics)."""

    def update(inputs: tuple[dict[str, Array], PRNGKeyArray], state: State) -> tuple[State, dict[str, Array]]:
        batch, key = inputs
        grads, metrics = gradients(loss, state.model, batch, jr.fold_in(key, state.step), mesh, dtype, accumulate)
        params = eqx.filter(state.model, eqx.is_inexact_array)
        updates, opt_state = optimiser.update(grads, state.opt_state, params)
        model = eqx.apply_updates(state.model, updates)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return place(State(model, average(state.ema, model, state.step, ema), opt_state, state.step + 1), mesh), metrics

    return update


def make_step(*args: Any) -> Callable:
    """`make_update`, compiled. It takes over the memory of the state it is given."""
    return eqx.filter_jit(make_update(*args), donate="all-except-first")


def average(ema: PyTree, model: PyTree, step: Array, decay: float) -> PyTree:
    """Exponential moving average of the weights. The decay ramps up, so that the first steps do not linger in a short run."""
    count = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda e, m: e + (1 - kept) * (m - e) if eqx.is_inexact_array(m) else m, ema, model)


def init_state(model: PyTree, optimiser: optax.GradientTransformation) -> State:
    """The state before the first step."""
    copy = jax.tree.map(lambda x: jnp.array(x, copy=True) if eqx.is_array(x) else x, model)  # the step takes over each buffer once
    return State(model, copy, optimiser.init(eqx.filter(model, eqx.is_inexact_array)), jnp.zeros((), jnp.int32))


def abstract_state(init: Callable[[PRNGKeyArray], PyTree], optimiser: optax.GradientTransformation, mesh: Mesh) -> State:
    """The shapes, types and places of a run's state; nothing is computed.

    Args:
        init: makes the model from a key.
    """
    return place(eqx.filter_eval_shape(lambda key: init_state(init(key), optimiser), jr.key(0)), mesh)


def sharded_state(init: Callable[[PRNGKeyArray], PyTree], optimiser: optax.GradientTransformation, mesh: Mesh, key: PRNGKeyArray) -> State:
    """The state before the first step, each device making its own part: no device ever holds a model that is larger than it."""
    return eqx.filter_jit(lambda key: place(init_state(init(key), optimiser), mesh))(key)
