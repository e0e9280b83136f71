"""Loss and sampler of recipes of image tokens one by one. Imports nothing heavy."""

from typing import Any

from .facts import TokenFacts


def one_by_one(facts: TokenFacts, condition: str, dropout: float) -> Any:
    """Cross-entropy of the tokens of a batch.

    Args:
        condition: name of the batch's array with the conditions.
        dropout: share of the examples whose condition is hidden.
    """
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.image_ar import image_ar_loss

    from ..engine.recipe import Sums

    def total(model, batch, keys, _):
        one = lambda ids, condition, key, shuffled: image_ar_loss(
            model, ids, condition, label_dropout=dropout, shuffled=shuffled, key=key
        )
        found = jax.vmap(one)(batch["ids"], batch[condition], keys, batch.get("shuffled"))
        weight = batch["weight"]
        return Sums(weight @ found.loss, facts.tokens * jnp.sum(weight), {"accuracy": weight @ found.correct})

    return total


def draw_one_by_one(config: Any, facts: TokenFacts) -> Any:
    """Sampler of an image's tokens: (model, condition, key=) -> ids.

    Args:
        config: with `decode`, the options.

    Raises:
        ValueError: an option is not one of the tokens.
    """
    from jax.tree_util import Partial

    from eqxgen.decoding.images import ImageRules, generate

    return Partial(generate, options=ImageRules.of(config.decode, facts.tokens))
