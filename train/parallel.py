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
from train.precision import DynamicLossScale, LossScale, NoLossScale, Policy, Skipped, guarded_update
from train.precision.scale import widen

AXIS = "data"
FULL = Policy()


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
    """What a run consists of.

    Attributes:
        step: updates tried, whether or not they could be made.
    """

    model: PyTree
    ema: PyTree
    opt_state: PyTree
    step: Array
    scale: LossScale
    skipped: Skipped


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


def gradients(
    loss: Loss, model: PyTree, batch: dict[str, Array], key: PRNGKeyArray, mesh: Mesh, policy: Policy, scale: LossScale
) -> tuple[PyTree, dict[str, Array]]:
    """Gradients, times the loss scale, of the mean loss over a batch split along `data`, and the mean metrics, both on every device.

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
            sums = loss(policy.cast_to_compute(model), batch, keys, AXIS)
            sums = Sums(policy.cast_to_output(sums.loss), sums.weight, policy.cast_to_output(sums.metrics))
            return scale.scale(sums.loss), sums

        (_, sums), grads = total(eqx.combine(params, static))
        return jax.lax.psum((jax.tree.map(widen, eqx.filter(grads, eqx.is_array)), sums), AXIS)

    grads, sums = local(params, batch, key)
    grads = jax.tree.map(lambda g: g / sums.weight, grads)
    return grads, {name: value / sums.weight for name, value in {"loss": sums.loss, **sums.metrics}.items()}


def make_update(loss: Loss, optimiser: optax.GradientTransformation, mesh: Mesh, policy: Policy, ema: float):
    """The update, to be compiled: ((batch, key of the run), state) -> (state, metrics)."""

    def update(inputs: tuple[dict[str, Array], PRNGKeyArray], state: State) -> tuple[State, dict[str, Array]]:
        batch, key = inputs
        grads, metrics = gradients(loss, state.model, batch, jr.fold_in(key, state.step), mesh, policy, state.scale)

        def apply(grads: PyTree, kept: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree, PyTree]:
            model, averaged, opt_state = kept
            updates, opt_state = optimiser.update(grads, opt_state, trainable(model))
            model = apply_updates(model, updates)
            return model, average(averaged, model, state.step, ema), opt_state

        kept = (state.model, state.ema, state.opt_state)
        (model, averaged, opt_state), scale, skipped, grads = guarded_update(
            apply, grads, metrics["loss"], kept, state.scale, state.skipped
        )
        metrics |= {"grad_norm": optax.tree.norm(grads), "loss_scale": state.scale.factor, "skipped": skipped.total}
        return State(model, averaged, opt_state, state.step + 1, scale, skipped), metrics

    return update


def make_step(*args):
    """`make_update`, compiled. It takes over the memory of the state it is given."""
    return eqx.filter_jit(make_update(*args), donate="all-except-first")


def average(ema: PyTree, model: PyTree, step: Array, decay: float) -> PyTree:
    """Exponential moving average of the weights. The decay ramps up, so that the first steps do not linger in a short run."""
    count = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda e, m: (e + (1 - kept) * (m - e)).astype(e.dtype) if eqx.is_inexact_array(m) else m, ema, model)


def trainable(model: PyTree) -> PyTree:
    """The parameters as the optimiser sees them: in float32, however they are stored."""
    return jax.tree.map(widen, eqx.filter(model, eqx.is_inexact_array))


def apply_updates(model: PyTree, updates: PyTree) -> PyTree:
    """The model with the updates added in float32, and stored in its own types."""
    add = lambda u, p: p if u is None else (widen(p) + u).astype(p.dtype)
    return jax.tree.map(add, updates, model, is_leaf=lambda x: x is None)


def init_state(model: PyTree, optimiser: optax.GradientTransformation, policy: Policy = FULL) -> State:
    """The state before the first step: parameters in the policy's type, averages and the optimiser's state in float32 at least.

    A float16 policy brings its loss scale along.
    """
    model = policy.cast_to_params(model)
    # A copy, because the step takes over each buffer once.
    copy = jax.tree.map(lambda x: jnp.array(widen(x) if eqx.is_inexact_array(x) else x, copy=True) if eqx.is_array(x) else x, model)
    scale = DynamicLossScale() if policy.needs_scale else NoLossScale()
    return State(model, copy, optimiser.init(trainable(model)), jnp.zeros((), jnp.int32), scale, Skipped())
