"""Norms give torch's numbers, batch norm over several batches, devices and 100 steps of training; activation norm gives
its definition's.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from eqxgen import nn
from tests import oracles
from tests.devices import printed
from tests.full import full
from tests.oracles.batchnorm_mnist import RATE, batches
from tests.oracles.norms import BATCH_NORMS

KEPT = oracles.load("norms")
TRAINED = oracles.load("batchnorm_mnist")["training"]


def channels_last(x: np.ndarray) -> jax.Array:
    return jnp.asarray(np.moveaxis(x, 1, -1))


def over_batch(norm):
    return jax.vmap(norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None))


def batch_norm_of(name: str):
    shape, options = BATCH_NORMS[name]
    norm = nn.BatchNorm(shape[1], **{{"eps": "epsilon"}.get(k, k): v for k, v in options.items()})
    kept = KEPT[f"batch norm {name}"]
    if norm.scale is None:
        return norm
    return eqx.tree_at(lambda n: (n.scale, n.bias), norm, (jnp.asarray(kept["weight"]), jnp.asarray(kept["bias"])))


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_batch_norm_is_torchs_over_three_batches_and_then_in_inference(name):
    norm, kept = batch_norm_of(name), KEPT[f"batch norm {name}"]
    state = norm.init_state()
    for x, y in zip(kept["x"][:3], kept["y"]):
        found, state = over_batch(norm)(channels_last(x), state)
        np.testing.assert_allclose(found, channels_last(y), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(state.mean, kept["mean"], rtol=1e-6)
    np.testing.assert_allclose(state.variance, kept["variance"], rtol=1e-5)
    quiet, after = over_batch(eqx.nn.inference_mode(norm))(channels_last(kept["x"][3]), state)
    np.testing.assert_allclose(quiet, channels_last(kept["y"][3]), rtol=1e-5, atol=2e-5)
    assert eqx.tree_equal(after, state)


@pytest.mark.parametrize("name", ["1D of vectors", "2D"])
def test_the_gradient_of_batch_norm_passes_through_its_statistics(name):
    norm, kept = batch_norm_of(name), KEPT[f"batch norm {name}"]
    _, pull = jax.vjp(lambda x: over_batch(norm)(x, norm.init_state())[0], channels_last(kept["x"][0]))
    np.testing.assert_allclose(pull(channels_last(kept["dy"]))[0], channels_last(kept["dx"]), rtol=1e-5, atol=1e-5)


def test_group_norm_is_torchs_where_the_seeds_interleaves_channels():
    kept = KEPT["group norm"]
    norm = eqx.tree_at(
        lambda n: (n.scale, n.bias), nn.GroupNorm(6, 3), (jnp.asarray(kept["weight"]), jnp.asarray(kept["bias"]))
    )
    x, y = channels_last(kept["x"]), channels_last(kept["y"])
    np.testing.assert_allclose(jax.vmap(norm)(x), y, rtol=1e-5, atol=1e-5)
    # scratchpad's groups take every third channel: "(c g)" where torch has "(g c)".
    order = np.arange(6).reshape(2, 3).T.reshape(-1)
    interleaved = jax.vmap(eqx.tree_at(lambda n: (n.scale, n.bias), norm, (norm.scale[order], norm.bias[order])))(
        x[..., order]
    )
    assert float(jnp.max(jnp.abs(interleaved[..., np.argsort(order)] - y))) > 0.3


def test_layer_norm_and_rms_norm_are_torchs():
    for name, norm in {"layer norm": nn.LayerNorm(6), "RMS norm": nn.RMSNorm(6)}.items():
        kept = {part: jnp.asarray(array) for part, array in KEPT[name].items()}
        norm = eqx.tree_at(lambda n: n.scale, norm, kept["weight"])
        norm = norm if name == "RMS norm" else eqx.tree_at(lambda n: n.bias, norm, kept["bias"])
        np.testing.assert_allclose(norm(kept["x"]), kept["y"], rtol=1e-5, atol=1e-5)


@full
def test_batch_norm_and_the_moving_codebook_over_two_devices_are_those_of_one():
    report = printed("tests.nn.batchnorm_devices", count=2, python=("-W", "error"), timeout=120)
    for name in ("norm", "codebook"):
        for check_vma in (True, False):
            found = report[f"{name} {check_vma}"]
            assert found.pop("exchanges") <= 2, "one of the statistics, one of the loss"
            assert max(found.values()) < 1e-12
        assert max(report[f"{name} padded"].values()) < 1e-12
        assert report[f"{name} of padding alone"] == 0
    assert report["halves"] > 1e-2, "two halves with statistics of their own must differ, or the test shows nothing"


class Net(eqx.Module):
    """The net of `tests.oracles.batchnorm_mnist`."""

    convs: tuple[nn.Convolution, nn.Convolution]
    norms: tuple[nn.BatchNorm, nn.BatchNorm]
    head: nn.Projection

    def __init__(self, kept: dict[str, np.ndarray]):
        array = lambda name: jnp.asarray(kept[name])

        def conv(place: int, channels: tuple[int, int]):
            layer = nn.Convolution(*channels, stride=2, padding=1, key=jr.key(0))
            values = (jnp.moveaxis(array(f"{place}.weight"), (0, 1), (-1, -2)), array(f"{place}.bias"))
            return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, values)

        def head():
            # torch flattens channels first.
            weight = array("7.weight").reshape(10, 8, 7, 7).transpose(0, 2, 3, 1).reshape(10, -1)
            return eqx.tree_at(
                lambda p: (p.weight, p.bias), nn.Projection(8 * 7 * 7, 10, key=jr.key(0)), (weight, array("7.bias"))
            )

        self.convs = conv(0, (1, 4)), conv(3, (4, 8))
        self.norms = nn.BatchNorm(4), nn.BatchNorm(8)
        self.head = head()

    def __call__(self, image, states):
        x, after = image, []
        for conv, norm, state in zip(self.convs, self.norms, states):
            x, state = norm(conv(x), state)
            x = jax.nn.relu(x)
            after.append(state)
        return self.head(x.reshape(-1)), tuple(after)


@full
def test_batch_norm_trains_a_net_on_mnist_as_torchs_does(shared_data):
    """The loss of each of 100 steps, from the same weights on the same batches; in float64, as rounding grows from step
    to step.
    """
    images, labels = batches(shared_data)

    @eqx.filter_jit
    def train(net, images, labels):
        def step(carry, batch):
            net, states = carry

            def loss(net):
                logits, after = over_batch(net)(batch[0][..., None], states)
                return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])), after

            (value, after), grads = eqx.filter_value_and_grad(loss, has_aux=True)(net)
            return (eqx.apply_updates(net, jax.tree.map(lambda g: -RATE * g, grads)), after), value

        arrays, rest = eqx.partition(net, eqx.is_array)

        def on_arrays(carry, batch):
            (net, states), value = step((eqx.combine(carry[0], rest), carry[1]), batch)
            return (eqx.filter(net, eqx.is_array), states), value

        states = tuple(norm.init_state() for norm in net.norms)
        return jax.lax.scan(on_arrays, (arrays, states), (images, labels))

    with jax.enable_x64(True):
        (_, states), losses = train(Net(TRAINED), jnp.asarray(images, jnp.float64), jnp.asarray(labels))
        np.testing.assert_allclose(losses, TRAINED["losses"], rtol=1e-6)
        for state, place in zip(states, (1, 4)):
            np.testing.assert_allclose(state.mean, TRAINED[f"{place}.running_mean"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(state.variance, TRAINED[f"{place}.running_var"], rtol=1e-5, atol=1e-6)


def test_activation_norm_starts_from_data_inverts_and_knows_its_determinant():
    batch = 3 * jr.normal(jr.key(0), (5, 4, 3, 2)) + 2
    norm = nn.ActNorm(2).started(batch)
    y = jax.vmap(norm)(batch)
    flat = np.asarray(y).reshape(-1, 2)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(flat.std(0, ddof=1), 1, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(norm.inverse)(y), batch, rtol=1e-5, atol=1e-5)
    matrix = jax.jacobian(lambda x: norm(x.reshape(4, 3, 2)).reshape(-1))(batch[0].reshape(-1))
    np.testing.assert_allclose(norm.logdet(batch[0]), jnp.linalg.slogdet(matrix)[1], rtol=1e-5)
    same = nn.ActNorm(2)
    np.testing.assert_array_equal(same(batch[0]), batch[0])


def test_layer_scale_multiplies_each_feature_and_ends_both_branches_of_a_sandwich_block():
    layer = nn.LayerScale(4, 0.25)
    x = jr.normal(jr.key(0), (3, 4))
    np.testing.assert_array_equal(layer(x), x * 0.25)
    ends = {"attention_out_norm": layer, "mlp_out_norm": layer}
    block = nn.TransformerBlock(
        lambda x, **_: x,
        lambda x: 2 * x,
        attention_norm=lambda x: x,
        mlp_norm=lambda x: x,
        placement="sandwich",
        **ends,
    )
    np.testing.assert_allclose(block(x), x * 1.25 * 1.5, rtol=1e-6)
