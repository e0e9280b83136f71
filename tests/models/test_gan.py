"""Generators and discriminators against PyTorch's arithmetic on the same weights (tests/oracles/gan.py), and by
properties.
"""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.augment.differentiable import DrawnParts, diff_augment
from eqxgen.configs import DCGANConfig, R3GANConfig, StyleGAN2Config
from eqxgen.losses.penalties import path_lengths, path_penalty, slopes, zero_centred
from eqxgen.models.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from eqxgen.models.gan.deviation import with_deviation
from eqxgen.models.gan.latents import between
from eqxgen.models.gan.modulated import modulated_convolution
from eqxgen.models.gan.r3gan import R3GANDiscriminator, R3GANGenerator
from eqxgen.models.gan.stylegan2 import StyleGAN2Generator
from eqxgen.models.gan.stylegan2_discriminator import StyleGAN2Discriminator
from eqxgen.nn.conv.convolution import convolve
from tests import oracles
from tests.full import full
from tests.oracles.gan import CLASSES, inputs, weights
from train.params.paths import leaves

KEPT, GIVEN = oracles.load("gan"), {name: jnp.asarray(array) for name, array in inputs().items()}
SMALL = {"latent_dim": 8, "mapping": 2, "width": 64, "max_width": 12}
NOISE = tuple(GIVEN[f"noise{place}"] for place in range(5))
KEY = jr.key(0)


def loaded(model, shapes):
    """The model with the drawn weights of its paths, of which each has one."""
    arrays = weights(json.loads(str(shapes)))
    paths = [path for path, _ in leaves(eqx.filter(model, eqx.is_array))]
    assert set(paths) == set(arrays)
    own, static = eqx.partition(model, eqx.is_array)
    flat, structure = jax.tree.flatten(own)
    assert [x.shape for x in flat] == [arrays[path].shape for path in paths]
    return eqx.combine(jax.tree.unflatten(structure, [jnp.asarray(arrays[path]) for path in paths]), static)


def close(found, wanted, share=1e-4):
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=share * scale)


@pytest.mark.parametrize(("form", "classes"), [("skip", CLASSES), pytest.param("residual", None, marks=full)])
def test_a_generator_and_its_path_length_are_those_of_pytorch(form, classes):
    kept = KEPT[f"generator, {form}"]
    net = StyleGAN2Generator(16, 3, classes, StyleGAN2Config(**SMALL, generator=form), key=KEY)
    net = loaded(net, kept["shapes"])

    @eqx.filter_jit
    def run(net):
        labels = None if classes is None else GIVEN["labels"]
        first = jax.vmap(net.style)(GIVEN["latents"], labels)
        each = lambda style: jnp.broadcast_to(style, (net.layers, 8))
        image = jax.vmap(lambda styles: net.synthesis(styles, noise=NOISE))
        cut = jax.vmap(lambda style: net.truncated(style, GIVEN["mean"], 0.7))(first[:2])
        fixed = jax.lax.stop_gradient(jax.vmap(each)(first))

        def penalty(net):
            synthesis = jax.vmap(lambda styles: net.synthesis(styles, noise=NOISE))
            lengths = path_lengths(synthesis, fixed, 16 * GIVEN["path_noise"])
            found, _ = path_penalty(lengths, jnp.zeros(()), jnp.mean(lengths))
            return jnp.mean(found), lengths

        (found, lengths), slope = eqx.filter_value_and_grad(penalty, has_aux=True)(net)
        return first, image(jax.vmap(each)(first)[:2]), image(jax.vmap(each)(cut)), lengths, found, slope

    style, image, truncated, lengths, penalty, slope = run(net)
    close(style, kept["style"])
    close(image, kept["image"])
    close(truncated, kept["truncated"])
    close(lengths, kept["lengths"], 1e-3)
    close(penalty, kept["penalty"], 1e-3)
    close(slope.levels[1].convs[0].weight, kept["slope_first"], 1e-3)
    close(slope.levels[0].convs[0].modulation.weight, kept["slope_style"], 1e-3)


@pytest.mark.parametrize(
    ("form", "classes"), [("residual", CLASSES), pytest.param("skip", None, marks=full), ("plain", None)]
)
def test_a_discriminator_and_its_penalty_are_those_of_pytorch(form, classes):
    kept = KEPT[f"discriminator, {form}"]
    config = StyleGAN2Config(**SMALL, discriminator=form, group=int(kept["group"]))
    net = loaded(StyleGAN2Discriminator(16, 3, classes, config, key=KEY), kept["shapes"])
    labels = None if classes is None else GIVEN["labels"]

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def run(net):
        logits, _, gradient = slopes(lambda images: (net(images, labels), None), GIVEN["images"])
        penalty = zero_centred(gradient)
        return jnp.mean(penalty), (logits, penalty)

    (_, (logits, penalty)), slope = run(net)
    close(logits, kept["logits"])
    close(penalty, kept["penalty"], 1e-3)
    close(slope.levels[0].convs[0].weight, kept["slope_first"], 1e-3)
    close(slope.last.weight, kept["slope_last"], 1e-3)


R3, DC = R3GANConfig(8, (8, 6), (4, 2), (1, 1), label_dim=5), DCGANConfig(8, width=4, label_dim=5)


def test_r3gan_is_that_of_pytorch():
    net = loaded(R3GANGenerator(8, 3, CLASSES, R3, key=KEY), KEPT["r3gan generator"]["shapes"])
    close(net.batch(GIVEN["latents"][:2], GIVEN["labels"][:2])[0], KEPT["r3gan generator"]["out"])
    net = loaded(R3GANDiscriminator(8, 3, CLASSES, R3, key=KEY), KEPT["r3gan discriminator"]["shapes"])
    close(net.batch(GIVEN["images"][:, ::2, ::2], GIVEN["labels"])[0], KEPT["r3gan discriminator"]["out"])


def test_dcgan_in_training_is_that_of_pytorch():
    net = loaded(DCGANGenerator(16, 3, CLASSES, DC, key=KEY), KEPT["dcgan generator"]["shapes"])
    ones = jnp.ones(len(GIVEN["labels"]))
    made, _ = net.batch(GIVEN["latents"], GIVEN["labels"], net.init_state(), weight=ones)
    close(made[:2], KEPT["dcgan generator"]["out"])
    net = loaded(DCGANDiscriminator(16, 3, CLASSES, DC, key=KEY), KEPT["dcgan discriminator"]["shapes"])
    logits, state = net.batch(GIVEN["images"], GIVEN["labels"], net.init_state(), weight=ones)
    close(logits, KEPT["dcgan discriminator"]["out"])
    assert int(state[0].batches) == 1


def test_diffaugment_of_given_numbers_is_that_of_pytorch():
    kept = KEPT["diffaugment"]
    none = jnp.zeros((len(kept["hole"]), 4)), jnp.zeros((len(kept["hole"]), 2), int)
    drawn = DrawnParts(jnp.asarray(kept["color"]), jnp.asarray(kept["shift"]), jnp.asarray(kept["hole"]), *none)
    made = jax.vmap(lambda image, drawn: diff_augment(image, drawn=drawn))(GIVEN["images"], drawn)
    close(made, kept["out"])


@pytest.mark.parametrize("resample", [None, "up"])
@pytest.mark.parametrize("side", [5, 8])
def test_a_modulated_convolution_is_one_with_a_kernel_of_the_example(resample, side):
    keys = jr.split(KEY, 3)
    x, weight = jr.normal(keys[0], (side, side, 6)), jr.normal(keys[1], (3, 3, 6, 4))
    style = jr.normal(keys[2], (6,))
    kernel = weight * style[None, None, :, None]
    kernel /= jnp.sqrt(jnp.sum(kernel**2, axis=(0, 1, 2), keepdims=True) + 1e-8)
    plain = modulated_convolution(x, kernel, jnp.ones(6), demodulate=False, resample=resample)
    found = modulated_convolution(x, weight, style, resample=resample)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    if resample is None:
        np.testing.assert_allclose(plain, convolve(x, kernel, padding=(1, 1)), atol=1e-5)


def test_half_precision_does_not_overflow_where_styles_are_large():
    x, weight = jnp.full((8, 8, 64), 100.0, jnp.float16), jr.normal(KEY, (3, 3, 64, 4))
    style = jnp.full(64, 3000.0, jnp.float16)
    found = modulated_convolution(x, weight.astype(jnp.float16), style)
    wide = modulated_convolution(x.astype(jnp.float32), weight, style.astype(jnp.float32))
    assert jnp.isfinite(found).all()
    np.testing.assert_allclose(found, wide, atol=0.02 * float(jnp.abs(wide).max()))


@pytest.mark.parametrize(("batch", "group", "whole"), [(6, 3, 3), (6, 4, 6), (3, 4, 3), (5, 2, 5)])
def test_groups_are_strided_and_a_group_that_does_not_divide_the_batch_is_all_of_it(batch, group, whole):
    x = jr.normal(KEY, (batch, 2, 2, 4))
    found = with_deviation(x, group)[..., 4:]
    apart = batch // whole
    for place in range(batch):
        own = np.asarray(x)[place % apart :: apart]
        np.testing.assert_allclose(found[place], np.sqrt(own.var(0) + 1e-8).mean(), rtol=1e-5)


def test_truncation_moves_a_style_towards_the_mean_and_mixing_has_two():
    net = StyleGAN2Generator(8, 1, None, StyleGAN2Config(**SMALL), key=KEY)
    latent, mean = jr.normal(KEY, (8,)), jnp.ones(8)
    style = net.style(latent)
    np.testing.assert_array_equal(net.truncated(style, mean, 0.0), mean)
    np.testing.assert_allclose(net.truncated(style, mean, 1.0), style, rtol=1e-5)
    styles, first = net.styles(latent[None], None, mixing=1.0, keys=jr.split(KEY, 1))
    changes = np.abs(np.diff(np.asarray(styles[0]), axis=0)).sum(1) > 0
    assert changes.sum() == 1
    np.testing.assert_array_equal(styles[0, 0], first[0])


def test_latents_between_two_keep_their_length():
    first, second = jr.normal(KEY, (2, 100))
    second *= jnp.linalg.norm(first) / jnp.linalg.norm(second)
    for share in (0.0, 0.3, 1.0):
        found = between(first, second, jnp.asarray(share))
        assert jnp.linalg.norm(found) == pytest.approx(float(jnp.linalg.norm(first)), rel=1e-5)
    np.testing.assert_allclose(between(first, first, jnp.asarray(0.5)), first, rtol=1e-6)


WRONG = [
    (lambda: StyleGAN2Generator(12, 3, None, StyleGAN2Config(), key=KEY), "power of two of at least 4 .*: got 12"),
    (lambda: StyleGAN2Discriminator(2, 3, None, StyleGAN2Config(), key=KEY), "power of two of at least 4 .*: got 2"),
    (lambda: DCGANGenerator(7, 3, None, DCGANConfig(), key=KEY), "must be even and above dcgan.base=4: got 7"),
    (lambda: R3GANGenerator(20, 3, None, R3GANConfig(), key=KEY), "4 stages must halve the image evenly .*: got 20"),
    (lambda: R3GANConfig(groups=(5, 96, 96, 96)), "r3gan.groups must divide the expanded width 1536 .*: got 5"),
    (lambda: StyleGAN2Config(generator="resnet"), "stylegan2.generator must be one of skip, residual: got 'resnet'"),
]


@pytest.mark.parametrize(("make", "says"), WRONG)
def test_sizes_that_cannot_be_are_one_line(make, says):
    with pytest.raises(ValueError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_label_for_a_model_without_classes_is_an_error_and_so_is_none_for_one_with():
    net = R3GANGenerator(8, 3, None, R3, key=KEY)
    with pytest.raises(ValueError, match="label must be None for a model without classes: got one"):
        net(jnp.zeros(8), jnp.asarray(1))
    net = R3GANGenerator(8, 3, 2, R3, key=KEY)
    with pytest.raises(ValueError, match="label must be given for a model of classes: got None"):
        net(jnp.zeros(8))
