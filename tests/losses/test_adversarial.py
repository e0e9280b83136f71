"""Adversarial losses in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxgen.losses.adversarial import OBJECTIVES, held, objective

REAL, FAKE = np.asarray([-30.0, -1.5, 0.0, 0.4, 30.0]), np.asarray([2.0, -0.3, 0.0, -30.0, 30.0])
softplus = lambda x: np.logaddexp(0, x)
CLOSED = {
    "non_saturating": (softplus(-FAKE), softplus(-REAL) + softplus(FAKE)),
    "hinge": (-FAKE, np.maximum(1 - REAL, 0) + np.maximum(1 + FAKE, 0)),
    "least_squares": ((FAKE - 1) ** 2 / 2, ((REAL - 1) ** 2 + FAKE**2) / 2),
    "wasserstein": (-FAKE, FAKE - REAL),
    "relativistic": (softplus(REAL - FAKE), softplus(FAKE - REAL)),
    "logistic": (softplus(-FAKE), (softplus(-REAL) + softplus(FAKE)) / 2),
    "vanilla": (-FAKE, (softplus(-REAL) + softplus(FAKE)) / 2),
    "half_hinge": (-FAKE, (np.maximum(1 - REAL, 0) + np.maximum(1 + FAKE, 0)) / 2),
    "signed_least_squares": (FAKE**2, ((1 - REAL) ** 2 + (1 + FAKE) ** 2) / 2),
}


@pytest.mark.parametrize("form", OBJECTIVES)
def test_each_form_is_its_formula(form):
    found, real, fake = objective(form), jnp.asarray(REAL, jnp.float32), jnp.asarray(FAKE, jnp.float32)
    generator, discriminator = CLOSED[form]
    np.testing.assert_allclose(found.generator(fake, real), generator, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.discriminator(real, fake), discriminator, rtol=1e-6, atol=1e-12)
    assert found.generator(fake.astype(jnp.bfloat16), real.astype(jnp.bfloat16)).dtype == jnp.float32


def test_an_unknown_form_and_pairs_without_a_second_are_errors():
    with pytest.raises(ValueError, match=r"form must be one of non_saturating, .*: got 'minimax'"):
        objective("minimax")
    with pytest.raises(ValueError, match="on_real must be given for the form relativistic"):
        objective("relativistic").generator(jnp.zeros(2), None)


@pytest.mark.parametrize("form", [name for name in OBJECTIVES if not OBJECTIVES[name].paired])
def test_each_form_pushes_logits_of_made_examples_up_for_one_player_and_down_for_the_other(form):
    found, low, high, zero = objective(form), jnp.asarray(-0.5), jnp.asarray(0.5), jnp.asarray(0.0)
    assert jax.grad(lambda fake: found.generator(fake))(low) < 0
    assert jax.grad(lambda fake: found.discriminator(zero, fake))(high) > 0
    assert jax.grad(lambda real: found.discriminator(real, zero))(low) < 0


def test_a_generator_that_is_found_out_still_has_a_gradient():
    assert jax.grad(lambda x: objective("non_saturating").generator(x))(jnp.asarray(-30.0)) == pytest.approx(-1.0)


def test_one_gradient_of_the_sum_is_each_players_own():
    form = objective("non_saturating")
    players = {"generator": jnp.asarray([0.3, -0.7]), "critic": jnp.asarray([1.1, 0.4])}
    real, noise = jnp.asarray([0.5, 0.2]), jnp.asarray([-0.4, 0.9])
    judge = lambda critic, x: jnp.sum(jnp.sin(critic * x))
    make = lambda generator: generator * noise

    def together(players):
        fake, critic = make(players["generator"]), players["critic"]
        return form.generator(judge(held(critic), fake)) + form.discriminator(
            judge(critic, real), judge(critic, held(fake))
        )

    own = {
        "generator": jax.grad(lambda g: form.generator(judge(players["critic"], make(g))))(players["generator"]),
        "critic": jax.grad(lambda c: form.discriminator(judge(c, real), judge(c, make(players["generator"]))))(
            players["critic"]
        ),
    }
    for name, gradient in jax.grad(together)(players).items():
        np.testing.assert_allclose(gradient, own[name], rtol=1e-6)
        assert (gradient != 0).all()
