"""What losses of labels, pairs and pixels refuse, in one line; nothing is broadcast, cast or cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxgen.augment.mixing import cutmix, mixed, mixup
from eqxgen.losses.contrastive import image_text_nce, info_nce, sigmoid_pairs
from eqxgen.losses.labels import smoothed_cross_entropy, soft_cross_entropy
from eqxgen.losses.segmentation import dice_loss, pixel_cross_entropy
from eqxgen.losses.tokens import cross_entropy

pytestmark = pytest.mark.usefixtures("unchecked")
ONES, SCALE, KEY = jnp.ones, jnp.asarray(1.0), jax.random.key(0)
IMAGES, LABELS = jnp.ones((2, 4, 4, 1)), jnp.ones((2, 3))
PAIRS = {
    "info_nce": info_nce,
    "image_text_nce": lambda *features, **options: image_text_nce(*features, SCALE, **options),
    "sigmoid_pairs": lambda *features, **options: sigmoid_pairs(*features, SCALE, SCALE, **options),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        ((4, 8), (1, 8), {}, r"must have one shape: got \(4, 8\) and \(1, 8\)"),
        ((4, 8), (4, 1), {}, r"must have one shape: got \(4, 8\) and \(4, 1\)"),
        ((8,), (8,), {}, r"must be \(batch, dim=.*\): got shape \(8,\)"),
        ((4, 8), (4, 8), {"weight": ONES(1)}, r"weight must be \(batch=4,\): got shape \(1,\)"),
        ((4, 8), (4, 8), {"group": ONES((4, 1), int)}, r"group must be \(batch=4,\): got shape \(4, 1\)"),
    ],
)
def test_vectors_of_pairs_are_of_one_shape_with_a_number_for_each(name, first, second, options, message):
    if name == "info_nce" and "group" in options:
        pytest.skip("it has no groups")
    with pytest.raises(ValueError, match=message):
        PAIRS[name](ONES(first), ONES(second), **options)


@pytest.mark.parametrize("name", PAIRS)
def test_a_batch_of_padding_has_no_loss_and_no_gradient(name):
    features = jax.random.normal(KEY, (2, 4, 8))
    run = lambda features: jnp.sum(PAIRS[name](*features, weight=jnp.zeros(4)))
    loss, gradient = jax.value_and_grad(run)(features)
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_positive_and_finite(temperature):
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        info_nce(ONES((2, 3)), ONES((2, 3)), temperature=temperature)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cross_entropy(ONES((4, 3)), ONES((1,), int)),
            r"targets must be one for each row .* \(4,\): got \(1,\)",
        ),
        (lambda: cross_entropy(ONES((4, 3)), ONES(4)), "targets must be integers: got float32"),
        (lambda: smoothed_cross_entropy(ONES((4, 3)), ONES((4, 1), int)), "targets must be one for each row"),
        (lambda: smoothed_cross_entropy(ONES((4, 3)), ONES(4, int), 1.0), r"smoothing must be in \[0, 1\): got 1.0"),
        (lambda: soft_cross_entropy(ONES((4, 3)), ONES((4, 3)), -0.1), r"smoothing must be in \[0, 1\): got -0.1"),
        (lambda: soft_cross_entropy(ONES((4, 3)), ONES(3)), "logits and targets must have one shape"),
        (
            lambda: dice_loss(ONES((4, 4, 2)), ONES((4, 1), int)),
            r"labels must be \(height=4, width=4\): got .*\(4, 1\)",
        ),
        (lambda: dice_loss(ONES((2, 4, 4, 2)), ONES((2, 4, 4), int)), r"x must be \(height, width, channels\)"),
        (lambda: dice_loss(ONES((4, 4, 2)), ONES((4, 4), int), -1.0), "smooth must be at least 0 and finite: got -1.0"),
        (lambda: pixel_cross_entropy(ONES((4, 4, 2)), ONES((4, 1), int)), "targets must be one for each row"),
        (lambda: mixup(IMAGES, ONES((2, 3), int), 0.5), "targets must be of a floating-point type: got int32"),
        (lambda: mixup(IMAGES.astype(jnp.uint8), LABELS, 0.5), "images must be of a floating-point type: got uint8"),
        (lambda: mixup(IMAGES, LABELS[:1], 0.5), "targets .batch, classes., as many"),
        (lambda: mixup(IMAGES, LABELS, 1.5), r"share must be a probability, in \[0, 1\]: got 1.5"),
        (lambda: cutmix(IMAGES, ONES((2, 3), int), 0.5, ONES(2) / 2), "targets must be of a floating-point type"),
        (lambda: mixed(IMAGES, LABELS, float("nan"), 0.0, key=KEY), "must be at least 0 and finite, and one above 0"),
        (lambda: mixed(IMAGES, LABELS, 0.0, 0.0, key=KEY), "must be at least 0 and finite, and one above 0"),
    ],
)
def test_labels_masks_and_mixtures_are_refused_before_they_are_broadcast_or_cut(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_share_may_be_traced():
    found = jax.jit(lambda share: mixup(IMAGES, LABELS, share)[0])(0.25)
    np.testing.assert_allclose(found, IMAGES)
