"""Low-rank adaptation of projections (Hu et al. 2021, arXiv:2106.09685)."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqxgen.nn import _check
from eqxgen.nn.linear import Projection, torch_uniform
from eqxgen.rng import RNG

Tree = TypeVar("Tree", bound=PyTree)


class LoRA(eqx.Module):
    """`projection(x) + alpha / rank * x @ lora_a.T @ lora_b.T`: a projection with a trainable update of low rank.

    `lora_b` is zero at initialisation, so that the result is that of the projection; `lora_a` is uniform in
    ±1/sqrt(in_dim), in the paper normal. The weight of the projection may have leading axes, as in a `Stack`; the
    update has the same.

    Args:
        projection: the layer that is adapted.
        rank: of the update; at most the smaller side of the weight.
        alpha: scale of the update, relative to `rank`; `rank` by default, which is a scale of 1.

    Raises:
        ValueError: `rank` is not from 1 to the smaller side of the weight, or `alpha` is not positive and finite.
    """

    projection: Projection
    lora_a: Float[Array, "*stacked rank in_dim"]
    lora_b: Float[Array, "*stacked out_dim rank"]
    scale: float = eqx.field(static=True)

    def __init__(self, projection: Projection, rank: int, alpha: float | None = None, *, key: PRNGKeyArray):
        _check.positive(rank=rank)
        *stacked, out_dim, in_dim = projection.weight.shape
        if rank > min(out_dim, in_dim):
            raise ValueError(f"rank must be at most the weight's smaller side, {min(out_dim, in_dim)}: got {rank}")
        self.projection = projection
        self.lora_a = torch_uniform(key, (*stacked, rank, in_dim), jnp.float32)
        self.lora_b = jnp.zeros((*stacked, out_dim, rank))
        if alpha is not None:
            _check.above_zero(alpha=alpha)
        self.scale = 1.0 if alpha is None else alpha / rank

    @property
    def in_dim(self) -> int:
        return self.projection.in_dim

    @property
    def out_dim(self) -> int:
        return self.projection.out_dim

    @property
    def weight(self) -> Float[Array, "*stacked out_dim in_dim"]:
        """Weight of the merged projection, for layers that use it themselves."""
        update = self.scale * (self.lora_b @ self.lora_a)
        return self.projection.weight + update.astype(self.projection.weight.dtype)

    @property
    def bias(self) -> Float[Array, "*stacked out_dim"] | None:
        return self.projection.bias

    def __call__(
        self, x: Float[Array, "*leading in_dim"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*leading out_dim"]:
        y = self.projection(x)
        return y + self.scale * (x @ self.lora_a.T.astype(x.dtype) @ self.lora_b.T.astype(x.dtype))

    def merge(self) -> Projection:
        """One projection with the same result, at the cost of the adapted one."""
        return eqx.tree_at(lambda projection: projection.weight, self.projection, self.weight)


def lora(
    model: Tree,
    rank: int,
    alpha: float | None = None,
    *,
    where: Callable[[str, Projection], bool] = lambda path, _: True,
    key: PRNGKeyArray,
) -> Tree:
    """The model with every `Projection` adapted, or those that `where` selects; its results are unchanged until
    training.

    To train the update only, freeze the rest: `train.freeze(model, not_lora)`.

    Args:
        where: predicate of a projection's path, such as `stack.blocks.attention.qkv`, and the projection.

    Raises:
        ValueError: the model has no such projection.
    """
    keys = RNG(key)

    def adapt(path: Any, node: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        chosen = isinstance(node, Projection) and where(name, node)
        return LoRA(node, rank, alpha, key=next(keys)) if chosen else node

    adapted = jax.tree_util.tree_map_with_path(adapt, model, is_leaf=lambda node: isinstance(node, (Projection, LoRA)))
    if keys.count == 0:
        raise ValueError("model must have a Projection that `where` selects: found none")
    return adapted


def merge_lora(model: Tree) -> Tree:
    """The model with each `LoRA` merged into one projection."""
    is_lora = lambda node: isinstance(node, LoRA)
    return jax.tree.map(lambda node: node.merge() if is_lora(node) else node, model, is_leaf=is_lora)


def not_lora(path: str, leaf: Any) -> bool:
    """Predicate for `train.freeze`: true for the leaves that the model had before `lora`."""
    return path.rpartition(".")[2] not in ("lora_a", "lora_b")
