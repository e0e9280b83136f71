"""Text to image tokens: equality with T5, the memory, texts and their ends, guidance, and the shared loss."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import PARTI_SIZES, ImageSampling, PartiConfig
from eqxgen.decoding.images import evidence, generate
from eqxgen.losses.image_ar import image_ar_loss
from eqxgen.models import T5, Parti
from eqxgen.protocols import ImageTokenModel
from tests.full import full

HALVES = {"dim": 16, "depth": 2, "decoder_depth": 3, "heads": 2, "head_dim": 6, "hidden_dim": 24, "dropout": 0.0}
SMALL = PartiConfig(**HALVES, context=9, buckets=8, max_distance=12)
CODES, VOCAB, END = 7, 5, 5
IDS, TEXT = jr.randint(jr.key(7), (15,), 0, CODES), jnp.array([3, 0, 4, END, END])
EMPTY = jnp.full(5, END)


def made(**changes):
    return Parti((3, 5), CODES, VOCAB, dataclasses.replace(SMALL, **changes), key=jr.key(0))


@pytest.fixture(scope="module")
def model():
    return made()


@eqx.filter_jit
def run(model, ids, text):
    return model(ids, text, inference=True)


def likelihood(logits, ids):
    return float(jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(15), ids]))


def test_logits_equal_those_of_t5_with_the_same_weights():
    """One table is T5's for both: row 7 begins its target, as our start does, and row 5 is our end in its source."""
    ours = made(positions=False, tied=True, scaled=True)
    theirs = T5(CODES + 1, dataclasses.replace(SMALL, tied=True), key=jr.key(3))
    table = theirs.embedding.weight
    where = lambda m: (m.text.embedding.weight, m.text.encoder, m.embedding.weight, m.decoder)
    ours = eqx.tree_at(where, ours, (table[: VOCAB + 1], theirs.encoder, table, theirs.decoder))
    target, mask = jnp.concatenate([jnp.array([CODES]), IDS[:-1]]), jnp.arange(5) < 4
    wanted = theirs(TEXT, target, mask=mask, inference=True)[:, :CODES]
    np.testing.assert_allclose(run(ours, IDS, TEXT), wanted, rtol=1e-5, atol=1e-5 * float(jnp.abs(wanted).max()))


@eqx.filter_jit
def _cached(model, ids, text):
    first, caches = model.start(text)

    def step(caches, token):
        logits, caches = model.extend(token, caches)
        return caches, logits

    return jnp.concatenate([first[None], jax.lax.scan(step, caches, ids[:-1])[1]])


@pytest.mark.parametrize("unrolled", [False, True])
@pytest.mark.parametrize("text", [TEXT, jnp.array([1, 2, 3, 4, 0])], ids=["ended", "full"])
def test_with_the_memory_logits_equal_the_full_forward(model, text, unrolled):
    full = run(model, IDS, text)
    found = _cached(model.unrolled() if unrolled else model, IDS, text)
    np.testing.assert_allclose(found, full, atol=1e-5 * float(jnp.abs(full).max()))


def test_what_follows_the_first_end_is_not_read_and_what_precedes_it_is(model):
    full = run(model, IDS, TEXT)
    np.testing.assert_allclose(run(model, IDS, TEXT.at[4].set(2)), full, rtol=1e-5, atol=1e-5)
    longer = jnp.concatenate([TEXT, jnp.full(4, END)])
    np.testing.assert_allclose(run(model, IDS, longer), full, rtol=1e-5, atol=1e-5)
    for place in range(4):
        assert jnp.abs(run(model, IDS, TEXT.at[place].set(1)) - full).max() > 1e-4, place


def test_samples_are_those_of_guided_logits_of_the_text_and_the_empty_text(model):
    options, key = ImageSampling(guidance=3.0, temperature=0.7, top_k=3), jr.key(5)
    ids = generate(model, TEXT, options, key=key)
    text, null = run(model, ids, TEXT), run(model, ids, EMPTY)
    guided = null + 3.0 * (text - null)
    best = jnp.where(guided >= jnp.sort(guided, axis=-1)[:, -3:-2], guided / 0.7, -jnp.inf)
    wanted = [jr.categorical(jr.fold_in(key, i), row) for i, row in enumerate(best)]
    np.testing.assert_array_equal(ids, wanted)
    odds = likelihood(text, ids) - likelihood(null, ids)
    assert float(eqx.filter_jit(evidence)(model, ids, TEXT)) == pytest.approx(odds, rel=1e-5)
    assert isinstance(model, ImageTokenModel)


@full
def test_the_best_of_several_candidates_is_kept(model):
    scorer = lambda ids, text: -jnp.sum(ids).astype(jnp.float32) + 0 * text[0]
    drawn = generate(model, TEXT, ImageSampling(candidates=4), scorer=scorer, key=jr.key(2))
    each = [generate(model, TEXT, key=key) for key in jr.split(jr.key(2), 4)]
    assert drawn.tolist() == min(each, key=lambda ids: int(ids.sum())).tolist()


def test_the_loss_drops_the_text_as_a_whole(model):
    loss = eqx.filter_jit(image_ar_loss)
    one = lambda rate: float(loss(model, IDS, TEXT, label_dropout=rate, key=jr.key(3)).loss)
    assert one(0.0) == pytest.approx(-likelihood(run(model, IDS, TEXT), IDS), rel=1e-5)
    assert one(0.999999) == pytest.approx(-likelihood(run(model, IDS, EMPTY), IDS), rel=1e-5)
    with pytest.raises(ValueError, match="shuffled must be None for a Parti"):
        image_ar_loss(model, IDS, TEXT, shuffled=jnp.float32(1), key=jr.key(0))


def test_the_published_sizes_have_their_numbers_of_parameters():
    for name, millions in {"350m": 350, "750m": 750, "3b": 3000, "20b": 20_000}.items():
        make = lambda key, name=name: Parti((32, 32), 8192, 16_000, PartiConfig.parti(name), key=key)
        leaves = jax.tree.leaves(eqx.filter_eval_shape(make, jr.key(0)))
        count = sum(leaf.size for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct))
        assert count / 1e6 == pytest.approx(millions, rel=0.11), name  # the two tables included
    assert len(PARTI_SIZES) == 4


def test_each_wrong_input_is_one_line(model):
    for message, call in {
        r"text must be in \[0, vocab \+ 1 end=6\): got values from 3 to 6": lambda: model(IDS, TEXT.at[1].set(6)),
        r"text must be of 1 to context=9 ids: got 10": lambda: generate(model, jnp.zeros(10, int), key=jr.key(0)),
        r"text must be of 1 to context=9 ids: got 0": lambda: generate(model, [], key=jr.key(0)),
        r"text must be \(text,\): got shape \(\)": lambda: generate(model, 3, key=jr.key(0)),
        r"ids must be \(tokens=15,\): got shape \(14,\)": lambda: model(IDS[1:], TEXT),
        r"ids must be in \[0, codes=7\)": lambda: model(IDS.at[0].set(7), TEXT),
        r"model\.context must be at least 2, for a token and the end: got 1": lambda: PartiConfig(context=1),
        "name must be one of 350m, 750m, 3b, 20b: got 'b'": lambda: PartiConfig.parti("b"),
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
