"""Weights of the recurrent layer that become zero in blocks, by a schedule (Zhu and Gupta 2017, arXiv:1710.01878;
blocks of Kalchbrenner et al. 2018, arXiv:1802.08435, section 3).

The masks are model state. A weight outside of them counts as zero and gets no gradient; the released weights are zero.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from einops import reduce, repeat
from jaxtyping import Array, Bool, Float, Int

from eqxgen.models.wavegru import WaveGRU

from .sparse import SparseConfig


class Masks(NamedTuple):
    """Weights that are kept.

    Attributes:
        from_input, from_output: of the two matrices of the recurrent layer.
    """

    from_input: Bool[Array, "rows in_dim"]
    from_output: Bool[Array, "rows dim"]


def sparsity_at(step: Int[Array, ""] | int, config: SparseConfig) -> Float[Array, ""]:
    """Share of zeros after a step: it rises from 0 as 1 - (1 - t)**3 (Zhu and Gupta, equation 1)."""
    t = (jnp.asarray(step, jnp.float32) - config.start) / (config.end - config.start)
    return config.sparsity * (1.0 - (1.0 - jnp.clip(t, 0.0, 1.0)) ** 3)


def block_mask(
    weight: Float[Array, "rows columns"], sparsity: Float[Array, ""] | float, block: int
) -> Bool[Array, "rows columns"]:
    """The weights of the blocks with the largest sums of magnitudes; a share `sparsity` of the blocks, rounded down, is
    left out.

    Args:
        weight: a matrix.
        sparsity: in [0, 1), traced.
        block: rows of a block, which is one column wide; it divides the rows.
    """
    sums = reduce(jnp.abs(weight.astype(jnp.float32)), "(rows block) columns -> rows columns", "sum", block=block)
    order = jnp.argsort(jnp.argsort(sums.ravel()))  # rank of each block: equal sums have different ranks
    kept = (order >= jnp.floor(sparsity * sums.size).astype(order.dtype)).reshape(sums.shape)
    return repeat(kept, "rows columns -> (rows block) columns", block=block)


def all_kept(model: WaveGRU) -> Masks:
    """Masks without zeros."""
    return Masks(*(jnp.ones(weight.shape, bool) for weight in _matrices(model.cell)))


def masks_of(model: WaveGRU, step: Int[Array, ""] | int, config: SparseConfig) -> Masks:
    """The masks of a step."""
    share = sparsity_at(step, config)
    return Masks(*(block_mask(weight, share, config.block) for weight in _matrices(model.cell)))


def pruned(model: WaveGRU, masks: Masks | None) -> WaveGRU:
    """The model with zeros outside of the masks; without masks, as it is."""
    if masks is None:
        return model
    weights = [jnp.where(mask, weight, 0) for weight, mask in zip(_matrices(model.cell), masks)]
    return eqx.tree_at(lambda model: _matrices(model.cell), model, weights)


def _matrices(cell: Any) -> list[Any]:
    return [cell.from_input.weight, cell.from_output.weight]
