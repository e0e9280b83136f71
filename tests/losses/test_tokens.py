"""The next token's cross-entropy, of any model with states and an output projection."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import GPTConfig, RNNConfig
from eqxgen.losses.tokens import next_token_losses
from eqxgen.models import GPT, RNN
from eqxgen.protocols import TokenModel

VOCAB = 11
SIZES = GPTConfig(dim=8, depth=1, heads=2, context=7)
MODELS = {
    "tied": lambda: GPT(VOCAB, SIZES, key=jr.key(0)),
    "a head of its own": lambda: GPT(VOCAB, dataclasses.replace(SIZES, tied=False), key=jr.key(0)),
    "a head with a bias": lambda: RNN(VOCAB, RNNConfig(dim=8), key=jr.key(0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_losses_are_those_of_the_models_logits(name):
    model = MODELS[name]()
    model = eqx.tree_at(lambda m: m.head.bias, model, jnp.arange(VOCAB) / 7) if "bias" in name else model
    ids, targets = jr.randint(jr.key(1), (2, 7), 0, VOCAB)
    expected = -jax.nn.log_softmax(model(ids))[jnp.arange(7), targets]
    np.testing.assert_allclose(next_token_losses(model, ids, targets), expected, rtol=1e-5)
    assert isinstance(model, TokenModel)
