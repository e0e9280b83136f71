"""A quantiser by its name."""

from typing import Any

import jax.random as jr
from jaxtyping import PRNGKeyArray

from eqxgen.configs import QuantizerConfig
from eqxgen.nn import (
    FSQ,
    LFQ,
    CosineQuantizer,
    EMAQuantizer,
    FactorisedQuantizer,
    GumbelQuantizer,
    MultiScaleVQ,
    ResidualVQ,
    VectorQuantizer,
)


def chosen(config: QuantizerConfig, *, key: PRNGKeyArray) -> Any:
    """The quantiser of a config, of vectors of its `dim`; a grid or signs of fewer dimensions are between projections.

    A codebook of averages is the only one with a state; the batch is the axis `batch` of `jax.vmap`.
    """
    own, other = jr.split(key)
    soft: dict[str, Any] = {"commitment": config.commitment, "temperature": config.temperature}
    learned = lambda key: VectorQuantizer(config.codes, config.dim, legacy=config.legacy, key=key, **soft)
    if config.kind == "ema":
        return EMAQuantizer(config.codes, config.dim, decay=config.decay, axis_name="batch", key=key, **soft)
    if config.kind == "vq":
        return learned(key)
    if config.kind == "cosine":
        return CosineQuantizer(learned(key), past_norm=config.past_norm)
    if config.kind == "residual":
        return ResidualVQ([learned(key) for key in jr.split(key, config.stages)])
    if config.kind == "multiscale":
        return MultiScaleVQ(learned(own), config.scales, commitment=config.commitment, key=other)
    if config.kind == "gumbel":
        return GumbelQuantizer(config.codes, config.dim, temperature=config.gumbel_temperature, key=key)
    inner = FSQ(config.grid) if config.kind == "fsq" else LFQ(config.codes.bit_length() - 1, **soft, key=own)
    return inner if inner.dim == config.dim else FactorisedQuantizer(inner, config.dim, key=other)
