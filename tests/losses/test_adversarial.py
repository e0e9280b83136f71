"""Adversarial losses in closed form."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.losses.adversarial import discriminator_loss, generator_loss, held, r1_penalty

LOGITS = jnp.asarray([-30.0, -1.5, 0.0, 2.0, 30.0])


def test_the_losses_are_the_cross_entropy_of_real_and_fake():
    log_real, log_fake = np.log1p(np.exp(-np.asarray(LOGITS))), np.log1p(np.exp(np.asarray(LOGITS)))
    np.testing.assert_allclose(generator_loss(LOGITS), log_real, rtol=1e-6)
    np.testing.assert_allclose(discriminator_loss(LOGITS, LOGITS[::-1]), log_real + log_fake[::-1], rtol=1e-6)


def test_a_generator_that_is_found_out_still_has_a_gradient():
    assert jax.grad(lambda x: generator_loss(x))(jnp.asarray(-30.0)) == pytest.approx(-1.0)


def test_the_penalty_of_a_quadratic_form_is_half_its_squared_slope():
    matrix, image = jr.normal(jr.key(0), (5, 5)), jr.normal(jr.key(1), (5,))
    logit, penalty = r1_penalty(lambda x: x @ matrix @ x, image)
    slope = (matrix + matrix.T) @ image
    assert logit == pytest.approx(float(image @ matrix @ image), rel=1e-5)
    assert penalty == pytest.approx(float(slope @ slope) / 2, rel=1e-5)
    assert r1_penalty(lambda x: jnp.sum(x) * 0, image)[1] == 0


def test_the_penalty_of_half_precision_is_summed_in_float32():
    image = jnp.ones(70_000, jnp.float16)
    assert r1_penalty(lambda x: jnp.sum(x.astype(jnp.float32)), image)[1] == 35_000


def test_one_gradient_of_the_sum_is_each_players_own():
    players = {"generator": jnp.asarray([0.3, -0.7]), "critic": jnp.asarray([1.1, 0.4])}
    real, noise = jnp.asarray([0.5, 0.2]), jnp.asarray([-0.4, 0.9])
    judge = lambda critic, x: jnp.sum(jnp.sin(critic * x))
    make = lambda generator: generator * noise

    def together(players):
        fake, critic = make(players["generator"]), players["critic"]
        return generator_loss(judge(held(critic), fake)) + discriminator_loss(
            judge(critic, real), judge(critic, held(fake))
        )

    own = {
        "generator": jax.grad(lambda g: generator_loss(judge(players["critic"], make(g))))(players["generator"]),
        "critic": jax.grad(lambda c: discriminator_loss(judge(c, real), judge(c, make(players["generator"]))))(
            players["critic"]
        ),
    }
    for name, gradient in jax.grad(together)(players).items():
        np.testing.assert_allclose(gradient, own[name], rtol=1e-6)
        assert (gradient != 0).all()
