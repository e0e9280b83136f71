"""Protocols of `eqxgen.protocols`: the models that have them, and models of one's own that a loss or a decoder takes."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array

from eqxgen import models, protocols
from eqxgen.configs import MaskedDecoding
from eqxgen.decoding import autoregressive, beam, masked
from eqxgen.losses.masked import masked_loss
from eqxgen.losses.tokens import next_token_losses

HAVE = {
    "MaskedModel": {"MAGE", "MaskGIT", "Muse"},
    "ScaleTokenModel": {"VAR"},
    "TokenModel": {"GPT", "RNN"},
    "LanguageModel": {"GPT", "RNN"},
    "LatentModel": {"VAE"},
}


@pytest.mark.parametrize("protocol", HAVE)
def test_the_models_that_have_a_protocols_members(protocol):
    members = {name for name in vars(getattr(protocols, protocol)) if not name.startswith("_") or name == "__call__"}
    assert len(members) >= 2
    have = {name for name in models.__all__ if members <= members_of(getattr(models, name))}
    assert have == HAVE[protocol]


def members_of(kind: type) -> set[str]:
    """Attributes of the class and fields of its instances."""
    return {*dir(kind), *getattr(kind, "__dataclass_fields__", ())}


class Bigrams(eqx.Module):
    """A language model whose logits depend on the last token alone: no module of `eqxgen.models`."""

    table: Array
    context = None

    @property
    def vocab(self) -> int:
        return self.table.shape[1]

    @property
    def unembedding(self):
        return jnp.eye(self.vocab), None

    def hidden(self, ids, *, key=None, inference=None):
        return self.table[ids]

    def cache(self):
        return jnp.zeros(())

    def extend(self, ids, cache, *, count=None):
        return self.table[ids[(len(ids) if count is None else count) - 1]], cache


class Canvas(eqx.Module):
    """A model of masked tokens whose logits are its only parameter."""

    logits: Array
    tokens: int = 4
    codes: int = 3
    mask_id: int = 3
    null_label: int = 2

    def check_condition(self, condition):
        return jnp.asarray(condition)

    def __call__(self, ids, label, *, key=None, inference=None):
        return self.logits


def test_a_language_model_of_ones_own_is_trained_and_decoded():
    model = Bigrams(10.0 * jnp.roll(jnp.eye(3), 1, axis=1))  # after i comes i + 1
    assert isinstance(model, protocols.TokenModel)
    assert isinstance(model, protocols.LanguageModel)
    ids = jnp.asarray([0, 1, 2, 0])
    assert float(jnp.max(next_token_losses(model, ids[:-1], ids[1:]))) < 1e-3
    drawn = autoregressive.generate(model, [[0], [2]], 3, key=jr.key(0))
    np.testing.assert_array_equal(drawn, [[1, 2, 0], [0, 1, 2]])
    np.testing.assert_array_equal(beam.beam_search(model, [1], 3, 2)[0], [2, 0, 1])


def test_a_masked_model_of_ones_own_is_trained_and_decoded():
    codes = jnp.asarray([0, 2, 1, 2])
    model = Canvas(jnp.where(codes[:, None] == jnp.arange(3)[None], 20.0, 0.0))
    assert isinstance(model, protocols.MaskedModel)
    sums = masked_loss(model, codes, jnp.asarray(0), label_smoothing=0.0, key=jr.key(0))
    assert float(sums.loss) < 1e-3
    assert float(sums.correct) == float(sums.masked) >= 1
    np.testing.assert_array_equal(masked.generate(model, 1, MaskedDecoding(steps=2), key=jr.key(1)), codes)
