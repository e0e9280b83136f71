"""An image classifier on MAGE's encoder (Li et al. 2022, arXiv:2211.09117, section 4.2).

The mean of the encoder's states of all tokens, normalised without parameters, a batch norm without them, a linear head:
the linear probe's net. Differences: it is that of fine-tuning too, where the original has no batch norm, and a scale
and a bias in the other one.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.models.mage import MAGE, MAGEEncoder, pooled
from eqxgen.models.vit import normal
from eqxgen.nn import BatchNorm, BatchNormState, Projection, _check


class MAGEClassifier(eqx.Module):
    """Class logits of an image, which a tokenizer divides into MAGE's tokens.

    Args:
        tokenizer: with `image_shape`, `tokens`, `codes` and `encode(image) -> ids`, such as `VQGAN` or
            `PixelTokenizer`; no gradient comes to it.
        model: whose encoder is taken.
        classes: number of labels.

    Raises:
        ValueError: the tokenizer has other tokens or codes than the model.
    """

    tokenizer: Any
    encoder: MAGEEncoder  # without its last norm
    norm: BatchNorm
    head: Projection

    def __init__(self, tokenizer: Any, model: MAGE, classes: int, *, key: PRNGKeyArray):
        _check.positive(classes=classes)
        if (tokenizer.tokens, tokenizer.codes) != (model.tokens, model.codes):
            raise ValueError(
                f"tokenizer must give {model.tokens} tokens of {model.codes} codes, as the model takes: got "
                f"{tokenizer.tokens} of {tokenizer.codes}"
            )
        self.tokenizer, self.encoder = tokenizer, eqx.tree_at(lambda encoder: encoder.norm, model.encoder, None)
        self.norm = BatchNorm(model.config.dim, epsilon=1e-6, affine=False)
        self.head = Projection(model.config.dim, classes, init=normal, key=key)

    def init_state(self) -> BatchNormState:
        """The state of the batch norm before the first batch."""
        return self.norm.init_state()

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        state: BatchNormState,
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, " classes"], BatchNormState]:
        """Logits of an image in [-1, 1], and the state after its batch.

        Args:
            weight: of the image in the statistics: 0 for padding, else 1.
            key: of dropout; needed in training.
            inference: no dropout, if true.

        Raises:
            ValueError: the image is not of the tokenizer's shape.
        """
        height, width, channels = self.tokenizer.image_shape
        _check.example(image, height=height, width=width, channels=channels, name="image")
        ids = self.tokenizer.encode(image)
        null = jnp.asarray(self.encoder.labels - 1)
        states = self.encoder(ids, null, key=key, inference=inference)
        features, state = self.norm(pooled(states), state, weight=weight, inference=inference)
        return self.head(features), state
