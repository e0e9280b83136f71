"""Random changes of images: their pixel arithmetic against definitions written out, and what they depend on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eqxgen.augment import mixing
from train import maskgit
from train.data import AugmentConfig, DataConfig, DataError, Order, Part, load
from train.data.images.augment import (
    OPERATIONS,
    Augment,
    centre_crop,
    colour_jitter,
    mirror,
    operate,
    padded_crop,
    rand_augment,
    resized_crop,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (64, 12, 10, 3), np.uint8)
ALL = AugmentConfig(flip=True, crop="resized", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, operations=2)


def part(step=0, count=64, first=0):
    return Part(step, np.arange(first, first + count, dtype=np.int32), np.zeros(count, np.int64))


def draws(count, seed=0):
    return np.random.default_rng(seed).random((64, count))


def test_a_mirror_image_has_its_columns_reversed_and_its_channels_not():
    square = RNG.integers(0, 256, (64, 3, 3, 3), np.uint8)
    numbers = draws(1)
    mirrored = mirror(square, numbers)
    for image, changed, number in zip(square, mirrored, numbers[:, 0]):
        expected = [[image[row, 2 - column] for column in range(3)] for row in range(3)] if number < 0.5 else image
        np.testing.assert_array_equal(changed, expected)
    assert 0.3 < (numbers < 0.5).mean() < 0.7


def test_a_padded_crop_is_a_window_of_the_padded_image():
    for padding, mode in (("reflect", {"mode": "reflect"}), ("zeros", {})):
        found = padded_crop(IMAGES, draws(2), 3, padding)
        assert found.shape == IMAGES.shape
        corners = set()
        for image, changed, (down, along) in zip(IMAGES, found, draws(2)):
            larger = np.pad(image, ((3, 3), (3, 3), (0, 0)), **mode)
            top, left = int(down * 7), int(along * 7)
            corners.add((top, left))
            np.testing.assert_array_equal(changed, larger[top : top + 12, left : left + 10])
        assert len(corners) > 20


def test_a_centre_crop_is_the_middle():
    np.testing.assert_array_equal(centre_crop(IMAGES, 4, 4), IMAGES[:, 4:8, 3:7])
    for size in ((13, 4), (4, 11), (0, 4)):
        with pytest.raises(ValueError, match=r"from 1 to \(12, 10\), those of the images"):
            centre_crop(IMAGES, *size)


def test_a_resized_crop_shows_a_window_of_the_allowed_area_and_shape():
    slope = np.broadcast_to(np.arange(0, 200, 2, np.uint8)[None, None, :, None], (64, 100, 100, 1))
    found = resized_crop(slope, draws(40), 0.25)
    assert found.shape == slope.shape
    widths = (found[:, 50, -1, 0].astype(float) - found[:, 50, 0, 0]) / 2 + 1
    assert widths.max() <= 101
    assert widths.min() >= 100 * np.sqrt(0.25 * 3 / 4) - 2
    assert np.ptp(widths) > 30
    np.testing.assert_array_equal(resized_crop(IMAGES, np.zeros((64, 40)), 1.0)[0].shape, IMAGES[0].shape)


def changed_by(name, magnitude, sign=1, image=IMAGES[0]):
    return np.asarray(operate(Image.fromarray(image), name, magnitude, sign)).astype(int)


def rounded(values):
    return np.clip(np.floor(values + 0.5), 0, 255)


def test_autocontrast_stretches_each_channel_to_both_ends():
    image = RNG.integers([40, 50, 20], [200, 210, 180], (16, 16, 3)).astype(np.uint8)
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    found = changed_by("autocontrast", 9, image=image)
    assert np.abs(found - (image - low) * 255 / (high - low)).max() <= 1
    assert (found.min((0, 1)) == 0).all()
    assert (found.max((0, 1)) == 255).all()


def test_sharpness_blends_with_a_weighted_mean_of_the_neighbours_inside_the_border():
    image = IMAGES[0].astype(float)
    weights = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = image.copy()
    for row in range(1, 11):
        for column in range(1, 9):
            smooth[row, column] = rounded(
                (image[row - 1 : row + 2, column - 1 : column + 2] * weights[..., None]).sum((0, 1))
            )
    for sign in (1, -1):
        factor = 1 + 0.9 * 0.5 * sign
        expected = np.clip(smooth + factor * (image - smooth), 0, 255)
        assert np.abs(changed_by("sharpness", 15, sign) - expected).max() <= 1


def test_the_other_operations_on_levels_equal_their_definitions():
    image = IMAGES[0].astype(float)
    grey = np.floor(image @ [0.299, 0.587, 0.114] + 0.5)[..., None]
    for name, plain in (
        ("brightness", 0 * image),
        ("saturation", grey),
        ("contrast", 0 * image + np.floor(grey.mean() + 0.5)),
    ):
        for sign in (1, -1):
            expected = np.clip(plain + (1 + 0.9 * 0.3 * sign) * (image - plain), 0, 255)
            assert np.abs(changed_by(name, 9, sign) - expected).max() <= 2, name
    np.testing.assert_array_equal(changed_by("posterize", 30), IMAGES[0] & 0b11110000)
    np.testing.assert_array_equal(changed_by("solarize", 15), np.where(IMAGES[0] < 128, IMAGES[0], 255 - IMAGES[0]))
    np.testing.assert_array_equal(changed_by("solarize", 0), np.where(IMAGES[0] < 255, IMAGES[0], 0))
    np.testing.assert_array_equal(changed_by("identity", 30), IMAGES[0])


def test_the_operations_on_places_move_pixels_as_far_as_they_say():
    right = changed_by("translate_x", 30, -1)
    step = int(150 / 331 * 10)
    np.testing.assert_array_equal(right[:, step:], IMAGES[0][:, : 10 - step])
    assert not right[:, :step].any()
    np.testing.assert_array_equal(
        changed_by("translate_y", 30, 1)[: 12 - int(150 / 331 * 12)], IMAGES[0][int(150 / 331 * 12) :]
    )
    sheared = changed_by("shear_x", 30, 1)
    for row in range(12):
        shift = int(0.3 * (row + 0.5) + 0.5)
        np.testing.assert_array_equal(sheared[row, : 10 - shift - 1], IMAGES[0][row, shift:9])
    np.testing.assert_array_equal(changed_by("rotate", 0), IMAGES[0])


def test_every_operation_takes_grey_and_colour_and_keeps_the_shape():
    for image in (IMAGES, IMAGES[..., :1]):
        for index in range(len(OPERATIONS)):
            numbers = np.full((64, 2), (index + 0.5) / len(OPERATIONS))
            found = rand_augment(image, numbers, 20)
            assert (found.shape, found.dtype) == (image.shape, np.uint8)
        found = colour_jitter(image, draws(8), 0.5, 0.5, 0.5, 0.2)
        assert (found.shape, found.dtype) == (image.shape, np.uint8)
        assert (found != image).any((1, 2, 3)).mean() > 0.9


def test_changes_depend_on_seed_step_and_place_alone():
    augment = Augment(ALL, 3)
    whole = augment(IMAGES, part(5))
    np.testing.assert_array_equal(augment(IMAGES[40:], part(5, 24, 40)), whole[40:])
    np.testing.assert_array_equal(augment(IMAGES[7:8], part(5, 1, 7)), whole[7:8])
    for other in (Augment(ALL, 4)(IMAGES, part(5)), augment(IMAGES, part(6))):
        assert (other != whole).any((1, 2, 3)).mean() > 0.9
    np.testing.assert_array_equal(Augment(AugmentConfig(), 3)(IMAGES, part()), IMAGES)


def test_colours_of_images_with_few_levels_are_left_alone():
    digits = load(DataConfig())
    Augment.of(AugmentConfig(flip=True, crop="padded", pad=1), 0, digits)
    for wrong in (AugmentConfig(hue=0.1), AugmentConfig(operations=1)):
        with pytest.raises(DataError, match="digits: expected 256 grey levels, to change colours, got 17"):
            Augment.of(wrong, 0, digits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad": 0}, "data.augment.pad must be between 1 and 4096: got 0"),
        ({"smallest": 1.5}, "data.augment.smallest must be between 0.0 and 1.0: got 1.5"),
        ({"hue": 0.6}, "data.augment.hue"),
        ({"brightness": float("nan")}, "data.augment.brightness must be .*: got nan"),
        ({"operations": -1}, "data.augment.operations"),
        ({"magnitude": 31}, "data.augment.magnitude must be between 0 and 30: got 31"),
    ],
)
def test_a_change_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**changes)


def test_maskgit_takes_mirror_images_alone():
    preset = maskgit.PRESETS["cifar10"]
    assert preset.data.augment == AugmentConfig(flip=True)
    with pytest.raises(ValueError, match="this recipe takes flip alone"):
        dataclasses.replace(preset, data=DataConfig("cifar10", augment=ALL))


def test_mixup_and_cutmix_give_each_class_the_weight_of_its_pixels():
    chosen = jnp.asarray(Order(0, 8, 8).part(0).example, jnp.int32)
    labels, targets = chosen.astype(jnp.float32), jax.nn.one_hot(chosen, 8)
    images = jnp.broadcast_to(labels[:, None, None, None], (8, 20, 10, 1))
    mixed, weights = mixing.mixup(images, targets, 0.3)
    np.testing.assert_allclose(mixed[:, 0, 0, 0], 0.3 * labels + 0.7 * labels[::-1], rtol=1e-6)
    np.testing.assert_allclose(weights @ jnp.arange(8.0), mixed[:, 0, 0, 0], rtol=1e-6)
    for centre in ([0.5, 0.5], [0.0, 0.99], [0.3, 0.1]):
        mixed, weights = mixing.cutmix(images, targets, 0.6, jnp.array(centre))
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), weights @ jnp.arange(8.0), rtol=1e-5)
        assert set(np.unique(mixed[0])) <= {float(labels[0]), float(labels[-1])}
    assert weights[0].max() < 1


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.4, 0.4)])
def test_a_batch_is_mixed_by_one_share_of_a_beta_distribution(mixup, cutmix):
    images, targets = jnp.arange(2.0)[:, None, None, None] * jnp.ones((2, 32, 32, 1)), jnp.eye(2)
    draw = jax.jit(jax.vmap(lambda key: mixing.mixed(images, targets, mixup, cutmix, key=key)[1][0, 0]))
    shares = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    assert np.all((shares >= 0) & (shares <= 1))
    if cutmix == 0:
        assert abs(shares.mean() - 0.5) < 0.06
        assert abs(shares.var() - 1 / (4 * (2 * mixup + 1))) < 0.02
    with pytest.raises(ValueError, match=r"must be at least 0 and finite, and one above 0: got 0\.0 and 0\.0"):
        mixing.mixed(images, targets, 0.0, 0.0, key=jax.random.key(0))
