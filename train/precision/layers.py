"""A policy for single layers of a model."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from train.paths import any_of, dotted, names
from train.precision.policy import Policy
from train.precision.scale import cast


class WithPolicy(eqx.Module):
    """A layer that computes in types of its own: its parameters and inputs are cast going in, its results coming out.

    Other attributes are the layer's, so that a model which reads `embedding.weight` still does.
    """

    layer: Any
    policy: Policy = eqx.field(static=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = cast((args, kwargs), self.policy.compute)
        return self.policy.cast_to_output(self.policy.cast_to_compute(self.layer)(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name == "layer" or name.startswith("__"):  # asked while the module is being built
            raise AttributeError(name)
        return getattr(self.layer, name)


def with_policy(model: PyTree, policies: Mapping[str, Policy]) -> PyTree:
    """The model with the layers that a path pattern names wrapped in `WithPolicy`; the first pattern that names a layer counts.

    A pattern names whole layers: `head`, `stack.blocks.mlp`, `**.*norm*`. What lies inside a wrapped layer is not looked at again. A loss that
    casts the model to its own policy leaves these layers alone.

    Raises:
        ValueError: a pattern names no layer.
    """
    layers: list[str] = []
    wrapped: set[str] = set()

    def inside(path: tuple[Any, ...], node: PyTree) -> PyTree:
        children, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
        return jax.tree.unflatten(structure, [one((*path, *step), child) for step, child in children])

    def one(path: tuple[Any, ...], node: PyTree) -> PyTree:
        if not isinstance(node, eqx.Module):
            return node if jax.tree_util.all_leaves([node]) else inside(path, node)
        layers.append(dotted(path))
        for pattern, policy in policies.items():
            if names(pattern, layers[-1]):
                wrapped.add(pattern)
                return WithPolicy(node, policy)
        return inside(path, node)

    result = inside((), model)
    any_of([pattern for pattern in policies if pattern not in wrapped], layers)
    return result
