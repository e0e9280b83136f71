"""Frozen encoders of texts in models of image tokens: equality with an encoder of the model's own, states, gradients."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import MuseConfig, PartiConfig, T5Config, TextTowerConfig
from eqxgen.losses.image_ar import image_ar_loss
from eqxgen.models import Muse, Parti, T5Encoder
from eqxgen.models.clip import TextTower
from eqxgen.models.text_conditional import FrozenText
from tests.arrays import filled
from tests.full import FULL

SIZES = {"dim": 16, "depth": 1, "heads": 2, "head_dim": 6, "hidden_dim": 24, "context": 6, "buckets": 8, "dropout": 0.0}
CODES, VOCAB, END = 7, 5, 5
IDS, TEXT = jnp.array([3, 0, 6, 1, 1, 5]), jnp.array([3, 0, 4, END, END])
MODELS = {"Parti": (Parti, PartiConfig(**SIZES)), "Muse": (Muse, MuseConfig(**SIZES))}
BEGIN, LAST = 10, 11


def made(name, vocab=None, text_dim=None, **changes):
    kind, config = MODELS[name]
    sizes = dataclasses.replace(config, **changes)
    return filled(lambda key: kind((2, 3), CODES, vocab, sizes, text_dim=text_dim, key=key))


@eqx.filter_jit
def run(own, other, encoder):
    """Logits of a text and of the empty one, by the frozen encoder and by the model's own."""
    texts = jnp.stack([TEXT, jnp.full(5, END)])
    of = lambda model: jax.vmap(lambda text: model(IDS, text, inference=True))(texts)
    return of(other.reading(encoder)), of(own)


@pytest.fixture(scope="module")
def clip():
    sizes = TextTowerConfig(dim=8, depth=1, heads=2, hidden_dim=16, context=7)
    return FrozenText(filled(lambda key: TextTower(12, sizes, key=key)), LAST, BEGIN)


@pytest.mark.parametrize("name", MODELS if FULL else ["Muse"])
def test_logits_equal_those_of_an_own_encoder_with_the_same_weights(name):
    own, other = made(name, VOCAB), made(name, text_dim=16)
    parts = lambda model: (model.embedding, model.positions, model.decoder, model.head)
    other = eqx.tree_at(lambda model: (model.projection.weight, *parts(model)), other, (jnp.eye(16), *parts(own)))
    encoder = FrozenText(own.text, END)
    found, wanted = run(own, other, encoder)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert other.reading(encoder).null_label == own.null_label == END
    arrays = lambda model: len(jax.tree.leaves(eqx.filter(model, eqx.is_array)))
    assert arrays(other) == arrays(own) - arrays(own.text) + 1


def test_states_of_clip_are_those_of_the_text_between_its_begin_and_its_end(clip):
    text, ids = jnp.array([4, 2, LAST, LAST, LAST]), jnp.array([BEGIN, 4, 2, LAST])

    @eqx.filter_jit
    def found(encoder):
        return *encoder(text), encoder.net.tokens(ids), encoder(jnp.full(5, LAST))[1]

    states, real, wanted, null = found(clip)
    assert real.tolist() == [True] * 4 + [False] * 2
    np.testing.assert_allclose(states[:4], wanted, rtol=1e-5, atol=1e-5)
    # The null condition of guidance is the empty text: its begin and its end.
    assert null.tolist() == [True] * 2 + [False] * 4


def test_decoding_and_the_loss_read_a_frozen_encoder_that_has_no_gradient(clip):
    model, text = made("Parti", text_dim=8, context=5), jnp.array([4, 2, LAST])

    @eqx.filter_jit
    def found(model, encoder):
        def loss(model):
            bound = model.reading(encoder)
            return image_ar_loss(bound, IDS, text, label_dropout=0.0, key=jr.key(3)).loss

        bound = model.reading(encoder)
        return *eqx.filter_value_and_grad(loss)(model), bound.start(text)[0], bound(IDS, text, inference=True)

    loss, gradient, first, logits = found(model, clip)
    assert gradient.frozen is None
    assert float(jnp.abs(gradient.projection.weight).max()) > 1e-4
    hit = jnp.take_along_axis(jax.nn.log_softmax(logits), IDS[:, None], axis=1)
    assert float(loss) == pytest.approx(-float(hit.sum()), rel=1e-5)
    np.testing.assert_allclose(first, logits[0], rtol=1e-5, atol=1e-5)


def test_each_wrong_encoder_is_one_line(clip):
    model, wide = made("Parti", text_dim=8, context=5), dataclasses.replace(clip.net.config, causal=False)
    t5 = filled(lambda key: T5Encoder(9, T5Config(dim=8, depth=1, heads=1, head_dim=8, hidden_dim=8), key=key))
    for message, call in {
        "vocab must be given for an encoder of texts of its own, or text_dim .*: got neither": lambda: made("Muse"),
        "or text_dim for a frozen one: got vocab=5 and text_dim=8": lambda: made("Muse", VOCAB, 8),
        "text_dim must be an integer of at least 1: got 0": lambda: made("Parti", text_dim=0),
        "reading needs a model with text_dim, .*: got one with its own": lambda: made("Parti", VOCAB).reading(clip),
        "encoder must have states of text_dim=9: got 8": lambda: made("Parti", text_dim=9).reading(clip),
        "encoder must have room for context=7 ids of a text: got 6": lambda: made(
            "Parti", text_dim=8, context=7
        ).reading(clip),
        r"needs its frozen encoder: call model\.reading\(encoder\) first": lambda: model(IDS, TEXT),
        r"text must be in \[0, vocab=12\): got values from 12 to 12": lambda: model.reading(clip)(IDS, [12]),
        r"end must be in \[0, vocab=9\): got 9": lambda: FrozenText(t5, 9),
        r"begin must be in \[0, vocab=9\): got -1": lambda: FrozenText(t5, 1, -1),
        "net must be causal": lambda: FrozenText(filled(lambda key: TextTower(12, wide, key=key)), LAST),
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
