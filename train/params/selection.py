"""Trees to trees: which parameters are trained, taken out, put back, updated.

Leaves are named by path patterns or by a predicate of (path, leaf), see `train.params.paths`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from .paths import Which, dotted, mask

Tree = TypeVar("Tree", bound=PyTree)


class Frozen(eqx.Module):
    """An array that is no parameter: neither gradients nor optimisers see it. `unfreeze` gives it back;
    `train.gradients` does so itself.
    """

    value: Any


def is_frozen(node: Any) -> bool:
    return isinstance(node, Frozen)


def freeze(tree: PyTree, which: Which | None = None) -> PyTree:
    """The tree with the arrays that are named, or all, taken out of training. What is put in their place later is
    trained again.

    Raises:
        ValueError: a pattern names nothing.
    """
    frozen = _named(tree, which)
    return jax.tree.map(
        lambda x, chosen: Frozen(x) if chosen and eqx.is_array(x) else x, tree, frozen, is_leaf=is_frozen
    )


def unfreeze(tree: PyTree, which: Which | None = None) -> PyTree:
    """The inverse of `freeze`, of what is named or of all.

    Raises:
        ValueError: a pattern names nothing.
    """
    return jax.tree.map(
        lambda x, chosen: x.value if chosen and is_frozen(x) else x, tree, _named(tree, which), is_leaf=is_frozen
    )


def parameters(model: PyTree, filter: Callable[[Any], bool] = eqx.is_inexact_array) -> PyTree:
    """The trained part of a model: floating-point arrays that are not frozen; `None` elsewhere.

    Args:
        filter: of leaves, where others are meant.
    """
    return eqx.filter(model, jax.tree.map(lambda x: not is_frozen(x) and filter(x), model, is_leaf=is_frozen))


def parameterise(model: Any, filter: Callable[[Any], bool] = eqx.is_inexact_array) -> tuple[PyTree, Callable[..., Any]]:
    """The model as a function of its parameters: `(params, apply)` with `apply(params, *args, **kwargs) == model(*args,
    **kwargs)`.
    """
    params = parameters(model, filter)
    rest = eqx.filter(model, jax.tree.map(lambda x: is_frozen(x) or not filter(x), model, is_leaf=is_frozen))

    def apply(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        return unfreeze(eqx.combine(params, rest))(*args, **kwargs)

    return params, apply


def select(model: PyTree, which: Which | None = None) -> PyTree:
    """Those parameters that are named, or all; `None` in place of the others.

    Raises:
        ValueError: a pattern names nothing.
    """
    chosen = _named(model, which)
    keep = lambda x, wanted: wanted and not is_frozen(x) and eqx.is_inexact_array(x)
    return eqx.filter(model, jax.tree.map(keep, model, chosen, is_leaf=is_frozen))


def update(tree: Tree, part: PyTree) -> Tree:
    """The tree with the arrays of `part` in it: a tree of the same structure with `None` where nothing is to change, as
    `select` gives it.

    A frozen array stays frozen.

    Raises:
        ValueError: an array has another shape or type than the one in its place.
    """

    def one(path: Any, new: Any, old: Any) -> Any:
        if new is None:
            return old
        was = old.value if is_frozen(old) else old
        if eqx.is_array(was) and (was.shape, was.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"update: {dotted(path)} must be {was.dtype}{list(was.shape)}: got {new.dtype}{list(new.shape)}; cast "
                "it before"
            )
        return Frozen(new) if is_frozen(old) else new

    return jax.tree_util.tree_map_with_path(one, part, tree, is_leaf=lambda x: x is None)


def select_states(model: PyTree) -> PyTree:
    """Arrays of a model that are not trained, such as counts, keys and frozen arrays; `None` in place of the others.

    With `parameters` each array is in one of the two.
    """

    def state(x: Any) -> Any:
        x = x.value if is_frozen(x) else None if eqx.is_inexact_array(x) else x
        return x if eqx.is_array(x) else None

    return jax.tree.map(state, model, is_leaf=is_frozen)


def update_states(model: Tree, other: PyTree) -> Tree:
    """The model with the states of another of the same structure, such as the one that a loss returned: `update` by
    `select_states(other)`.

    Raises:
        ValueError: an array has another shape or type than the one in its place, also where one of them is a state and
            the other a parameter.
    """
    states = select_states(other)

    def checked(path: Any, new: Any, now: Any, whole: Any) -> Any:
        if new is None and now is not None and whole is not None:
            raise ValueError(f"update_states: {dotted(path)} must be {now.dtype}, a state: got {whole.dtype}; cast it")
        return new

    is_none = lambda x: x is None or is_frozen(x)
    states = jax.tree_util.tree_map_with_path(checked, states, select_states(model), other, is_leaf=is_none)
    return update(model, states)


def apply_gradients(
    model: Tree, opt_state: PyTree, gradients: PyTree, optimiser: optax.GradientTransformation
) -> tuple[Tree, PyTree]:
    """The model and the optimiser's state after one update; `opt_state` began as
    `optimiser.init(parameters(model))`.
    """
    updates, opt_state = optimiser.update(gradients, opt_state, parameters(model))
    return eqx.apply_updates(model, updates), opt_state


def _named(tree: PyTree, which: Which | None) -> PyTree:
    if which is None:
        return mask(tree, lambda path, leaf: True, is_leaf=is_frozen)
    seen = (lambda path, leaf: which(path, leaf.value if is_frozen(leaf) else leaf)) if callable(which) else which
    return mask(tree, seen, is_leaf=is_frozen)
