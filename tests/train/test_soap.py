"""SOAP against a plain statement of its algorithm, and against Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config.optim import OptimConfig
from train.optim import optimiser
from train.optim.groups import Group
from train.optim.soap import cut_of, join, scale_by_soap, split

CONFIG = OptimConfig(name="soap", beta1=0.9, beta2=0.95, epsilon=1e-8, block=4, every=2)


def plain_soap(gradients, config):
    """The steps of SOAP for one matrix, in float64: arXiv:2409.11321, algorithm 3, its first gradient only making the
    bases.
    """
    b1, b2 = config.beta1, config.beta2
    rows, columns = gradients[0].shape
    left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
    first, second, steps = np.zeros((rows, columns)), np.zeros((rows, columns)), []
    for t, g in enumerate(gradients):
        left = b2 * left + (1 - b2) * g @ g.T
        right = b2 * right + (1 - b2) * g.T @ g
        if t == 0:
            p, q = np.linalg.eigh(left)[1][:, ::-1], np.linalg.eigh(right)[1][:, ::-1]
            steps.append(np.zeros_like(g))
            continue
        if t % config.every == 0:
            p, q = np.linalg.qr(left @ p)[0], np.linalg.qr(right @ q)[0]
        first = b1 * first + (1 - b1) * g
        second = b2 * second + (1 - b2) * (p.T @ g @ q) ** 2
        normal = (p.T @ first @ q) / (1 - b1**t) / (np.sqrt(second / (1 - b2**t)) + config.epsilon)
        steps.append(p @ normal @ q.T)
    return steps


def plain_adam(gradients, config):
    first, second, steps = 0, 0, [np.zeros_like(gradients[0])]
    for t, g in enumerate(gradients[1:], 1):
        first, second = config.beta1 * first + (1 - config.beta1) * g, config.beta2 * second + (1 - config.beta2) * g**2
        steps.append(first / (1 - config.beta1**t) / (np.sqrt(second / (1 - config.beta2**t)) + config.epsilon))
    return steps


def test_it_is_the_algorithm_of_the_paper_for_matrices_blocks_and_kernels_and_adam_for_vectors():
    rng = np.random.default_rng(0)
    shapes = {"matrix": (4, 4), "blocks": (8, 4), "kernel": (1, 1, 4, 4), "vector": (5,)}
    gradients = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(7)]
    tx = scale_by_soap(CONFIG)
    state = tx.init(jax.tree.map(lambda g: jnp.zeros(g.shape), gradients[0]))
    update = jax.jit(tx.update)
    found = []
    for g in gradients:
        steps, state = update(jax.tree.map(jnp.float32, g), state)
        found.append(steps)
    column = lambda name, reshape: [reshape(g[name]) for g in gradients]
    expected = {
        "matrix": plain_soap(column("matrix", lambda g: g), CONFIG),
        "kernel": plain_soap(column("kernel", lambda g: g[0, 0]), CONFIG),
        "blocks": np.concatenate(
            [plain_soap(column("blocks", lambda g, i=i: g[i : i + 4]), CONFIG) for i in (0, 4)], axis=1
        ),
        "vector": plain_adam(column("vector", lambda g: g), CONFIG),
    }
    for name, steps in expected.items():
        for t, step in enumerate(steps):
            np.testing.assert_allclose(
                np.squeeze(found[t][name]), step, rtol=2e-3, atol=2e-3, err_msg=f"{name} at step {t}"
            )


@pytest.mark.parametrize(
    ("stacked", "shape", "limit"),
    [
        (False, (5, 7), 3),
        (False, (9, 2), 4),
        (False, (3, 3, 2, 5), 4),
        (True, (2, 5, 7), 3),
        (True, (3, 4, 1), 1),
        (False, (4, 4), 9),
    ],
)
def test_blocks_put_together_again_are_the_array(stacked, shape, limit):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    cut = cut_of(Group("w", shape, stacked, True, True, (1.0,)), limit)
    blocks = split(jnp.asarray(x), cut)
    assert max(blocks.shape[1:]) <= limit
    np.testing.assert_array_equal(join(blocks, cut, x.shape), x)


def loss_of(steps_to, name, rate):
    """Steps until a least-squares problem, ill-conditioned along directions that no axis follows, has lost all but a
    thousandth.
    """
    rng = np.random.default_rng(0)
    rotation = lambda: np.linalg.qr(rng.normal(size=(12, 12)))[0]
    a, b = (jnp.asarray(rotation() @ np.diag(np.logspace(0, -1.5, 12)) @ rotation(), jnp.float32) for _ in range(2))
    target = jnp.asarray(rng.normal(size=(12, 12)), jnp.float32)
    loss = lambda w: jnp.sum((a @ (w - target) @ b) ** 2)
    config = OptimConfig(
        name=name, learning_rate=rate, warmup=0, decay="constant", beta2=0.99, weight_decay=0.0, clip=float("inf")
    )
    tx = optimiser(config, steps_to)

    def step(carry, _):
        w, state = carry
        value, gradient = jax.value_and_grad(loss)(w)
        updates, state = tx.update(gradient, state, w)
        return (w + updates, state), value

    w = jnp.zeros((12, 12))
    _, values = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=steps_to))((w, tx.init(w)))
    below = np.flatnonzero(values < values[0] * 1e-3)
    return below[0] if len(below) else steps_to


def test_it_needs_fewer_steps_than_adam_at_the_best_rate_of_each():
    best = {name: min(loss_of(300, name, rate) for rate in (0.15, 0.3)) for name in ("adamw", "soap")}
    assert best["soap"] < 0.75 * best["adamw"], best


def test_odd_shapes_give_finite_steps():
    tx = scale_by_soap(CONFIG)
    params = {str(shape): jnp.zeros(shape) for shape in [(1, 1), (1, 7), (5, 3, 2), (3, 3, 2, 5), ()]}
    state, update = tx.init(params), jax.jit(tx.update)
    for number in range(3):
        steps, state = update(jax.tree.map(lambda p, n=number: jnp.full_like(p, 1.0 + n), params), state)
        for shape, step in steps.items():
            assert str(step.shape) == shape
            assert bool(jnp.all(jnp.isfinite(step)))
