"""One update, split over the devices of a mesh."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from train.errors import UsageError

AXIS = "data"


class Sums(NamedTuple):
    """What a loss says of some examples: sums over them, so that neither the split over devices nor an uneven batch changes the mean.

    Attributes:
        loss: the summed loss; the step minimises the sum over all devices divided by the sum of `weight`.
        weight: what the loss is a sum over: examples, or tokens.
        metrics: further sums, each reported divided by `weight`.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: Mapping[str, Float[Array, ""]]


Loss = Callable[[Any, dict[str, Array], PRNGKeyArray, str | None], Sums]
"""(model, the device's part of a batch, one key per example, name of the mesh axis or None) -> Sums.

Whatever is not a sum over examples, such as an average inside a logarithm, is first averaged over the mesh axis by `jax.lax.pmean`."""


class State(eqx.Module):
    """What a run consists of."""

    model: PyTree
    ema: PyTree
    opt_state: PyTree
    step: Array


def make_mesh(devices=None) -> Mesh:
    """All devices along one axis, `data`."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices).reshape(-1), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises `UsageError` unless every device gets the same number of examples."""
    if batch_size % mesh.size:
        near = max(mesh.size, round(batch_size / mesh.size) * mesh.size)
        raise UsageError(f"--batch-size must be a multiple of the number of devices, {mesh.size}: got {batch_size}; try {near}")


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Along the first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def cast(tree: PyTree, dtype: jnp.dtype) -> PyTree:
    """Floating-point arrays in another type."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def gradients(
    loss: Loss, model: PyTree, batch: dict[str, Array], key: PRNGKeyArray, mesh: Mesh, dtype: jnp.dtype
) -> tuple[PyTree, dict[str, Array]]:
    """Gradients of the mean loss over a batch split along `data`, and the mean metrics, both on every device.

    `batch["index"]` numbers the examples; each draws from `fold_in(key, index)`, so that what it draws does not depend on the devices.
    """
    params, static = eqx.partition(model, eqx.is_array)

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    def local(params, batch, key):
        # Varying parameters make this a gradient of the device's own sum, with and without check_vma; the sum over devices is ours below.
        params = jax.tree.map(lambda p: jax.lax.pcast(p, AXIS, to="varying"), params)
        keys = jax.vmap(functools.partial(jr.fold_in, key))(batch["index"])

        @functools.partial(eqx.filter_value_and_grad, has_aux=True)
        def total(model):
            sums = loss(cast(model, dtype), batch, keys, AXIS)
            return sums.loss.astype(jnp.float32), sums

        (_, sums), grads = total(eqx.combine(params, static))
        return jax.lax.psum((eqx.filter(grads, eqx.is_array), sums), AXIS)

    grads, sums = local(params, batch, key)
    grads = jax.tree.map(lambda g: g / sums.weight, grads)
    return grads, {name: value / sums.weight for name, value in {"loss": sums.loss, **sums.metrics}.items()}


def make_update(loss: Loss, optimiser: optax.GradientTransformation, mesh: Mesh, dtype: jnp.dtype, ema: float):
    """The update, to be compiled: ((batch, key of the run), state) -> (state, metrics)."""

    def update(inputs: tuple[dict[str, Array], PRNGKeyArray], state: State) -> tuple[State, dict[str, Array]]:
        batch, key = inputs
        grads, metrics = gradients(loss, state.model, batch, jr.fold_in(key, state.step), mesh, dtype)
        params = eqx.filter(state.model, eqx.is_inexact_array)
        updates, opt_state = optimiser.update(grads, state.opt_state, params)
        model = eqx.apply_updates(state.model, updates)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return State(model, average(state.ema, model, state.step, ema), opt_state, state.step + 1), metrics

    return update


def make_step(*args):
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
