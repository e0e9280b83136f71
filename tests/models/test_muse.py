"""Text to masked image tokens: texts and low-resolution tokens, guidance, the shared loss and sampler, marginals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import MUSE_SIZES, MaskedDecoding, MuseConfig
from eqxgen.decoding.masked import generate, masked_decode
from eqxgen.losses.masked import masked_loss
from eqxgen.models import Muse
from tests.full import full

SMALL = MuseConfig(dim=16, depth=1, heads=2, head_dim=8, hidden_dim=24, context=9, buckets=8, dropout=0.0, low_depth=1)
CODES, END = 7, 5
TEXT, EMPTY, LOW = jnp.array([3, 0, 4, END, END]), jnp.full(5, END), jnp.array([1, 0, 2, 3])
IDS = jnp.where(jnp.arange(15) % 3 == 0, CODES, jr.randint(jr.key(7), (15,), 0, CODES))


@pytest.fixture(scope="module")
def model():
    return Muse((3, 5), CODES, END, SMALL, key=jr.key(0))


@pytest.fixture(scope="module")
def second():
    return Muse((3, 5), CODES, END, SMALL, low=(4, 6), key=jr.key(1))


@eqx.filter_jit
def run(model, ids, text, low=None):
    model = model if low is None else model.given(low, inference=True)
    return model(ids, text, inference=True)


def test_every_token_sees_all_others_and_the_text_up_to_its_first_end(model):
    full = run(model, IDS, TEXT)
    np.testing.assert_allclose(run(model, IDS, TEXT.at[4].set(2)), full, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(model, IDS, jnp.append(TEXT, END)), full, rtol=1e-5, atol=1e-5)
    for place in range(4):
        assert jnp.abs(run(model, IDS, TEXT.at[place].set(1)) - full).max() > 1e-4, place
    for place in (0, 14):
        changed = jnp.abs(run(model, IDS.at[place].set((IDS[place] + 1) % CODES), TEXT) - full).max(axis=1)
        assert (changed > 1e-7).all(), place


def test_samples_are_those_of_guided_logits_of_the_text_and_the_empty_text(model):
    options, key = MaskedDecoding(steps=3, guidance=3.0, guidance_ramp=0.0), jr.key(5)
    guided = lambda ids: (null := run(model, ids, EMPTY)) + 3.0 * (run(model, ids, TEXT) - null)
    wanted = masked_decode(guided, IDS, jnp.ones(15, bool), options, mask_id=model.mask_id, key=key)[-1]
    np.testing.assert_array_equal(generate(model, TEXT, options, key=key), wanted)


def test_the_loss_drops_the_text_and_keeps_the_low_resolution_tokens(second):
    given, ids = second.given(LOW, inference=True), IDS % CODES
    one = eqx.filter_jit(lambda text, rate: masked_loss(given, ids, text, label_dropout=rate, key=jr.key(3)).loss)
    dropped = float(one(TEXT, 0.999999))
    assert dropped == pytest.approx(float(one(EMPTY, 0.0)), rel=1e-6)
    assert dropped != pytest.approx(float(one(TEXT, 0.0)), rel=1e-4)
    other = masked_loss(second.given(LOW[::-1], inference=True), ids, TEXT, label_dropout=0.999999, key=jr.key(3))
    assert dropped != pytest.approx(float(other.loss), rel=1e-4)


def test_the_states_of_the_low_resolution_tokens_are_learnt_and_each_is_read(second):
    full = run(second, IDS, TEXT, LOW)
    for place in range(4):
        assert jnp.abs(run(second, IDS, TEXT, LOW.at[place].set(5)) - full).max() > 1e-5, place
    loss = lambda model: jnp.sum(model.given(LOW, inference=True)(IDS, TEXT, inference=True) ** 2)
    for leaf in jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(loss))(second).low):
        assert jnp.abs(leaf).max() > 0


@full
def test_tokens_that_the_model_makes_independent_have_its_marginals_in_every_order_without_bias(model):
    """Blocks of zeros add nothing: the logits of a masked token depend on its place alone."""
    alone = eqx.tree_at(lambda m: m.decoder.stack, model, replace_fn=lambda s: jax.tree.map(lambda x: 0 * x, s))
    wanted = jax.nn.softmax(run(alone, jnp.full(15, CODES), TEXT))
    assert float(jnp.abs(wanted - 1 / CODES).max()) > 0.1
    for order in ("random", "halton"):
        options = MaskedDecoding(steps=4, order=order, guidance=1.0)
        draw = lambda key, options=options: generate(alone, TEXT, options, grid=(3, 5), key=key)
        ids = jax.jit(jax.vmap(draw))(jr.split(jr.key(2), 4000))
        found = jnp.mean(jax.nn.one_hot(ids, CODES), axis=0)
        np.testing.assert_allclose(found, wanted, atol=0.04)


def test_the_sizes_of_the_paper_have_their_numbers_of_parameters():
    for name, millions in {"632m": 604, "3b": 3222, "super": 740}.items():
        low = (256, 8192) if name == "super" else None
        make = lambda key, name=name, low=low: Muse((16, 16), 8192, 9, MuseConfig.muse(name), low=low, key=key)
        shapes = eqx.filter_eval_shape(make, jr.key(0))
        leaves = jax.tree.leaves((shapes.decoder, shapes.low and shapes.low.encoder))
        count = sum(leaf.size for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct))
        assert count / 1e6 == pytest.approx(millions, rel=0.01), name
    assert len(MUSE_SIZES) == 3


def test_each_wrong_input_is_one_line(model, second):
    for message, call in {
        r"text must be in \[0, vocab \+ 1 end=6\): got values from 3 to 6": lambda: model(IDS, TEXT.at[1].set(6)),
        r"text must be of 1 to context=9 ids: got 10": lambda: generate(model, jnp.zeros(10, int), key=jr.key(0)),
        r"ids must be \(tokens=15,\): got shape \(14,\)": lambda: model(IDS[1:], TEXT),
        r"ids must be in \[0, codes \+ 1 mask=8\)": lambda: model(IDS.at[0].set(8), TEXT),
        r"low must be in \[0, low codes=6\)": lambda: second.given(LOW.at[0].set(6)),
        r"low must be \(low_tokens=4,\): got shape \(3,\)": lambda: second.given(LOW[1:]),
        r"given needs a second stage, a model with low=\(tokens, codes\)": lambda: model.given(LOW),
        "a second stage needs low-resolution tokens: call": lambda: second(IDS, TEXT),
        r"decode\.steps must be from 1 to the number of tokens, 15: got 16": lambda: generate(
            model, TEXT, MaskedDecoding(steps=16), key=jr.key(0)
        ),
        r"model\.context must be at least 2, for a token and the end: got 1": lambda: MuseConfig(context=1),
        r"model\.low_depth must be at least 0: got -1": lambda: MuseConfig(low_depth=-1),
        "name must be one of 632m, 3b, super: got 'b'": lambda: MuseConfig.muse("b"),
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
