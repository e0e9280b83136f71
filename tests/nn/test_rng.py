"""Key streams: fresh keys in any transformation, and a warning for a key given twice."""

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


def copied(rng):
    twin = copy.copy(rng)
    next(rng), next(twin)


def copied_as_a_tree(rng):
    twin = jax.tree.map(lambda x: x, rng)
    next(twin), next(rng)


def restored(rng):
    saved = np.asarray(jr.key_data(rng.key))
    next(rng), next(RNG(jr.wrap_key_data(saved)))


def equal_seeds(_):
    next(RNG(0)), next(RNG(jr.key(0)))


def two_layers_of_one_key(_):
    key = jr.key(0)
    nn.MLP(4, key=key), nn.MLP(4, key=key)


@pytest.mark.parametrize("use", [copied, copied_as_a_tree, restored, equal_seeds, two_layers_of_one_key])
def test_a_key_given_twice_is_named_while_watching(use):
    with watching(), pytest.warns(KeyReuse, match=r"key \d of a stream was given before: .* RNG\(next\(rng\)\)"):
        use(RNG(7))
    with warnings.catch_warnings():
        warnings.simplefilter("error", KeyReuse)
        use(RNG(7))


def returned(rng):
    @jax.jit
    def two(rng):
        return jr.key_data(next(rng)), rng

    _, rng = two(rng)
    _, rng = two(rng)
    assert int(rng.count) == 2
    next(rng)


def streams_of_their_own(rng):
    step = jax.jit(lambda rng: jr.key_data(next(rng)))
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
    nn.MLP(4, key=key)


FINE = [
    returned,
    streams_of_their_own,
    copied_and_one_used,
    inside_gradients_and_maps,
    abstract_and_real_models,
]


@pytest.mark.parametrize("use", FINE)
def test_keys_given_once_are_not_named(use):
    with watching(), warnings.catch_warnings():
        warnings.simplefilter("error", KeyReuse)
        use(RNG(0))


def test_looking_at_a_stream_is_no_use_of_it():
    rng = RNG(0)
    with watching(), warnings.catch_warnings():
        warnings.simplefilter("error", KeyReuse)
        jax.tree.leaves(rng), eqx.filter_jit(lambda rng: rng.count)(rng)
        next(rng)


def test_a_stream_is_one_fold_in_for_each_key_and_its_checks_are_not_in_the_program():
    def three(rng):
        return [jr.key_data(next(rng)) for _ in range(3)]

    with watching():
        names = [equation.primitive.name for equation in jax.make_jaxpr(three)(RNG(0)).eqns]
    assert names.count("random_fold_in") == 3
    assert not any("callback" in name for name in names)


def test_jax_finds_keys_used_twice_by_its_own_functions():
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
