"""A training step of your own, in any precision and on any number of devices.

`ddp` compiles a step and splits its batch over the devices; `gradients`, inside it, averages over them. Outside of
`ddp` it is the gradient on one device. docs/training.md has an example.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

from ..parallel import BATCH, make_mesh, parts, replicated, split
from ..params.selection import parameters, unfreeze, update
from ..precision import LossScale, Policy, scale_for
from ..precision.layers import under
from ..precision.scale import widen
from .gradients import device_gradients, over_devices, vary


def gradients(
    function: Callable | None = None,
    *,
    precision: str | Policy = "single",
    scale: LossScale | None = None,
    has_aux: bool = True,
) -> Callable:
    """A loss as a function that gives its value and its gradients: `((loss, metrics), grads)`, or `(loss, grads)`
    without `has_aux`.

    The gradients are by the parameters (`train.parameters`) of the first argument, in float32. Inside `ddp` gradients,
    losses and metrics are averaged over the devices, and metrics of integers summed, so that all devices go on with the
    same numbers. For use as a decorator, with or without arguments, or under `functools.partial`.

    Args:
        function: (model, ...) -> (scalar loss, metrics), or the loss alone without `has_aux`.
        precision: "single": as the model is. "half": layers compute in bfloat16, in which the model casts its own
            inputs, and give float32, in which the loss is thus computed. Or a `Policy`, or the text of one.
        scale: a loss scale, which float16 needs. The gradients then come out times its factor, for `guarded_update`,
            which divides by it.
        has_aux: whether the function gives metrics too.

    Raises:
        ValueError: the precision is unknown, or it has float16 and there is no scale.
        TypeError: the function gives something else than it should.
    """
    if function is None:
        return functools.partial(gradients, precision=precision, scale=scale, has_aux=has_aux)
    policy = _policy(precision)
    scale = scale_for(policy or Policy(), scale)

    @functools.wraps(function)
    def inner(model: PyTree, *args: Any, **kwargs: Any) -> Any:
        axes = _axes()
        static: list[Any] = []

        def total(params: PyTree) -> Any:
            whole = unfreeze(update(model, params))
            loss, metrics = _loss(function(whole if policy is None else under(policy, whole), *args, **kwargs), has_aux)
            arrays, rest = eqx.partition(metrics, eqx.is_array)
            static.append(rest)
            return scale.scale(loss), (widen(loss), arrays)

        grads, (loss, arrays) = device_gradients(total, parameters(model), axes=axes)
        grads, loss, arrays = over_devices(_joined, (grads, loss, arrays), axes)
        return ((loss, eqx.combine(arrays, static[-1])), grads) if has_aux else (loss, grads)

    return inner


def ddp(
    step: Callable | None = None,
    *,
    split_argument: str | None = None,
    mesh: Mesh | None = None,
    check_vma: bool = True,
) -> Callable:
    """A step that is compiled whole and runs on all devices, each with its part of the batch and its own random keys.

    All other arguments are the same on every device. What the step gives must be so too: it is where gradients, losses
        and metrics come from
    `gradients`. Arguments may be given by position or by name. A key is folded with the device's number; a stack of
    keys, one for each device, is handed out. What is drawn thus depends on the number of devices.

    Args:
        step: for example (model, batch, states, key=None) -> (model, states, loss, metrics).
        split_argument: name of the argument that is split along its first axis; by default `batch`, or else the second.
        mesh: the devices; by default all.
        check_vma: whether JAX checks that the results are the same on every device.

    Raises:
        ValueError: the step has no such argument; the batch cannot be shared evenly; or there are keys, but not one for
            each device; or a result differs between the devices.
    """
    if step is None:
        return functools.partial(ddp, split_argument=split_argument, mesh=mesh, check_vma=check_vma)
    signature = inspect.signature(step)
    shared_out = _split_argument(signature, split_argument)

    @eqx.filter_jit
    def compiled(arguments: dict[str, Any], mesh: Mesh) -> Any:
        arrays, static = eqx.partition(arguments, eqx.is_array)
        specs = {
            name: PartitionSpec(BATCH) if name == shared_out or _keys(name, value) == "stack" else PartitionSpec()
            for name, value in arguments.items()
        }
        results: list[Any] = []

        def local(arrays: dict[str, Any]) -> Any:
            own = {name: _own_key(name, value) for name, value in eqx.combine(arrays, static).items()}
            bound = inspect.BoundArguments(signature, own)  # pyright: ignore[reportArgumentType]
            dynamic, rest = eqx.partition(step(*bound.args, **bound.kwargs), eqx.is_array)
            _check_alike(dynamic)
            results.append(rest)
            return dynamic

        # What is not an array, such as an activation function in a model, leaves by the list.
        dynamic = jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=PartitionSpec(), check_vma=check_vma)(
            arrays
        )
        return eqx.combine(dynamic, results[-1])

    @functools.wraps(step)
    def run(*args: Any, **kwargs: Any) -> Any:
        devices = mesh or _all_devices()
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        arguments = {
            name: jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, arguments[name])
            for name in arguments
        }
        for name, value in arguments.items():
            if name == shared_out:
                _check_batch(name, value, parts(devices))
                arguments[name] = jax.device_put(value, split(devices))
            elif _keys(name, value) == "stack" and len(value) != parts(devices):
                raise ValueError(
                    f"{name} must be one key, or one for each of the {parts(devices)} devices: got {len(value)}"
                )
        return compiled(arguments, devices)

    return run


def replicate(tree: PyTree) -> PyTree:
    """The tree with every array whole on every device."""
    return eqx.filter_shard(tree, replicated(_all_devices()))


def unreplicate(tree: PyTree) -> PyTree:
    """The tree with every array on one device alone, from what `replicate` or a `ddp` step gave."""
    return jax.tree.map(lambda x: jnp.array(x.addressable_data(0)) if isinstance(x, jax.Array) else x, tree)


def _policy(precision: str | Policy) -> Policy | None:
    if precision == "single":
        return None
    return precision if isinstance(precision, Policy) else Policy.parse("mixed" if precision == "half" else precision)


def _loss(result: Any, has_aux: bool) -> tuple[Any, Any]:
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"the loss must come with metrics, as in `return loss, {{}}`: got {type(result).__name__}; or say "
            "has_aux=False"
        )
    loss: Any = result[0] if has_aux else result
    if not eqx.is_inexact_array(loss) or loss.ndim:
        what = jax.typeof(loss) if eqx.is_array(loss) else type(loss).__name__
        raise TypeError(f"the loss must be a floating-point scalar: got {what}; average it over the examples")
    return loss, result[1] if has_aux else None


def _axes() -> tuple[str, ...]:
    """The axes over which the caller's program is split by `ddp`; none outside of it."""
    return tuple(name for name in BATCH if name in jax.sharding.get_abstract_mesh().manual_axes)


def _joined(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """The mean over devices; of integers the sum."""
    return (jax.lax.pmean if eqx.is_inexact_array(x) else jax.lax.psum)(vary(x, axes), axes)


def _split_argument(signature: inspect.Signature, name: str | None) -> str:
    names = list(signature.parameters)
    if name is None:
        name = "batch" if "batch" in names or len(names) < 2 else names[1]
    if name not in names:
        raise ValueError(
            f"ddp splits the argument {name} over the devices, which a step must have: got {signature}; name it by "
            "split_argument="
        )
    return name


def _check_batch(name: str, batch: PyTree, count: int) -> None:
    for leaf in jax.tree.leaves(eqx.filter(batch, eqx.is_array)):
        if leaf.ndim == 0 or leaf.shape[0] % count:
            raise ValueError(
                f"{name} must have a first axis that {count} devices can share evenly: got shape {leaf.shape}; leave "
                "out or repeat examples"
            )


def _check_alike(results: PyTree) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(results):
        if axes := jax.typeof(x).manual_axis_type.varying:
            name = "result" + jax.tree_util.keystr(path)
            raise ValueError(
                f"a ddp step must give the same on every device: got {name} of {jax.typeof(x).str_short()}, which "
                f"differs between them; return it from `gradients` as a metric, or average it by "
                f"jax.lax.pmean(x, {tuple(sorted(axes))})"
            )


def _keys(name: str, value: Any) -> str | None:
    """Kind of an argument: one random "key", a "stack" of them, or neither. Keys of the old kind are known by the
    argument's name.
    """
    if not isinstance(value, jax.Array):
        return None
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        rank = value.ndim
    elif name == "key" and value.dtype == jnp.uint32 and value.shape[-1:] == (2,):
        rank = value.ndim - 1
    else:
        return None
    return {0: "key", 1: "stack"}.get(rank)


def _own_key(name: str, value: Any) -> Any:
    kind = _keys(name, value)
    if kind == "stack":
        return value[0]
    return jr.fold_in(value, jax.lax.axis_index(BATCH)) if kind == "key" else value


@functools.cache
def _all_devices() -> Mesh:
    return make_mesh()
