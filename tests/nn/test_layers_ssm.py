"""Mamba-2: the scan in chunks against its recurrence, the layer against transformers' implementation."""

import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.ssm.ssd import ssd, ssd_step
from tests import oracles
from tests.full import full, rows
from tests.oracles.mamba2 import SIZES

PUBLISHED = oracles.load("mamba2")
NAMES = {
    "into.weight": "in_proj.weight",
    "conv": "conv1d.weight",
    "conv_bias": "conv1d.bias",
    "dt_bias": "dt_bias",
    "log_a": "A_log",
    "skip": "D",
    "norm.scale": "norm.weight",
    "out.weight": "out_proj.weight",
}


def recurrence(x, dt, a, b, c, state):
    """The definition: one entry after another."""

    def advance(state, entry):
        x, dt, b, c = entry
        y, state = ssd_step(x, dt, a, b, c, state)
        return state, y

    state, y = jax.lax.scan(advance, state, (x, dt, b, c))
    return y, state


@pytest.mark.parametrize(("dtype", "tolerance"), [pytest.param("float32", 1e-5, marks=full), ("float64", 1e-13)])
def test_the_scan_in_chunks_is_the_recurrence_with_its_gradients(dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
        inputs = (
            draw(19, 4, 3),
            jax.nn.softplus(draw(19, 4)),
            -jnp.exp(draw(4)),
            draw(19, 2, 5),
            draw(19, 2, 5),
            draw(4, 3, 5),
        )
        by = lambda function: lambda *inputs: sum(jnp.sum(jnp.sin(part)) for part in function(*inputs))
        chunked = lambda *inputs: ssd(*inputs[:5], state=inputs[5], chunk=8)
        both = jax.jit(lambda inputs: [(f(*inputs), jax.grad(by(f), range(6))(*inputs)) for f in (chunked, recurrence)])
        for found, wanted in zip(*map(jax.tree.leaves, both(inputs)), strict=True):
            scale = float(jnp.max(jnp.abs(wanted)))
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1.0, scale))


def test_a_long_chunk_of_strong_decay_has_finite_gradients():
    x, ones = jnp.ones((64, 1, 2)), jnp.ones((64, 1, 2))
    loss = lambda dt: jnp.sum(ssd(x, dt, -16 * jnp.ones(1), ones, ones, chunk=64)[0])
    assert np.isfinite(jax.jit(jax.grad(loss))(10 * jnp.ones((64, 1)))).all()


def layer_of(case, parts):
    sizes = SIZES[case]
    layer = nn.Mamba2(
        6,
        state_dim=sizes["state_size"],
        head_dim=sizes["head_dim"],
        groups=sizes["n_groups"],
        chunk=4,
        key=jr.key(0),
    )
    read = lambda name: jnp.asarray(parts[name][:, 0] if parts[name].ndim == 3 else parts[name])
    return eqx.tree_at(where, layer, [read(name) for name in NAMES.values()])


def where(layer):
    return [operator.attrgetter(path)(layer) for path in NAMES]


@pytest.mark.parametrize("case", rows(SIZES, "one group"))
def test_the_layer_is_the_published_one_with_its_gradients_and_step_by_step(case):
    parts = PUBLISHED[case]

    def loss(both):
        y, state = jax.vmap(both[0])(both[1])
        return jnp.sum(y * parts["dy"]), (y, state)

    def stepped(layer, x):
        return jax.lax.scan(lambda state, x: layer.step(x, state)[::-1], layer.init_state(), x)

    run = eqx.filter_jit(
        lambda both: (eqx.filter_value_and_grad(loss, has_aux=True)(both), stepped(both[0], both[1][0]))
    )
    layer = layer_of(case, parts)
    ((_, (y, state)), (by_layer, dx)), (last, steps) = run((layer, jnp.asarray(parts["x"])))
    np.testing.assert_allclose(y, parts["y"], atol=1e-5)
    np.testing.assert_allclose(dx, parts["dx"], atol=1e-4)
    for name, grad in zip(NAMES.values(), where(by_layer)):
        wanted = parts[f"d {name}"]
        np.testing.assert_allclose(grad, wanted.reshape(grad.shape), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(steps, y[0], atol=1e-5)
    for one, whole in zip(last, state):
        np.testing.assert_allclose(one, whole[0], atol=1e-5)


GOOD = {"x": (5, 4, 3), "dt": (5, 4), "a": (4,), "b": (5, 2, 6), "c": (5, 2, 6), "state": (4, 3, 6)}


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("x", (2, 5, 4, 3), r"x must be \(seq, heads, head_dim\): got shape \(2, 5, 4, 3\); jax.vmap"),
        ("dt", (5, 1), r"dt must be \(seq=5, heads=4\): got shape \(5, 1\)"),
        ("a", (1,), r"a must be \(heads=4,\): got shape \(1,\)"),
        ("b", (5, 3, 6), "groups must divide heads: got heads=4, groups=3"),
        ("c", (5, 1, 6), r"c must be \(seq=5, groups=2, state_dim=6\): got shape \(5, 1, 6\)"),
        ("state", (4, 6, 3), r"state must be \(heads=4, head_dim=3, state_dim=6\): got shape \(4, 6, 3\)"),
    ],
)
def test_an_array_of_another_shape_is_named_and_nothing_is_broadcast(name, shape, says, unchecked):
    given = {key: jnp.ones(shape if key == name else size) for key, size in GOOD.items()}
    with pytest.raises(ValueError, match=says):
        ssd(*list(given.values())[:5], state=given["state"])
    one = [x[0] if key in ("x", "dt", "b", "c") else x for key, x in given.items()]
    with pytest.raises(ValueError, match=f"^({name} must be|groups must divide)"):
        ssd_step(*one)
    with pytest.raises(ValueError, match="x must be of a floating-point type: got int32"):
        ssd(*(jnp.ones(GOOD[key], int if key == "x" else float) for key in list(GOOD)[:5]))
