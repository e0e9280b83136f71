"""What adversarial nets, their losses and their augmentations refuse, in one line before anything compiles, and what
types they keep.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.augment.adaptive import ada_augment
from eqxgen.augment.differentiable import diff_augment
from eqxgen.configs import DCGANConfig, R3GANConfig, StyleGAN2Config
from eqxgen.losses.adversarial import OBJECTIVES, objective
from eqxgen.losses.penalties import Anchors, between, lecam_penalty, path_penalty, slopes, zero_centred
from eqxgen.models import (
    DCGANDiscriminator,
    DCGANGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)
from eqxgen.models.gan.deviation import with_deviation
from tests.devices import printed

pytestmark = pytest.mark.usefixtures("unchecked")
KEY, ONES = jr.key(0), jnp.ones
SIZES = {
    "dcgan": DCGANConfig(latent_dim=4, width=4, base=2, label_dim=3),
    "r3gan": R3GANConfig(latent_dim=4, widths=(4, 4), groups=(1, 1), blocks=(1, 1), label_dim=3),
    "stylegan2": StyleGAN2Config(latent_dim=4, mapping=1, width=32, max_width=4),
}
NETS = {
    "dcgan": (DCGANGenerator, DCGANDiscriminator),
    "r3gan": (R3GANGenerator, R3GANDiscriminator),
    "stylegan2": (StyleGAN2Generator, StyleGAN2Discriminator),
}


def nets(family: str):
    """Generator and discriminator of images of 8 grey pixels a side in 3 classes."""
    return tuple(kind(8, 1, 3, SIZES[family], key=KEY) for kind in NETS[family])


@pytest.mark.parametrize("family", NETS)
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((2, 8, 8, 1), [[0], [1]], r"must be (a scalar|one for each of 2 images).*got shape \((2, )?1,?\)"),
        ((2, 8, 8, 1), [0.0, 1.0], "labels must be integers: got float64"),
        ((2, 8, 8, 1), None, "label must be given"),
        ((2, 4, 4, 1), [0, 1], r"image must be \(height=8, width=8, channels=1\): got shape \(4, 4, 1\)"),
        ((2, 4, 8, 1), [0, 1], r"image must be .*got shape \(4, 8, 1\)"),
        ((2, 8, 8, 3), [0, 1], r"image must be .*got shape \(8, 8, 3\)"),
    ],
)
def test_a_discriminator_refuses_images_and_labels_of_another_shape(family, images, labels, message):
    net = nets(family)[1]
    with pytest.raises(ValueError, match=message):
        net.batch(jnp.zeros(images), labels, net.init_state())


@pytest.mark.parametrize("family", NETS)
def test_a_generator_refuses_another_latent_and_takes_a_list_of_labels(family):
    net = nets(family)[0]
    run = net.batch if family != "stylegan2" else lambda x, y, _: net.batch(x, y, keys=jr.split(KEY, len(x)))
    with pytest.raises(ValueError, match=r"latent must be \(latent_dim=4,\): got shape \(5,\)"):
        run(jnp.zeros((2, 5)), [0, 1], net.init_state())
    assert run(jnp.zeros((2, 4)), [0, 1], net.init_state())[0].shape == (2, 8, 8, 1)


@pytest.mark.parametrize("which", [0, 1])
def test_dcgan_refuses_states_of_another_number_of_norms(which):
    net = nets("dcgan")[which]
    for states, got in (((), "0"), (None, "NoneType"), (net.init_state() * 2, str(2 * len(net.norms)))):
        with pytest.raises(ValueError, match=rf"states must be those of {len(net.norms)} batch norms.*got {got}"):
            net(ONES(4) if which == 0 else ONES((8, 8, 1)), 0, states)


def test_stylegan2_refuses_truncation_without_a_mean_and_noise_and_mixing_out_of_range():
    net = nets("stylegan2")[0]
    latent, label, styles = ONES(4), jnp.asarray(0), ONES((net.layers, 4))
    cases = [
        (lambda: net.sample(latent, label, None, truncation=0.7, key=KEY), "mean must be the mean style vector.*None"),
        (lambda: net.sample(latent, label, ONES(1), truncation=0.7, key=KEY), r"must have one shape: got \(1,\)"),
        (lambda: net.sample(latent, label, ONES(4), truncation=float("nan"), key=KEY), "truncation must be finite"),
        (lambda: net.styles(latent[None], [0], mixing=0.5), "keys must be given for mixing"),
        (lambda: net.styles(latent[None], [0], mixing=2.0), "mixing must be a probability.*got 2.0"),
        (lambda: net.synthesis(styles, noise=(ONES((1, 1)),) * 3), r"noise must be squares of \[4, 8, 8\] pixels"),
        (lambda: net.synthesis(styles[1:], key=KEY), r"styles must be \(layers=4, latent_dim=4\)"),
        (lambda: net.synthesis(styles), "key must be given for the noise"),
        (lambda: with_deviation(ONES((2, 2, 2, 4)), 0), "group must be an integer of at least 1: got 0"),
        (lambda: with_deviation(ONES((2, 2, 2, 4)), 2, maps=0), "maps must be an integer of at least 1: got 0"),
        (lambda: with_deviation(ONES((2, 2, 2, 4)), 2, maps=3), "maps must divide the channels"),
        (lambda: with_deviation(ONES((0, 2, 2, 4)), 2), "images must be an integer of at least 1: got 0"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_the_probability_of_mixing_may_be_traced():
    net, latents, keys = nets("stylegan2")[0], ONES((2, 4)), jr.split(KEY, 2)
    run = jax.jit(lambda mixing: net.styles(latents, [0, 1], mixing=mixing, keys=keys)[0])
    for mixing in (0.0, 1.0):
        plain = net.styles(latents, [0, 1], mixing=mixing, keys=keys)[0]
        np.testing.assert_allclose(run(mixing), plain, atol=1e-6)
    assert run._cache_size() == 1


@pytest.mark.parametrize("form", OBJECTIVES)
def test_logits_of_two_shapes_are_refused_by_every_form(form):
    losses = objective(form)
    for first, second in ((ONES(4), ONES((4, 1))), (ONES(4), ONES(1))):
        with pytest.raises(ValueError, match=r"must have one shape: got \(4,\)"):
            losses.discriminator(first, second)
        if losses.paired:
            with pytest.raises(ValueError, match="on_fake and on_real must have one shape"):
                losses.generator(first, second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: lecam_penalty(ONES(4), ONES(1), Anchors.zero()),
            "on_real and on_fake must have one shape",
        ),
        (lambda: between(ONES((2, 4, 4, 1)), ONES((1, 4, 4, 1)), ONES(2)), "real and fake must have one shape"),
        (lambda: between(ONES((2, 4, 4, 1)), ONES((2, 4, 4, 1)), ONES(1)), r"share must be \(images=2,\)"),
        (lambda: path_penalty(ONES(4), ONES(4), ONES(())), r"mean must be a scalar: got shape \(4,\)"),
        (lambda: path_penalty(ONES(4), ONES(()), ONES(4)), r"average must be a scalar: got shape \(4,\)"),
        (lambda: ada_augment(ONES((4, 4, 1)), jnp.nan, key=KEY), r"p must be a probability.*got nan"),
        (lambda: ada_augment(ONES((4, 4, 1)), jnp.float32(2), key=KEY), r"p must be a probability.*got 2.0"),
        (lambda: ada_augment(ONES((4, 4, 1)), ONES(1), key=KEY), r"p must be a scalar: got shape \(1,\)"),
        (lambda: ada_augment(ONES((4, 4, 1), jnp.uint8), 0.5, key=KEY), "image must be of a floating-point type"),
        (lambda: ada_augment(ONES((2, 4, 4, 1)), 0.5, key=KEY), r"must be \(height, width, channels\).*jax.vmap"),
        (lambda: diff_augment(ONES((4, 4, 1), jnp.uint8), key=KEY), "image must be of a floating-point type"),
        (lambda: diff_augment(ONES((4, 4)), key=KEY), r"must be \(height, width, channels\): got shape \(4, 4\)"),
    ],
)
def test_losses_and_augmentations_broadcast_and_cast_nothing(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("family", NETS)
def test_logits_and_penalties_keep_float64(family):
    with jax.enable_x64(True):
        wide = lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x
        net = jax.tree.map(wide, nets(family)[1])
        judge = lambda images: net.batch(images, [0], net.init_state())
        found = jax.eval_shape(lambda images: slopes(judge, images), jnp.zeros((1, 8, 8, 1), jnp.float64))
        assert (found[0].dtype, jax.eval_shape(zero_centred, found[2]).dtype) == (jnp.float64, jnp.float64)


def test_groups_of_a_deviation_are_those_of_the_whole_batch_on_eight_devices():
    assert printed("tests.models.deviation_devices") == {"logits": True, "penalty": True}
