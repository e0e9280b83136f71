"""Containers of layers, and the exponential moving average."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from equinox.nn import Identity
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqxgen.nn import _check
from eqxgen.nn._call import run
from eqxgen.nn.drop import DropPath

__all__ = ["EMA", "Identity", "Lambda", "Residual", "Sequential", "WithState"]
Layer = Callable[..., Any]


class Sequential(eqx.Module):
    """Layers in sequence: `Sequential(f, g)(x)` is `g(f(x))`.

    A layer is any callable of one array, including plain functions such as `jax.nn.relu`. Layer i gets `fold_in(key,
    i)` and `inference` where its signature has them. `net[1]` is a layer, `net[1:]` a `Sequential`,
    `net.at[-1].set(layer)` a copy with that layer replaced; `len(net)` and `for layer in net` work as for a list.

    With layers that have a state, such as `BatchNorm`, call `y, state = net(x, state)`, first with `net.init_state()`.

    Args:
        layers: any number of layers; none are the identity.

    Raises:
        ValueError: an argument is not callable; or a layer has a state and none is given.
        IndexError: the index is out of range.
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Any, key: PRNGKeyArray | None = None):
        for place, layer in enumerate(layers):
            _layer(f"layers[{place}]", layer)
        self.layers = layers

    def __call__(
        self, x: Array, state: Any = None, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Any:
        """The result; with a state, `(result, new state)`."""
        if state is None and stateful(self):
            names = ", ".join(type(layer).__name__ for layer in self.layers if stateful(layer))
            raise ValueError(f"state is needed by {names}: call y, state = net(x, state), first with net.init_state()")
        states = [None] * len(self) if state is None else list(state)
        for place, layer in enumerate(self.layers):
            options = {"key": None if key is None else jr.fold_in(key, place), "inference": inference}
            if stateful(layer):
                x, states[place] = run(layer, x, states[place], **options)
            else:
                x = run(layer, x, **options)
        return x if state is None else (x, tuple(states))

    def init_state(self) -> tuple[Any, ...]:
        """The first state of each layer, `None` for one without."""
        return tuple(layer.init_state() if stateful(layer) else None for layer in self.layers)  # pyright: ignore[reportFunctionMemberAccess]

    @property
    def at(self) -> "_At":
        """`net.at[i].set(layer)`: a copy with another layer i."""
        return _At(self)

    @overload
    def __getitem__(self, place: int) -> Layer: ...
    @overload
    def __getitem__(self, place: slice) -> "Sequential": ...
    def __getitem__(self, place):
        return Sequential(*self.layers[place]) if isinstance(place, slice) else self.layers[_index(place, len(self))]

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True  # also without layers

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)


class _At(NamedTuple):
    net: Sequential
    place: int | None = None

    def __getitem__(self, place: int) -> "_At":  # pyright: ignore[reportIncompatibleMethodOverride]
        return _At(self.net, _index(place, len(self.net)))

    def set(self, layer: Any) -> Sequential:
        layers = list(self.net.layers)
        layers[self.place] = layer  # pyright: ignore[reportArgumentType, reportCallIssue]
        return Sequential(*layers)


class Lambda(eqx.Module):
    """A function of one array as a layer.

    Args:
        function: the function.
    """

    function: Layer

    def __init__(self, function: Any, *, key: PRNGKeyArray | None = None):
        _layer("function", function)
        self.function = function

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        return self.function(x)


class WithState(eqx.Module):
    """A model with the state that it has after training: `net(x)` is `model(x, state, inference=True)` without the new
    state.

    Args:
        model: called as `y, state = model(x, state)`.
        state: its state, such as running statistics.
    """

    model: Any
    state: PyTree

    def __call__(self, *inputs: Array, key: PRNGKeyArray | None = None) -> Any:
        return run(self.model, *inputs, self.state, key=key, inference=True)[0]


class Residual(eqx.Module):
    """`x + f(x)` (He et al. 2016, arXiv:1512.03385, equation 1), where f is all `layers` in sequence.

    `Residual(LayerNorm(dim), f)` is half of a pre-norm transformer block.

    Args:
        layers: the residual branch; it keeps the shape.
        drop_path: rate at which the branch is dropped in training, see `DropPath`.
    """

    branch: Sequential
    drop_path: DropPath

    def __init__(self, *layers: Any, drop_path: float = 0.0, key: PRNGKeyArray | None = None):
        self.branch, self.drop_path = Sequential(*layers), DropPath(drop_path)

    def __call__(
        self, x: Float[Array, "*shape"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*shape"]:
        branch_key, drop_key = (None, None) if key is None else jr.split(key)
        y = self.branch(x, key=branch_key, inference=inference)
        if y.shape != x.shape:
            raise ValueError(f"the layers of a residual must keep the shape of x: got {y.shape} from {x.shape}")
        return x + self.drop_path(y, key=drop_key, inference=inference)


class Average(NamedTuple):
    """The state of an `EMA`, in float32: the running mean, and the share of samples in it, the rest being the initial
    zeros.
    """

    mean: PyTree
    weight: Float[Array, ""]


class EMA(eqx.Module):
    """The exponential moving average of its inputs, `mean = decay * mean + (1 - decay) * x`.

        y, state = ema(x, state)

    y is the average that includes x, in x's dtypes; the state is float32. No gradient passes through the average.

    Args:
        like: a tree of arrays or shapes (`jax.ShapeDtypeStruct`) like the inputs.
        decay: weight of the past, in [0, 1).
        debias: divides y by the total weight of the samples, so that it is their mean from the first sample on (Kingma
            and Ba 2015, arXiv:1412.6980, section 3). Otherwise it starts near zero.
    """

    shapes: PyTree = eqx.field(static=True)
    decay: float = eqx.field(static=True)
    debias: bool = eqx.field(static=True)

    def __init__(self, like: PyTree, decay: float = 0.999, *, debias: bool = True, key: PRNGKeyArray | None = None):
        _check.rate(decay=decay)
        leaves, structure = jax.tree.flatten(like)
        self.shapes = (structure, tuple(tuple(leaf.shape) for leaf in leaves))
        self.decay, self.debias = decay, debias

    def init_state(self) -> Average:
        structure, shapes = self.shapes
        return Average(jax.tree.unflatten(structure, [jnp.zeros(shape) for shape in shapes]), jnp.zeros(()))

    def __call__(
        self,
        x: PyTree,
        state: Average,
        *,
        axis_name: str | tuple[str, ...] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[PyTree, Average]:
        """The average, and the new state.

        Args:
            x: the newest sample.
            state: from `init_state` or the previous call.
            axis_name: axes of `jax.vmap` or a mesh, over which samples are averaged.
            key: not used.
            inference: true ignores x and returns the state unchanged. Before the first sample y is zero.
        """
        found = jax.tree.flatten(x)
        if (found[1], tuple(leaf.shape for leaf in found[0])) != self.shapes:
            larger = any(leaf.ndim > len(shape) for leaf, shape in zip(found[0], self.shapes[1]))
            hint = "; jax.vmap the layer over a batch" if larger else ""
            shapes = jax.tree.map(jnp.shape, x)
            raise ValueError(f"x must have the shapes {self.shapes[1]} of `like`: got {shapes}{hint}")
        if not inference:
            new = jax.lax.stop_gradient(jax.tree.map(lambda x: x.astype(jnp.float32), x))
            new = new if axis_name is None else jax.lax.pmean(new, axis_name)
            mix = lambda old, new: self.decay * old + (1 - self.decay) * new
            state = Average(jax.tree.map(mix, state.mean, new), mix(state.weight, jnp.ones(())))
        share = jnp.where(state.weight > 0, state.weight, 1) if self.debias else jnp.ones(())
        return jax.tree.map(lambda mean, x: (mean / share).astype(x.dtype), state.mean, x), state


def stateful(layer: Layer) -> bool:
    """True if the layer is called as `y, state = layer(x, state)`."""
    return any(map(stateful, layer)) if isinstance(layer, Sequential) else hasattr(layer, "init_state")


def _layer(name: str, layer: Any) -> None:
    if not callable(layer):
        raise ValueError(f"{name} must be a layer or a function: got {layer!r}")


def _index(place: int, count: int) -> int:
    if not -count <= place < count:
        raise IndexError(f"index of a layer must be in [-{count}, {count}): got {place}")
    return place % count
