"""MaskGIT: guidance, generation, inpainting, editing, and its loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import MaskedDecoding, MaskGITConfig
from eqxgen.decoding.masked import generate, guided, region
from eqxgen.losses.masked import masked_loss
from eqxgen.models.maskgit import MaskGIT
from eqxgen.models.tokenizers.pixels import PixelTokenizer

SIZES = MaskGITConfig(dim=16, depth=1, heads=2, hidden_dim=24, dropout=0.0, placement="pre")
LABEL = jnp.asarray(2)


@pytest.fixture(scope="module")
def model():
    model = MaskGIT(16, 7, 3, SIZES, key=jr.key(0))
    # Weights large enough that label and context matter.
    return jax.tree.map(lambda x: 8 * x if eqx.is_inexact_array(x) and x.ndim > 1 else x, model)


draw = eqx.filter_jit(generate)


def test_guidance_of_one_equals_none_and_of_zero_the_null_label(model):
    ids = jnp.full(16, model.mask_id)
    conditional = model(ids, LABEL, inference=True)
    null = model(ids, jnp.asarray(model.null_label), inference=True)
    np.testing.assert_array_equal(guided(model, LABEL, 1.0)(ids), conditional)
    np.testing.assert_allclose(guided(model, LABEL, 0.0)(ids), null, rtol=1e-6)
    np.testing.assert_allclose(guided(model, LABEL, 3.0)(ids), null + 3 * (conditional - null), rtol=1e-5)
    np.testing.assert_array_equal(
        draw(model, LABEL, MaskedDecoding(guidance=1.0), key=jr.key(1)), draw(model, LABEL, key=jr.key(1))
    )


def test_generated_ids_are_codes_and_depend_on_key_and_label(model):
    one = draw(model, LABEL, key=jr.key(1))
    assert ((one >= 0) & (one < 7)).all()
    np.testing.assert_array_equal(one, draw(model, LABEL, key=jr.key(1)))
    assert not np.array_equal(one, draw(model, LABEL, key=jr.key(2)))
    assert not np.array_equal(one, draw(model, jnp.asarray(0), key=jr.key(1)))


def test_inpainting_and_class_editing_change_the_region_alone(model):
    ids = draw(model, LABEL, key=jr.key(3))
    inside = region(4, 4, top=1, left=1, height=2, width=3)
    assert inside.sum() == 6
    for label in (LABEL, jnp.asarray(0)):
        edited = draw(model, label, MaskedDecoding(steps=4), ids=ids, unknown=inside, key=jr.key(4))
        np.testing.assert_array_equal(edited[~inside], ids[~inside])
        assert ((edited >= 0) & (edited < 7)).all()


def test_a_region_is_a_rectangle_of_the_grid():
    inside = np.asarray(region(3, 5, top=0, left=2, height=2, width=2)).reshape(3, 5)
    assert np.argwhere(inside).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]


def test_a_label_or_region_that_cannot_be_is_an_error(model):
    ids = jnp.zeros(16, jnp.int32)
    everything = jnp.ones(16, bool)
    cases = {
        "label must be in": lambda: generate(model, jnp.asarray(4), key=jr.key(0)),
        "ids and unknown go together": lambda: generate(model, LABEL, ids=ids, key=jr.key(0)),
        r"ids must be in \[0, codes=7\)": lambda: generate(
            model, LABEL, ids=ids + 7, unknown=everything, key=jr.key(0)
        ),
        "guidance must be at least 0: got -1": lambda: guided(model, LABEL, -1.0),
        "guidance must be at least 0: got nan": lambda: guided(model, LABEL, float("nan")),
        "steps must be from 1 to the number of tokens, 16: got 17": lambda: generate(
            model, LABEL, MaskedDecoding(steps=17), key=jr.key(0)
        ),
        "the rectangle must be inside": lambda: region(4, 4, top=2, left=0, height=3, width=1),
        "the rectangle must be inside 4": lambda: region(4, 4, top=-1, left=0, height=3, width=1),
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            wrong()


def test_the_loss_is_the_cross_entropy_of_the_masked_tokens(model):
    ids = jr.randint(jr.key(5), (16,), 0, 7)
    losses, correct, masked = jax.vmap(lambda key: masked_loss(model, ids, LABEL, key=key, label_dropout=0.0))(
        jr.split(jr.key(6), 200)
    )
    assert ((masked >= 1) & (masked <= 16)).all()
    assert len(set(np.asarray(masked).tolist())) > 10  # every amount comes up
    assert (correct <= masked).all()
    # Without smoothing and label dropout, at a known mask: a single masked token.
    one = masked_loss(model, ids, LABEL, schedule="power99", label_smoothing=0.0, label_dropout=0.0, key=jr.key(0))
    assert one[2] >= 15
    assert float(jnp.mean(losses / masked)) == pytest.approx(float(one[0] / one[2]), rel=0.5)


def test_label_smoothing_mixes_in_the_uniform_distribution(model):
    ids = jr.randint(jr.key(7), (16,), 0, 7)
    loss = lambda smoothing: masked_loss(
        model, ids, LABEL, label_smoothing=smoothing, label_dropout=0.0, key=jr.key(8)
    )[0]
    zero, half, most = float(loss(0.0)), float(loss(0.5)), float(loss(0.999))
    assert half == pytest.approx((zero + (most - 0.001 * zero) / 0.999) / 2, rel=1e-4)


class Independent(eqx.Module):
    """A masked model that knows the distribution of each token alone."""

    logits: jax.Array
    tokens, codes, mask_id, null_label = 16, 7, 7, None

    def check_condition(self, condition):
        return condition

    def __call__(self, ids, label, *, key=None, inference=None):
        return self.logits


def test_the_weights_of_masked_diffusion_give_the_likelihood_of_any_schedule():
    logits, ids = jr.normal(jr.key(11), (16, 7)), jr.randint(jr.key(12), (16,), 0, 7)
    exact = -float(jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(16), ids]))
    options = {"label_smoothing": 0.0, "label_dropout": 0.0, "weighting": "mdlm"}
    for schedule in ("cosine", "linear", "power3", "arccos"):
        one = lambda key, name=schedule: masked_loss(Independent(logits), ids, LABEL, schedule=name, **options, key=key)
        found = jax.vmap(one)(jr.split(jr.key(13), 20_000))
        assert float(found.loss.sum() / found.masked.sum()) == pytest.approx(exact, rel=0.03), schedule
        assert (found.masked == 16).all()
    with pytest.raises(ValueError, match="weighting must be one of mdlm, none: got 'elbo'"):
        masked_loss(Independent(logits), ids, LABEL, **options | {"weighting": "elbo"}, key=jr.key(0))


def test_label_dropout_hides_the_label(model):
    ids = jr.randint(jr.key(9), (16,), 0, 7)
    always = lambda label: masked_loss(model, ids, jnp.asarray(label), label_dropout=0.999999, key=jr.key(10))[0]
    assert always(0) == always(1)
    never = lambda label: masked_loss(model, ids, jnp.asarray(label), label_dropout=0.0, key=jr.key(10))[0]
    assert never(0) != never(1)


def test_pixels_make_the_round_trip():
    tokenizer = PixelTokenizer(3, 2, 1, codes=17)
    ids = jnp.asarray([0, 16, 5, 9, 1, 15])
    np.testing.assert_array_equal(tokenizer.encode(tokenizer.decode(ids)), ids)
    image = jr.uniform(jr.key(0), (3, 2, 1), minval=-1, maxval=1)
    assert jnp.max(jnp.abs(tokenizer.decode(tokenizer.encode(image)) - image)) <= 1 / 16 + 1e-6
    with pytest.raises(ValueError, match=r"ids must be in \[0, codes=17\)"):
        tokenizer.decode(ids + 1)
