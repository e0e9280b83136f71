"""MAGE: its masks, its two ways to the logits, generation, views, and the contrastive loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from eqxgen.configs import MAGEConfig, MaskedDecoding, MaskRatio
from eqxgen.decoding.masked import generate
from eqxgen.losses.contrastive import info_nce
from eqxgen.losses.mage import draw_masks, draw_ratio, mage_loss, masks_of, shifted
from eqxgen.models import MAGE
from eqxgen.protocols import MaskedModel
from tests.full import full
from tests.models.model_rows import SMALL_MAGE


@pytest.fixture(scope="module")
def model():
    net = eqx.nn.inference_mode(eqx.filter_jit(MAGE)(9, 7, 0, SMALL_MAGE, key=jr.key(0)))
    return jax.tree.map(lambda x: 8 * x if eqx.is_inexact_array(x) and x.ndim > 1 else x, net)


def test_shares_are_those_of_the_truncated_normal():
    for ratio in (MaskRatio(), MaskRatio(mean=0.3, deviation=0.1, least=0.25, most=0.6)):
        found = np.asarray(jax.vmap(lambda key, r=ratio: draw_ratio(r, key=key))(jr.split(jr.key(0), 4000)))
        ends = ((end - ratio.mean) / ratio.deviation for end in (ratio.least, ratio.most))
        right = scipy.stats.truncnorm(*ends, loc=ratio.mean, scale=ratio.deviation)
        assert ratio.least <= found.min()
        assert found.max() <= ratio.most
        assert scipy.stats.kstest(found, right.cdf).pvalue > 0.01


def test_dropped_tokens_are_masked_and_as_many_as_the_least_share():
    for tokens, ratio, dropped in (
        (9, MaskRatio(), 5),
        (64, MaskRatio(least=0.0), 0),
        (7, MaskRatio(least=0.3, most=1.0), 3),
    ):
        kept, masked = jax.jit(jax.vmap(lambda key, n=tokens, r=ratio: draw_masks(n, r, key=key)))(
            jr.split(jr.key(0), 50)
        )
        assert kept.shape == (50, tokens - dropped)
        assert (np.diff(kept, axis=1) > 0).all()
        hidden = np.ones((50, tokens), bool)
        np.put_along_axis(hidden, np.asarray(kept), False, axis=1)
        assert (masked | ~hidden).all()
        assert masked.sum(axis=1).min() >= max(1, dropped)
        assert len(set(masked.sum(axis=1).tolist())) > 1
    kept, masked = masks_of(jnp.asarray([0.3, 0.1, 0.9, 0.2]), 3, 2)
    assert (kept.tolist(), masked.tolist()) == ([0, 2], [True, True, False, True])


def test_with_every_token_kept_the_loss_is_that_of_the_logits_of_generation(model):
    ids, masked = jnp.arange(9) % 7, jnp.arange(9) % 2 == 0
    logits = eqx.filter_jit(model)(jnp.where(masked, model.mask_id, ids))
    log_prob = np.asarray(jax.nn.log_softmax(logits))[masked]
    right = -0.8 * log_prob[np.arange(5), ids[masked]] - 0.2 * log_prob.mean(axis=1)
    masks = masks_of(jnp.where(masked, 0.0, 1.0), 5, 0)
    found = eqx.filter_jit(mage_loss)(model, ids, jnp.asarray(0), masks, label_smoothing=0.2, label_dropout=0.0)
    np.testing.assert_allclose(found.loss, right.mean(), rtol=1e-5)
    assert float(found.masked) == 5
    np.testing.assert_allclose(found.correct, np.mean(log_prob.argmax(axis=1) == np.asarray(ids[masked])), rtol=1e-6)
    assert found.vector is None


def test_tokens_that_the_encoder_does_not_see_change_no_logit(model):
    masks = masks_of(jr.uniform(jr.key(1), (9,)), 6, 5)
    logits = eqx.filter_jit(
        lambda ids: model.decoded(model.encoded(ids, jnp.asarray(0), kept=masks.kept), masks.masked, kept=masks.kept)
    )
    one, dropped = jnp.arange(9) % 7, ~jnp.isin(jnp.arange(9), masks.kept)
    other = jnp.where(dropped, (one + 1) % 7, one)
    np.testing.assert_array_equal(logits(one), logits(other))
    assert not np.array_equal(logits(one), logits(jnp.where(dropped, one, (one + 1) % 7)))


def test_images_without_a_class_are_drawn_by_the_null_label_and_a_class_is_an_error(model):
    assert isinstance(model, MaskedModel)
    ids = generate(model, model.null_label, MaskedDecoding(steps=3), key=jr.key(0))
    assert ((ids >= 0) & (ids < 7)).all()
    with pytest.raises(ValueError, match=r"label must be in \[0, classes \+ 1 null=1\)"):
        generate(model, 1, MaskedDecoding(steps=3), key=jr.key(0))


def test_features_have_mean_zero_and_length_of_the_root_of_their_number(model):
    of = eqx.filter_jit(lambda ids: model.features(ids))
    found = np.asarray(of(jnp.asarray([1, 2, 3, 4, 5, 6, 0, 1, 2])))
    assert found.shape == (16,)
    np.testing.assert_allclose([found.mean(), np.mean(found**2)], [0, 1], atol=1e-4)
    assert not np.allclose(found, of(jnp.asarray([2, 1, 3, 4, 5, 6, 0, 1, 2])))


@full
def test_the_head_moves_the_table_only_where_the_config_says_so():
    masks = masks_of(jnp.arange(4.0), 4, 4)  # the encoder sees the label alone

    @eqx.filter_jit
    def slope(tied):
        net = MAGE(4, 5, 2, MAGEConfig(8, 1, 2, 8, 8, 1, 2, 8, dropout=0.0, head_gradient=tied), key=jr.key(0))
        loss = lambda net: mage_loss(net, jnp.arange(4), jnp.asarray(1), masks, label_dropout=0.0).loss
        return jnp.abs(eqx.filter_grad(loss)(net).encoder.embedding.weight).sum(axis=1) > 0

    assert slope(False).tolist() == [False] * 5 + [False, False, True, False]
    assert slope(True).tolist() == [True] * 5 + [False, False, True, False]


def test_info_nce_is_the_closed_form_without_what_weighs_nothing():
    first, second = np.asarray(jr.normal(jr.key(0), (2, 4, 3)), np.float64)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)

    def right(count):
        views = np.concatenate([unit(first[:count]), unit(second[:count])])
        scores = views @ views.T / 0.3
        others = np.where(np.eye(2 * count, dtype=bool), -np.inf, scores)
        pairs = np.roll(scores, count, axis=1).diagonal()
        each = np.log(np.exp(others).sum(axis=1)) - pairs
        return (each[:count] + each[count:]) / 2

    of = lambda **given: info_nce(
        jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32), temperature=0.3, **given
    )
    np.testing.assert_allclose(of(), right(4), rtol=1e-5)
    np.testing.assert_allclose(of(weight=jnp.asarray([1.0, 1, 1, 0]))[:3], right(3), rtol=1e-5)
    with pytest.raises(ValueError, match=r"temperature must be positive and finite: got 0\.0"):
        info_nce(jnp.ones((2, 3)), jnp.ones((2, 3)), temperature=0.0)


def test_a_shifted_view_is_the_grid_moved_with_its_edges_repeated():
    ids = jnp.arange(12)
    padded = np.pad(np.arange(12).reshape(3, 4), 1, mode="edge")
    wanted = {tuple(padded[i : i + 3, j : j + 4].ravel()) for i in range(3) for j in range(3)}
    found = jax.vmap(lambda key: shifted(ids, (3, 4), 1, key=key))(jr.split(jr.key(0), 200))
    assert {tuple(row) for row in found.tolist()} == wanted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskRatio(least=-0.1), r"mask\.least and mask\.most must be in \[0, 1\], in this order: got -0\.1 and 1\.0"),
        (lambda: MaskRatio(most=1.1), r"mask\.least and mask\.most must be in \[0, 1\]"),
        (lambda: MaskRatio(mean=1.2), r"mask\.mean must be in \[0, 1\]: got 1\.2"),
        (lambda: MaskRatio(deviation=0.0), r"mask\.deviation must be positive: got 0\.0"),
        (lambda: MAGEConfig(decoder_heads=5), r"model\.decoder_heads must divide model\.decoder_dim"),
        (lambda: MAGEConfig(projection=-1), r"model\.projection must be at least 0"),
    ],
)  # fmt: skip
def test_a_size_or_share_that_cannot_be_is_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()
