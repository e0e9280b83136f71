"""Casts by a policy: of whole models, and of single layers with a policy of their own."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..params.paths import any_of, dotted, join, matches, names
from .policy import Policy
from .scale import cast


class WithPolicy(eqx.Module):
    """A layer that computes in types of its own: its parameters and inputs are cast going in, its results coming out.

    What else is asked of it is the layer's: arrays in the type of computation, layers and methods under the same
    policy, so that a model that reads `embedding.weight` or calls `embedding.attend` still does.

    Attributes:
        path: where in the model the layer is, for the policy's islands.
    """

    layer: Any
    policy: Policy = eqx.field(static=True)
    path: str = eqx.field(static=True, default="")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = cast((args, kwargs), self.policy.compute)
        return to_output(self.policy, to_compute(self.policy, self.layer, self.path)(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name == "layer" or name.startswith("__"):  # asked while the module is being built
            raise AttributeError(name)
        return under(self.policy, getattr(self.layer, name), join(self.path, name))


def to_params(policy: Policy, tree: PyTree) -> PyTree:
    """Floating-point arrays in the type of storage."""
    return _cast(policy, tree, policy.params)


def to_compute(policy: Policy, tree: PyTree, path: str = "") -> PyTree:
    """Floating-point arrays in the type of computation; layers with a policy of their own are left to it.

    Args:
        path: of the tree in its model, for the islands.
    """
    return _cast(policy, tree, policy.compute, path)


def to_output(policy: Policy, tree: PyTree) -> PyTree:
    """Floating-point arrays in the type of results."""
    return cast(tree, policy.output)


def _cast(policy: Policy, tree: PyTree, dtype: str, start: str = "") -> PyTree:
    def one(path: Any, leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        name = join(start, dotted(path))
        island = dtype != "float64" and any(matches(pattern, name) for pattern in policy.islands)
        return leaf.astype("float32" if island else dtype)

    return jax.tree_util.tree_map_with_path(one, tree, is_leaf=lambda x: isinstance(x, WithPolicy))


def under(policy: Policy, tree: PyTree, path: str = "") -> PyTree:
    """A tree whose layers compute by a policy, and whose other arrays are cast to it.

    Args:
        path: where in the model the tree is.
    """

    def one(step: Any, node: Any) -> Any:
        here = join(path, dotted(step))
        return WithPolicy(node, policy, here) if _is_layer(node) else to_compute(policy, node, here)

    return jax.tree_util.tree_map_with_path(one, tree, is_leaf=lambda x: _is_layer(x) or isinstance(x, WithPolicy))


def with_policy(model: PyTree, policies: Mapping[str, Policy]) -> PyTree:
    """The model with the layers that a path pattern names wrapped in `WithPolicy`; the first pattern that names a layer
    counts.

    A pattern names whole layers: `head`, `stack.blocks.mlp`, `**.*norm*`. The inside of a wrapped layer is not
        looked at again. A loss that
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
        if jax.tree_util.all_leaves([node]):
            return node
        if _is_layer(node):
            here = dotted(path)
            layers.append(here)
            for pattern, policy in policies.items():
                if names(pattern, here):
                    wrapped.add(pattern)
                    return WithPolicy(node, policy, here)
        return inside(path, node)

    result = inside((), model)
    any_of([pattern for pattern in policies if pattern not in wrapped], layers)
    return result


def _is_layer(node: Any) -> bool:
    return isinstance(node, eqx.Module) and not isinstance(node, WithPolicy)
