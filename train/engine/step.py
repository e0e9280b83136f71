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

from ..config.base import TrainConfig
from ..optim import optimiser, shown
from ..optim.ema import Averages, averages
from ..parallel.gather import fsdp_specs, gathered
from ..parallel.mesh import AXES, BATCH
from ..parallel.rules import place
from ..precision import DynamicLossScale, LossScale, NoLossScale, Policy, Skipped, guarded_update
from ..precision.scale import widen

FULL = Policy()


class Sums(NamedTuple):
    """What a loss says of some examples: sums over them, so that neither the split over devices nor an uneven batch
    changes the mean.

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

`batch["weight"]` is 1, or 0 for an example that only fills up an uneven batch: it must count for nothing. Whatever is
not a sum over examples, such as an average inside a logarithm, is first averaged over the mesh axes by
`jax.lax.pmean`."""


class State(eqx.Module):
    """What a run consists of.

    Attributes:
        ema: averages of the model; the first is the one that samples use.
        step: updates tried, whether or not they could be made.
    """

    model: PyTree
    ema: tuple[PyTree, ...]
    opt_state: PyTree
    step: Array
    scale: LossScale
    skipped: Skipped


class Setup(NamedTuple):
    """How a run is computed.

    Attributes:
        accumulate: micro-batches that each device walks through one after another in an update.
    """

    optimiser: optax.GradientTransformation
    ema: Averages
    mesh: Mesh
    policy: Policy = FULL
    accumulate: int = 1

    @classmethod
    def of(cls, config: TrainConfig, mesh: Mesh, *, on_cpu: bool) -> "Setup":
        """What a config asks for; `on_cpu` is what its precision `auto` goes by."""
        tx, ema = optimiser(config.optim, config.steps), averages(config.ema, config.batch_size)
        return cls(tx, ema, mesh, Policy.parse(config.precision, on_cpu=on_cpu), config.accumulate)


def gradients(
    loss: Loss,
    model: PyTree,
    batch: dict[str, Array],
    key: PRNGKeyArray,
    mesh: Mesh,
    policy: Policy = FULL,
    scale: LossScale = NoLossScale(),  # noqa: B008
    accumulate: int = 1,
) -> tuple[PyTree, dict[str, Array]]:
    """Gradients, times the loss scale, of the mean loss over a batch split along the mesh's `BATCH` axes, and the mean
    metrics on every device.

    The sum over the devices is taken once, after all micro-batches. A gradient lies where its parameter does.

    Args:
        batch: `index` numbers the examples; each draws from `fold_in(key, index)`, so that what it draws depends on
            neither the devices nor the micro-batches. `weight` is what each counts.
        policy: the types of the computation; gradients are added up in float32 at least.
        scale: the loss scale.
        accumulate: micro-batches that each device walks through one after another.
    """
    arrays, static = eqx.partition(model, eqx.is_array)
    params, fixed = eqx.partition(arrays, eqx.is_inexact_array)
    specs = fsdp_specs(params, mesh)
    axes = manual_axes(mesh)

    def local(params, fixed, batch, key, scale):
        # Varying parameters make this a gradient of the device's own sum, with and without check_vma; the sum over
        # devices is ours below.
        params = _over(lambda x, axes: jax.lax.pcast(x, axes, to="varying"), params, specs, axes)

        def total(params, batch):
            keys = jax.vmap(functools.partial(jr.fold_in, key))(batch["index"])
            whole = gathered(
                policy.cast_to_compute(eqx.combine(params, fixed, static)), eqx.combine(specs, fixed, static)
            )
            sums = loss(whole, batch, keys, axes or None)
            sums = Sums(policy.cast_to_output(sums.loss), sums.weight, policy.cast_to_output(sums.metrics))
            # What is scaled is a mean, as a loss scale is meant for: of a sum over many tokens its first factor would
            # overflow.
            part = (
                1
                if isinstance(scale, NoLossScale)
                else jax.lax.stop_gradient(jnp.where(sums.weight > 0, sums.weight, 1))
            )
            return scale.scale(sums.loss) / part, (sums, part)

        def wide(params, batch):
            grads, (sums, part) = jax.grad(total, has_aux=True)(params, batch)
            return jax.tree.map(lambda g: widen(g) * part, grads), sums

        grads, sums = _accumulated(wide, params, batch, accumulate, axes)
        return _over(jax.lax.psum, grads, specs, axes), jax.lax.psum(sums, axes)

    if axes:
        local = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(specs, PartitionSpec(), PartitionSpec(axes), PartitionSpec(), PartitionSpec()),
            out_specs=(specs, PartitionSpec()),
            axis_names=set(AXES) if mesh.shape["model"] == 1 else set(axes),
        )
    grads, sums = local(params, fixed, batch, key, scale)
    grads = jax.tree.map(lambda g: g / sums.weight, grads)
    return grads, {name: value / sums.weight for name, value in {"loss": sums.loss, **sums.metrics}.items()}


def manual_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes over which the step itself splits its work and sums: all of the batch's, as kernels need it, where
    `model` has one place.

    Where it has more, the compiler splits each device's work over them; its partitioner then fails on manual axes of
    one place, so they are left out.
    """
    return tuple(name for name in BATCH if mesh.shape["model"] == 1 or mesh.shape[name] > 1)


def _over(
    exchange: Callable[[Array, tuple[str, ...]], Array], tree: PyTree, specs: PyTree, axes: tuple[str, ...]
) -> PyTree:
    """`exchange(array, axes)` over those of the axes along which an array is not split already."""

    def each(x: Array, spec: PartitionSpec) -> Array:
        rest = tuple(name for name in axes if name not in spec)
        return exchange(x, rest) if rest else x

    return jax.tree.map(each, tree, specs)


def _accumulated(
    grad: Callable, params: PyTree, batch: dict[str, Array], count: int, axes: tuple[str, ...]
) -> tuple[PyTree, Sums]:
    """Sums of gradients and of `Sums` over micro-batches, of which one at a time is in memory."""
    if count == 1:
        return grad(params, batch)
    micro = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)

    def add(total, batch):
        grads, sums = grad(params, batch)
        return jax.tree.map(jnp.add, total, grads), sums

    zero = lambda x: jax.lax.pcast(jnp.zeros(x.shape, widen(x).dtype), axes, to="varying")
    zeros = jax.tree.map(zero, params)
    grads, sums = jax.lax.scan(add, zeros, micro)
    return grads, jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def make_update(
    loss: Loss, setup: Setup
) -> Callable[[tuple[dict[str, Array], PRNGKeyArray], State], tuple[State, dict[str, Array]]]:
    """The update, to be compiled: ((batch, key of the run), state) -> (state, metrics)."""
    optimiser, ema, mesh, policy, accumulate = setup

    def update(inputs: tuple[dict[str, Array], PRNGKeyArray], state: State) -> tuple[State, dict[str, Array]]:
        batch, key = inputs
        grads, metrics = gradients(
            loss, state.model, batch, jr.fold_in(key, state.step), mesh, policy, state.scale, accumulate
        )

        def apply(
            grads: PyTree, kept: tuple[PyTree, tuple[PyTree, ...], PyTree]
        ) -> tuple[PyTree, tuple[PyTree, ...], PyTree]:
            model, averaged, opt_state = kept
            updates, opt_state = optimiser.update(grads, opt_state, trainable(model))
            model = apply_updates(model, updates)
            return model, ema.update(averaged, shown(model, opt_state), state.step), opt_state

        kept = (state.model, state.ema, state.opt_state)
        done = guarded_update(apply, grads, metrics["loss"], kept, state.scale, state.skipped)
        metrics |= {
            "grad_norm": optax.tree.norm(done.grads),
            "loss_scale": state.scale.factor,
            "skipped": done.skipped.total,
        }
        model, averaged, opt_state = done.kept
        return place(State(model, averaged, opt_state, state.step + 1, done.scale, done.skipped), mesh), metrics

    return update


def make_step(*args: Any) -> Callable:
    """`make_update`, compiled. It takes over the memory of the state it is given."""
    return eqx.filter_jit(make_update(*args), donate="all-except-first")


def trainable(model: PyTree) -> PyTree:
    """The parameters as the optimiser sees them: in float32 at least, however they are stored."""
    return jax.tree.map(widen, eqx.filter(model, eqx.is_inexact_array))


def apply_updates(model: PyTree, updates: PyTree) -> PyTree:
    """The model with the updates added in float32 at least, and stored in its own types."""
    add = lambda u, p: p if u is None else (widen(p) + u).astype(p.dtype)
    return jax.tree.map(add, updates, model, is_leaf=lambda x: x is None)


def init_state(model: PyTree, setup: Setup) -> State:
    """The state before the first step: parameters in the policy's type, averages and the optimiser's state in float32
    at least.

    A float16 policy brings its loss scale along.
    """
    model = setup.policy.cast_to_params(model)
    ema = setup.ema.init(jax.tree.map(lambda x: widen(x) if eqx.is_inexact_array(x) else x, model))
    scale = DynamicLossScale() if setup.policy.needs_scale else NoLossScale()
    return State(model, ema, setup.optimiser.init(trainable(model)), jnp.zeros((), jnp.int32), scale, Skipped())


def abstract_state(init: Callable[[PRNGKeyArray], PyTree], setup: Setup) -> State:
    """The shapes, types and places of a run's state; nothing is computed.

    Args:
        init: makes the model from a key.
    """
    return place(eqx.filter_eval_shape(lambda key: init_state(init(key), setup), jr.key(0)), setup.mesh)


def sharded_state(init: Callable[[PRNGKeyArray], PyTree], setup: Setup, key: PRNGKeyArray) -> State:
    """The state before the first step, each device making its own part: no device ever holds a model that is larger
    than it.
    """
    return eqx.filter_jit(lambda key: place(init_state(init(key), setup), setup.mesh))(key)
