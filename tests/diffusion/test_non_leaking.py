"""EDM's augmentations: labels that describe the image, and an image that labels of zero leave alone."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from eqxgen.augment.non_leaking import SHIFT, augment, warped

IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 2)), jnp.float32)


def test_without_probability_only_the_flip_of_x_is_left_and_its_label_tells():
    found = jax.vmap(lambda key: augment(IMAGE, 0.0, key=key))(jr.split(jr.key(0), 12))
    assert set(np.unique(found.labels[:, 0]).tolist()) == {0, 1}
    assert not np.any(found.labels[:, 1:])
    for image, labels in zip(found.image, found.labels):
        np.testing.assert_allclose(image, IMAGE[:, ::-1] if labels[0] else IMAGE, atol=1e-6)


def test_each_augmentation_is_drawn_at_its_probability():
    labels = np.asarray(jax.vmap(lambda key: augment(IMAGE[:2, :2], 0.3, key=key).labels)(jr.split(jr.key(1), 3000)))
    for column in (2, 4, 7):
        np.testing.assert_allclose(np.mean(labels[:, column] != 0), 0.3, atol=0.03)
    np.testing.assert_allclose(np.mean(labels[:, 1] != 0), 0.15, atol=0.02)
    np.testing.assert_allclose(labels[labels[:, 2] != 0, 2].std(), 1, atol=0.06)
    np.testing.assert_allclose((labels[:, 3] + 1) ** 2 + labels[:, 4] ** 2, 1, atol=1e-5)


def test_a_quarter_turn_and_a_shift_move_pixels_to_their_places():
    square = IMAGE[:, :6]
    turn = jnp.asarray([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(warped(square, turn), np.rot90(square, -1), atol=1e-5)
    shift = jnp.asarray([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(warped(IMAGE, shift)[:, 2:], IMAGE[:, :-2], atol=1e-5)
    assert SHIFT * 8 == 1


def test_half_a_pixel_is_interpolated_and_the_border_is_mirrored():
    row = jnp.arange(8.0).reshape(1, 8, 1) * jnp.ones((4, 1, 1))
    shift = jnp.asarray([[1.0, 0, 0.5], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(warped(row, shift)[0, :, 0], [0.5, *np.arange(7) + 0.5], atol=1e-5)
