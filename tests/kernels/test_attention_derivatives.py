"""Attention's derivatives of every kind, for the value and for the logsumexp."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.ops.attention_shapes import MASKS, Attention
from kernels import dot_product_attention, masks
from kernels.attention import primitives
from tests.kernels.attention_cases import call, inputs, scalar, tiles

CASES = {
    "causal": Attention(batch=2, q_seq=9, kv_seq=13, heads=4, mask=MASKS["causal"]),
    "bias": Attention(
        batch=2, q_seq=9, kv_seq=13, heads=4, bias=(False, True, True, True), soft_cap=2.0, mask=MASKS["lengths"]
    ),
    "alibi dropout": Attention(batch=2, q_seq=9, kv_seq=13, heads=4, alibi=True, dropout_rate=0.2),
}


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    with tiles(((16, 16),), ((16, 16),)):
        yield


def close(got, want, tolerance=1e-4):
    def one(a, b):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, float(jnp.max(jnp.abs(b)))), rtol=tolerance)

    jax.tree.map(one, got, want)


def agree(transform, case):
    """A transform of the op equals that of its definition."""
    arrays, rest = inputs(case)
    got, want = (
        jax.jit(transform(functools.partial(scalar, rest=rest, implementation=name)))(arrays)
        for name in ("xla", "reference")
    )
    close(got, want)


def direction(arrays):
    return jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), arrays)


@pytest.mark.parametrize("name", CASES)
def test_forward_mode(name):
    agree(lambda f: lambda arrays: jax.jvp(f, (arrays,), (direction(arrays),)), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_forward_over_reverse(name):
    agree(lambda f: lambda arrays: jax.jvp(jax.grad(f), (arrays,), (direction(arrays),)), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_reverse_over_reverse(name):
    agree(
        lambda f: jax.grad(lambda arrays: sum(jnp.sum(jnp.sin(g)) for g in jax.tree.leaves(jax.grad(f)(arrays)))),
        CASES[name],
    )


def test_hessian():
    case = Attention(q_seq=3, kv_seq=4, heads=1, kv_heads=1, head_dim=2, v_head_dim=2, mask=MASKS["causal"])
    agree(jax.hessian, case)


def test_third_order():
    case = Attention(q_seq=3, kv_seq=4, heads=1, kv_heads=1, head_dim=2, v_head_dim=2)
    line = lambda f, arrays: lambda t: f(jax.tree.map(lambda x, d: x + t * d, arrays, direction(arrays)))
    agree(lambda f: lambda arrays: jax.grad(jax.grad(jax.grad(line(f, arrays))))(0.1), case)


def test_finite_differences_agree_with_every_mode_of_the_first_and_second_order():
    """The derivatives along one direction, by jvp, grad, grad of jvp and jvp of grad, against differences of the value
    in float64.
    """
    case = Attention(q_seq=5, kv_seq=7, heads=2, kv_heads=1, head_dim=3, v_head_dim=2, mask=MASKS["causal"])
    arrays, rest = inputs(case)
    with jax.enable_x64(True):
        wide = {name: x.astype(jnp.float64) for name, x in arrays.items()}
        along, across = direction(wide), jax.tree.map(jnp.sin, wide)
        dot = lambda a, b: sum(jnp.sum(a[n] * b[n]) for n in a)

        def f(arrays, rest=rest):
            return sum(jnp.sum(jnp.sin(x)) for x in call(arrays, rest, "xla"))

        slope = lambda arrays: jax.jvp(f, (arrays,), (along,))[1]
        moved = lambda arrays, t, s: {n: x + t * along[n] + s * across[n] for n, x in arrays.items()}
        modes = {
            "forward": slope,
            "reverse": lambda arrays: dot(jax.grad(f)(arrays), along),
            "reverse over forward": lambda arrays: dot(jax.grad(slope)(arrays), across),
            "forward over reverse": lambda arrays: dot(jax.jvp(jax.grad(f), (arrays,), (across,))[1], along),
        }
        got = jax.jit(lambda arrays: {name: mode(arrays) for name, mode in modes.items()})(wide)
        at, h = jax.jit(f), 1e-4
        first = (at(moved(wide, h, 0)) - at(moved(wide, -h, 0))) / (2 * h)
        second = sum(a * b * at(moved(wide, a * h, b * h)) for a in (-1, 1) for b in (-1, 1)) / (4 * h * h)
    for name, value in got.items():
        np.testing.assert_allclose(
            value, first if name in ("forward", "reverse") else second, rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_the_logsumexp_alone_has_its_true_derivative():
    case = Attention(q_seq=5, kv_seq=7, heads=1, kv_heads=1)
    arrays, _ = inputs(case)
    grad = jax.grad(lambda q: jnp.sum(call(arrays | {"query": q}, {}, "xla")[1]))(arrays["query"])
    logits = jnp.einsum("bqhd,bkhd->bhqk", arrays["query"], arrays["key"]) / np.sqrt(8)
    want = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), arrays["key"]) / np.sqrt(8)
    np.testing.assert_allclose(grad, want, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "inner", "outer"),
    [("causal", "query", "value"), ("bias", "bias", "key"), ("alibi dropout", "slopes", "query")],
)
def test_vmap_twice_over_any_argument(name, inner, outer):
    arrays, rest = inputs(CASES[name])
    f = lambda implementation: jax.grad(functools.partial(scalar, rest=rest, implementation=implementation))
    axes = lambda which: ({n: 0 if n == which else None for n in arrays},)
    many = dict(arrays)
    many[inner] = jnp.stack([arrays[inner], 2 * arrays[inner]])
    many[outer] = jnp.stack([many[outer], many[outer] + 1, -many[outer]])
    got, want = (jax.jit(jax.vmap(jax.vmap(f(n), axes(inner)), axes(outer)))(many) for n in ("xla", "reference"))
    close(got, want)


def test_vmap_over_masks_and_keys_equals_the_loop():
    arrays, _ = inputs(Attention(batch=2, q_seq=9, kv_seq=13, heads=4))
    keys, ids = (
        jax.random.split(jax.random.key(0), 3),
        jnp.sort(jax.random.randint(jax.random.key(1), (3, 2, 13), 0, 3)),
    )

    def f(key, ids):
        mask = masks.Segments(ids[:, :9], ids)
        return dot_product_attention(**arrays, mask=mask, dropout_rate=0.2, dropout_key=key, implementation="xla")

    one = jax.jit(f)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(f))(keys, ids), jnp.stack([one(k, i) for k, i in zip(keys, ids)]), atol=1e-6
    )
    shared = jax.jit(jax.vmap(f, in_axes=(None, 0)))(keys[0], ids)
    np.testing.assert_allclose(shared, jnp.stack([one(keys[0], i) for i in ids]), atol=1e-6)


def test_checkpoint_saves_the_named_output_and_recomputes_nothing():
    arrays, rest = inputs(CASES["causal"])
    f = functools.partial(scalar, rest=rest, implementation="xla")
    names = primitives.OUTPUT_NAME, primitives.LOGSUMEXP_NAME
    save = jax.checkpoint(f, policy=jax.checkpoint_policies.save_only_these_names(*names))
    close(*(jax.jit(jax.grad(g))(arrays) for g in (save, f)))
    count = lambda g: str(jax.make_jaxpr(jax.grad(g))(arrays)).count("eqxgen_attention[")
    assert count(save) == 1
    assert count(jax.checkpoint(f)) == 2


def test_equinox_transforms_pass_through():
    arrays, rest = inputs(CASES["causal"])
    f = lambda arrays: jnp.sum(call(arrays, rest, None)[0] ** 2)
    close(eqx.filter_jit(eqx.filter_grad(f))(arrays), jax.jit(jax.grad(f))(arrays))


def test_a_long_sequence_has_second_derivatives_without_its_square():
    case = Attention(q_seq=300, kv_seq=300, heads=1, kv_heads=1)
    agree(lambda f: lambda arrays: jax.jvp(jax.grad(f), (arrays,), (direction(arrays),))[1], case)
