"""Conditions and sampler of image tokens scale by scale (VAR): the model reads its tokenizer's quantiser, which is not
trained. Imports nothing heavy.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from ..._errors import UsageError
from ..conditions import LABELS
from ..facts import TokenFacts

if TYPE_CHECKING:
    from jax.sharding import Mesh

SCALES = "scales"
"""Value of `--order`."""


def check_scales(config: Any, facts: TokenFacts) -> None:
    """Raises `UsageError` where `--order scales` has a tokenizer of one scale."""
    if config.order == SCALES and not facts.scales:
        raise UsageError(
            f"--order scales: needs a tokenizer of several scales, as of train.vqgan --quantizer multiscale: got "
            f"--tokenizer {config.tokenizer}, whose {facts.tokens} tokens are of one"
        )


def _frozen(config: Any, facts: TokenFacts, mesh: "Mesh | None", tokenizer: Any) -> Any:
    """The quantiser of the run's tokenizer, of random weights on paper; None for the order row by row."""
    if config.order != SCALES or tokenizer is not None:
        return None if config.order != SCALES else tokenizer.quantizer
    import jax.random as jr

    from eqxgen.configs import QuantizerConfig
    from eqxgen.models.tokenizers.quantizers import chosen

    return chosen(QuantizerConfig("multiscale", facts.codes, facts.code_dim, scales=facts.scales), key=jr.key(0))


SCALED = dataclasses.replace(
    LABELS,
    frozen=_frozen,
    bound=lambda model, frozen: model if frozen is None else model.reading(frozen),
)
"""Labels, and the quantiser where the order is of scales."""


def draw_by_scale(config: Any, facts: TokenFacts) -> Any:
    """Sampler of an image's tokens: (model, label, key=) -> ids.

    Args:
        config: with `decode`, the options.

    Raises:
        ValueError: an option is not one of the tokens.
    """
    from jax.tree_util import Partial

    from eqxgen.decoding.images import ImageRules
    from eqxgen.decoding.scales import generate

    return Partial(generate, options=ImageRules.of(config.decode, facts.tokens))
