"""Key streams: fresh keys, in any transformation, and a word where one is used twice."""

import copy
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import RNG, nn
from eqxgen.rng import KeyReuse, watching


def jitted(function):
    """The function, compiled."""
    return jax.jit(lambda *args: jr.key_data(function(*args)))


def handed_over(rng):
    jitted(next)(rng)
    next(rng)


def handed_over_twice(rng):
    step = jitted(next)
    step(RNG(next(rng)))
    step(rng)
    next(rng)


def copied(rng):
    twin = copy.copy(rng)
    next(rng), next(twin)


def copied_as_a_tree(rng):
    twin = jax.tree.map(lambda x: x, rng)
    next(twin), next(rng)


def closed_over(rng):
    jitted(lambda: next(rng))()


def closed_over_by_a_scan(rng):
    jax.lax.scan(lambda carry, _: (carry, jr.key_data(next(rng))), 0, length=3)


@pytest.mark.parametrize(
    "use", [handed_over, handed_over_twice, copied, copied_as_a_tree, closed_over, closed_over_by_a_scan]
)
def test_a_key_used_twice_is_told(use):
    with pytest.warns(KeyReuse, match=r"key \d of a stream is used twice: .* RNG\(next\(rng\)\)"):
        use(RNG(0))


def returned(rng):
    @jax.jit
    def two(rng):
        return jr.key_data(next(rng)), rng

    _, rng = two(rng)
    _, rng = two(rng)
    assert int(rng.count) == 2
    next(rng)


def streams_of_their_own(rng):
    step = jitted(next)
    for _ in range(3):
        step(RNG(next(rng)))


def copied_and_one_used(rng):
    twin = copy.copy(rng)
    next(rng), next(rng)
    assert twin.count == 0


def inside_gradients_and_maps(rng):
    jax.grad(lambda x: x * jr.normal(next(rng)))(1.0)
    jax.vmap(lambda x: x * jr.normal(next(rng)))(jnp.ones(2))

    @jax.jit
    def gradient(x, key):
        rng = RNG(key)
        return jax.grad(lambda x: x * jr.normal(next(rng)))(x)

    gradient(1.0, next(rng))


def abstract_and_real_models(rng):
    key = next(rng)
    abstract = eqx.filter_eval_shape(lambda: nn.MLP(4, key=key))
    assert abstract.up.weight.shape == (16, 4)
    nn.MLP(4, key=key), nn.MLP(4, key=key)


def begun_again(rng):
    for _ in range(2):
        key = jr.PRNGKey(42)
        jr.split(key)
        next(RNG(key))


FINE = [
    returned,
    streams_of_their_own,
    copied_and_one_used,
    inside_gradients_and_maps,
    abstract_and_real_models,
    begun_again,
]


@pytest.mark.parametrize("use", FINE)
def test_keys_used_once_are_no_reason_to_speak(use):
    with warnings.catch_warnings():
        warnings.simplefilter("error", KeyReuse)
        use(RNG(0))


def test_streams_of_equal_keys_are_told_while_watching():
    key = jr.key(0)
    with watching(), pytest.warns(KeyReuse, match="a stream made from the same key"):
        nn.MLP(4, key=key), nn.MLP(4, key=key)
    with watching(), pytest.warns(KeyReuse):
        next(RNG(0)), next(RNG(jr.key(0)))
    with watching():
        rng = RNG(0)
        nn.MLP(4, key=next(rng)), nn.MLP(4, key=next(rng)), next(RNG(1))
    next(RNG(0))  # and no longer behind it


def test_each_reuse_is_told_once_and_drawing_goes_on():
    rng = RNG(0)
    jitted(next)(rng)
    with pytest.warns(KeyReuse) as told:
        keys = [next(rng) for _ in range(3)]
    assert len(told) == 1
    assert [int(x) for x in jr.key_data(keys[0])] == [int(x) for x in jr.key_data(next(RNG(0)))]


def test_a_stream_is_one_fold_in_for_each_key_and_its_checks_are_not_in_the_program():
    def three(rng):
        return [jr.key_data(next(rng)) for _ in range(3)]

    names = [equation.primitive.name for equation in jax.make_jaxpr(three)(RNG(0)).eqns]
    assert names.count("random_fold_in") == 3
    assert not any("callback" in name for name in names)


def test_what_jax_itself_tells_is_use_by_its_own_functions_alone():
    key = jr.key(0)
    with jax.debug_key_reuse(True):
        jr.normal(key)
        with pytest.raises(jax.errors.KeyReuseError):
            jr.normal(key)
        next(RNG(jr.key(1))), next(RNG(jr.key(1)))


def test_a_key_split_and_a_stream_of_it_coincide_as_documented():
    key = jr.key(0)
    rng = RNG(key)
    np.testing.assert_array_equal(jr.key_data(jr.split(key)), [jr.key_data(next(rng)) for _ in range(2)])
