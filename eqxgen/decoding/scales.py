"""Decoding of models of image tokens scale by scale (Tian et al. 2024, VAR, arXiv:2404.02905)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray

from eqxgen.configs import ImageSampling
from eqxgen.decoding.images import PLAIN, ImageRules, Scorer, both, sampled
from eqxgen.decoding.logits import draw
from eqxgen.nn import _check
from eqxgen.protocols import ScaleTokenModel


def generate(
    model: ScaleTokenModel,
    condition: _check.Ids,
    options: ImageSampling | ImageRules = PLAIN,
    *,
    scorer: Scorer | None = None,
    key: PRNGKeyArray,
) -> Int[Array, " tokens"]:
    """Ids of a new image of a class: all tokens of a scale at once, each scale computed once.

    With guidance the condition and the null are a batch of two with a memory each, as in
    `eqxgen.decoding.images.generate`; the interval of the guidance is of tokens, its ramp of scales. Every scale has
    other shapes, so that the program has a part for each. Other numbers in `options` run the same compiled program,
    except `candidates`.

    Args:
        condition: the class; or the null, `model.null_label`.
        options: of the draws, the guidance, and the number of candidates.
        scorer: judges the candidates; by default `eqxgen.decoding.images.evidence`.
        key: of all draws.

    Raises:
        ValueError: the condition is none of the model's, the guidance ends after the tokens, or guidance or `evidence`
            is asked of a model without a null label.
        FloatingPointError: the logits are NaN; inside a compiled program, ids are `NO_TOKEN`, -1, instead.
    """
    return sampled(_by_scale, model, condition, options, scorer, key)


def _by_scale(model: Any, condition: Array, rules: ImageRules, key: PRNGKeyArray) -> Array:
    unseen, scales = jnp.zeros(model.codes, bool), len(model.scales)
    logits, memory = eqx.filter_vmap(model.start)(both(model, condition, rules))
    found, before = [], 0
    for scale, side in enumerate(model.scales):
        at = before + jnp.arange(side * side)
        progress = scale / max(scales - 1, 1)
        one = lambda logits, token, progress=progress: draw(
            rules.guided(logits, token, progress), rules.draws, unseen, key=jr.fold_in(key, token)
        )
        found.append(jax.vmap(one, in_axes=(1, 0))(logits.astype(jnp.float32), at))
        before += side * side
        if scale < scales - 1:
            step = eqx.filter_vmap(model.extend, in_axes=(None, 0))
            logits, memory = step(jnp.maximum(found[-1], 0), memory)
    return jnp.concatenate(found)
