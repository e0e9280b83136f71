"""The U-Net of segmentation beside the same net in PyTorch, its losses, and its sizes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxgen.configs import SegmentationConfig
from eqxgen.losses.segmentation import dice_loss, pixel_cross_entropy
from eqxgen.models import SegmentationUNet
from tests import oracles
from tests.oracles import segmentation as oracle


def test_a_batch_its_gradient_and_the_statistics_after_it_equal_pytorchs():
    kept, model, (images, labels) = oracles.load("segmentation")["U-Net"], oracle.model(), oracle.inputs()
    run = lambda model, x: jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(
        x, model.init_state()
    )

    def loss(kernel):
        logits, states = run(eqx.tree_at(lambda net: net.ups[0].weight, model, kernel), images)
        parts = jax.vmap(pixel_cross_entropy)(logits, labels) + 0.5 * jax.vmap(dice_loss)(logits, labels)
        return jnp.mean(parts), (logits, states)

    (total, (logits, states)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.ups[0].weight)
    np.testing.assert_allclose(logits, kept["logits"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(total, kept["loss"], rtol=1e-5)
    np.testing.assert_allclose(gradient, kept["gradient"], rtol=1e-3, atol=1e-6)
    after, _ = model(jnp.asarray(images[0]), states, inference=True)
    np.testing.assert_allclose(after[None], kept["after"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_net_keeps_the_size_of_odd_multiples_of_its_factor(norm):
    config = SegmentationConfig(width=4, multipliers=(1, 2, 2), norm=norm, groups=2, dropout=0.1)
    model = SegmentationUNet(3, 5, config, key=jax.random.key(0))
    assert len(model.init_state()) == (10 if norm == "batch" else 0)
    logits, states = jax.eval_shape(
        lambda x: model(x, model.init_state(), inference=True), jax.ShapeDtypeStruct((12, 28, 3), jnp.float32)
    )
    assert logits.shape == (12, 28, 5)
    assert len(states) == len(model.init_state())
    with pytest.raises(ValueError, match="the sides of the image must be multiples of 4: got 12 x 30"):
        model(jnp.zeros((12, 30, 3)), model.init_state())


def test_sizes_that_cannot_be_are_refused():
    for values, says in (
        ({"multipliers": ()}, "model.multipliers must be one or more integers"),
        ({"norm": "layer"}, "model.norm must be one of batch, group: got 'layer'"),
        ({"norm": "group", "width": 12}, "model.groups must divide the channels of every level: got model.groups=8"),
        ({"dropout": 1.0}, r"model.dropout must be in \[0, 1\): got 1.0"),
    ):
        with pytest.raises(ValueError, match=says):
            SegmentationConfig(**values)
    assert SegmentationConfig.paper().widths == (64, 128, 256, 512, 1024)
    assert SegmentationConfig.paper().factor == 16


def test_the_dice_loss_is_that_of_the_classes_of_an_image():
    labels = jnp.asarray([[0, 0, 1], [2, 2, 1]])
    sure = lambda guesses: 60.0 * jax.nn.one_hot(guesses, 4) - 30
    assert float(dice_loss(sure(labels), labels)) == pytest.approx(0, abs=1e-6)  # class 3 is absent from both
    guesses = jnp.asarray([[0, 1, 1], [2, 2, 1]])
    scores = [(2 * 1 + 1) / (1 + 2 + 1), (2 * 2 + 1) / (3 + 2 + 1), 1, 1]
    assert float(dice_loss(sure(guesses), labels)) == pytest.approx(1 - np.mean(scores), abs=1e-6)
    even = jnp.zeros((2, 3, 4))
    scores = [(2 * n / 4 + 1) / (6 / 4 + n + 1) for n in (2, 2, 2, 0)]
    assert float(dice_loss(even, labels)) == pytest.approx(1 - np.mean(scores), rel=1e-6)
    assert float(pixel_cross_entropy(even, labels)) == pytest.approx(np.log(4), rel=1e-6)
    assert dice_loss(even.astype(jnp.bfloat16), labels).dtype == jnp.float32
