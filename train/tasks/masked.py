"""Flags, loss and sampler of recipes of masked image tokens. Imports nothing heavy."""

import dataclasses
from collections.abc import Callable
from typing import Any

from eqxgen.configs import WEIGHTINGS, MaskedDecoding

from .._errors import require
from ..config.options import option
from .facts import TokenFacts
from .image_tokens import TokensConfig

Bind = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(model, condition of a batch, key or None in sampling) -> the model and the condition that it takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedConfig(TokensConfig):
    """Flags of every such recipe."""

    label_smoothing: float = 0.1
    """Weight of the uniform distribution in the targets."""
    weighting: str = "none"
    """Weights of the masked tokens in the loss: none, or mdlm, the likelihood bound of masked diffusion."""
    decode: MaskedDecoding = option(factory=MaskedDecoding, first=("steps", "guidance"))
    """Sampling."""

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.label_smoothing < 1, f"label_smoothing must be in [0, 1): got {self.label_smoothing}")
        known = ", ".join(WEIGHTINGS)
        require(self.weighting in WEIGHTINGS, f"weighting must be one of {known}: got {self.weighting!r}")


def as_it_is(model: Any, condition: Any, key: Any) -> tuple[Any, Any]:
    """A model that takes the condition of a batch."""
    return model, condition


def masked_tokens(config: MaskedConfig, condition: str, dropout: float, bind: Bind = as_it_is) -> Any:
    """Cross-entropy of the masked tokens of a batch.

    Args:
        condition: name of the batch's array with the conditions.
        dropout: share of the examples whose condition is hidden.
        bind: see `Bind`.
    """
    import jax

    from eqxgen.losses.masked import masked_loss

    from ..engine.recipe import Sums

    options = {"label_smoothing": config.label_smoothing, "label_dropout": dropout, "weighting": config.weighting}
    options["schedule"] = config.decode.schedule

    def total(model, batch, keys, _):
        def one(ids, row, key):
            bound, given = bind(model, row, key)
            return masked_loss(bound, ids, given, **options, key=key)

        found, weight = jax.vmap(one)(batch["ids"], batch[condition], keys), batch["weight"]
        return Sums(weight @ found.loss, weight @ found.masked, {"accuracy": weight @ found.correct})

    return total


def draw_masked(config: MaskedConfig, facts: TokenFacts) -> Any:
    """Sampler of an image's tokens: (model, condition, key=) -> ids.

    Raises:
        ValueError: an option is not one of the tokens or of the training.
    """
    from jax.tree_util import Partial

    from eqxgen.decoding.masked import MaskedRules, generate

    return Partial(generate, options=MaskedRules.of(config.decode, facts.tokens, facts.grid))
