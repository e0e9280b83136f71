"""Codebooks inside quantisers."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn.quantize.multiscale import MultiScaleVQ
from eqxgen.nn.quantize.residual import ResidualVQ
from eqxgen.nn.quantize.vector import VectorQuantizer
from eqxgen.nn.quantize.wrapped import CosineQuantizer, FactorisedQuantizer, to_unit

Change = Callable[..., VectorQuantizer]
"""(quantizer, z, key=) -> the quantiser with its codebook changed, as `data_start` and `restart_dead_codes`."""


def with_codebooks(
    change: Change, quantizer: Any, z: Float[Array, "n dim"], *, placed: bool = True, key: PRNGKeyArray
) -> Any:
    """A quantiser whose learned codebooks are changed, each by the vectors that reach it: unit vectors, projections, or
    what the stages before leave. Others are returned as they are.

    Args:
        z: all vectors of some images, one image after another.
        placed: the codebooks are of use; false for the first change.
    """
    if not has_codebook(quantizer):
        return quantizer
    if isinstance(quantizer, VectorQuantizer):
        return change(quantizer, z, key=key)
    if isinstance(quantizer, CosineQuantizer):
        inner = with_codebooks(change, quantizer.quantizer, to_unit(z), placed=placed, key=key)
        return eqx.tree_at(lambda q: q.quantizer, quantizer, inner)
    if isinstance(quantizer, FactorisedQuantizer):
        inner = with_codebooks(change, quantizer.quantizer, quantizer.down(z), placed=placed, key=key)
        return eqx.tree_at(lambda q: q.quantizer, quantizer, inner)
    if isinstance(quantizer, MultiScaleVQ):
        maps = z.reshape(-1, quantizer.side, quantizer.side, quantizer.dim)
        reach = jax.vmap(lambda z: quantizer.reaching(z, exact=not placed))(maps)
        inner = with_codebooks(change, quantizer.quantizer, reach.reshape(-1, quantizer.dim), placed=placed, key=key)
        return eqx.tree_at(lambda q: q.quantizer, quantizer, inner)
    stages = []
    for stage, own in zip(quantizer.quantizers, jr.split(key, len(quantizer.quantizers))):
        stages.append(with_codebooks(change, stage, z, placed=placed, key=own))
        z = z - jnp.asarray(stages[-1].lookup(stages[-1].nearest(z))).astype(z.dtype)
    return eqx.tree_at(lambda q: q.quantizers, quantizer, tuple(stages))


def has_codebook(quantizer: Any) -> bool:
    """True where `with_codebooks` changes something."""
    inner = getattr(quantizer, "quantizer", None)
    return isinstance(quantizer, VectorQuantizer | ResidualVQ) or (inner is not None and has_codebook(inner))
